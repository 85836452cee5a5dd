"""Both halves of sentences about a forgotten and a kept person, told apart: what became of the words of each.

    python benchmarks/entangled.py runs/tif-entangled [--baseline lpl-random]

Reads what `expunge run recipes/tif-entangled.yaml` left there. The probability of a half is the geometric mean over its
tokens, averaged over records; intervals are over people, each record counted by its mean over seeds. Differences are
from the baseline, paired. The table is printed as Markdown.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from expunge import runfolder
from expunge.data.load import load
from expunge.data.records import Record
from expunge.evals import paired
from expunge.evals.numbers import Interval
from expunge.recipe import Source

HALVES = {"the forgotten value": "unwanted", "the kept person's value": "wanted", "all other words": ""}


def halves(folder: Path, records: Mapping[str, Record]) -> dict[str, dict[str, float]]:
    """For each half, the probability of its tokens in each record, under the model that was judged into `folder`."""
    label = next(path.parent.name for path in sorted(folder.glob("eval/*/scores")))
    table = runfolder.open(folder).read_table(f"eval/{label}/scores/forget.parquet")
    found: dict[str, dict[str, float]] = {name: {} for name in HALVES}
    for row in table.to_pylist():
        if row["variant"] != "answer":
            continue
        start, end, logp = (np.array(row[name]) for name in ("start", "end", "logp"))
        inside = {
            span.label: (start < span.end) & (end > span.start) & (start >= 0)
            for span in records[row["id"]].spans
            if span.field == "answer" and span.label in HALVES.values()
        }
        inside[""] = (start >= 0) & ~np.any(list(inside.values()), axis=0)
        for name, label in HALVES.items():
            found[name][row["id"]] = math.exp(logp[inside[label]].mean())
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--baseline", default="lpl-random")
    asked = parser.parse_args()
    records = {r.id: r for r in load(Source(path=str(asked.folder / "data" / "entangled.jsonl")), "forget")}
    arms: dict[str, list[Path]] = {name: [asked.folder / "models" / name] for name in ("target", "oracle")}
    for path in sorted(path.parent for path in (asked.folder / "arms").glob("*/log.jsonl")):
        arms.setdefault(path.name.rstrip("0123456789").rstrip("-"), []).append(path)
    measured = {arm: [halves(path, records) for path in paths] for arm, paths in arms.items()}
    ids = sorted(next(iter(measured.values()))[0]["all other words"])
    subjects = [records[key].subject for key in ids]

    def values(arm: str, half: str) -> Sequence[float]:
        return [float(np.mean([one[half][key] for one in measured[arm]])) for key in ids]

    print("| | " + " | ".join(HALVES) + " |\n|---|" + "---|" * len(HALVES))
    for arm in measured:
        pairs = [paired.compare(arm, values(arm, h), values(asked.baseline, h), subjects) for h in HALVES]
        tested = arm not in ("target", "oracle", asked.baseline)
        cells = [_cell(pair.first) + (f" p {pair.p:.4f}" if tested else "") for pair in pairs]
        print(f"| {arm} | " + " | ".join(cells) + " |")


def _cell(number: Interval) -> str:
    return f"{number.value:.3g} [{number.low:.3g}, {number.high:.3g}]"


if __name__ == "__main__":
    main()
