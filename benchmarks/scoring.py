"""CPU time of all teacher-forced metrics of TOFU's suite: one pass for all of them, and a pass for each.

    python -m benchmarks.scoring --models ../shared/parity/models --data ../shared/parity/data

`--models` holds `target` and `retain` (the oracle), `--data` TOFU's files. Both ways run in turn in this process on one
thread; the least of `--repeat` times counts, because other work on the machine only adds to it. The way that makes a
pass for each metric is `tests.evals.naive`, written after OpenUnlearning's: padded batches of 32, whole logits. The
numbers of both are compared first. `--profile` says where the time of one pass goes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import torch
from tests.evals import naive

from expunge import lm as lms
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.evals import scoring, tofu
from expunge.evals.measure import CONVENTIONS, Measured, attacks, per_item
from expunge.lm import LM
from expunge.recipe import Model

Sets = Mapping[str, Sequence[Record]]
TEMPLATE = "<|begin|><|user|>{prompt}<|end|><|assistant|>{answer}<|eos|>"


def one_pass(target: LM, oracle: LM, encoder: Encoder, sets: Sets) -> dict[str, pa.Table]:
    """The target's score tables, from which all metrics are; the oracle is scored too, for the reference attack."""
    found = {}
    for name, records in sets.items():
        found[name] = scoring.score(target, encoder, records, ("answer",) if name == "holdout" else scoring.VARIANTS)
        if name in ("forget", "holdout"):
            scoring.score(oracle, encoder, records, ("answer",))
    for name in ("forget", "holdout"):
        attacks(Measured.of(found[name]), CONVENTIONS["expunge"])
    for name in found:
        per_item(name, Measured.of(found[name]), CONVENTIONS["expunge"])
    return found


def compare(tables: Mapping[str, pa.Table], each: Mapping[str, list[float]]) -> dict[str, float]:
    """The largest difference between both ways, by metric."""
    sets = {name: Measured.of(table) for name, table in tables.items()}
    worst: dict[str, float] = {}
    for name, expected in each.items():
        what, _, rest = name.partition("/")
        if what in sets:
            parts = {"answer": sets[what].loss, "paraphrase": sets[what].paraphrase}
            parts |= {f"perturbed:{k}": part for k, part in enumerate(sets[what].perturbed)}
            item, what = parts[rest], "losses"
        elif rest:
            item = attacks(sets[rest], CONVENTIONS["expunge"])[what]
        else:
            item = per_item("forget", sets["forget"], CONVENTIONS["expunge"])[what]
        assert item is not None
        gap = max(abs(a - b) for a, b in zip(item.values.tolist(), expected, strict=True))
        worst[what] = max(worst.get(what, 0.0), gap)
    return worst


def main() -> None:
    """Prints tokens, differences, times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("../shared/parity/models"))
    parser.add_argument("--data", type=Path, default=Path("../shared/parity/data"))
    parser.add_argument("--template", default=TEMPLATE)
    parser.add_argument("--limit", type=int, help="at most so many records a set")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sets = tofu.load_suite(asked.data, limit=asked.limit)
    target, oracle = (lms.load(Model(model_name_or_path=str(asked.models / name))) for name in ("target", "retain"))
    encoder = Encoder(target.tokenizer, template=asked.template)
    best = [float("inf")] * 2
    for number in range(asked.repeat):
        times = [time.process_time()]
        tables = one_pass(target, oracle, encoder, sets)
        times.append(time.process_time())
        each, count = naive.every_pass(target.model, oracle.model, encoder, sets)
        times.append(time.process_time())
        if not number:
            print(f"a pass for each metric: {count.sequences} sequences in {count.tokens} token slots")
            print("largest differences:", {name: f"{gap:.1e}" for name, gap in compare(tables, each).items()})
        best = [min(old, end - start) for old, start, end in zip(best, times[:-1], times[1:], strict=True)]
        print(f"CPU seconds: one pass {times[1] - times[0]:.2f}, a pass for each {times[2] - times[1]:.2f}", flush=True)
    print(f"least of {asked.repeat}: {best[0]:.2f} and {best[1]:.2f}, {best[1] / best[0]:.2f} times less")
    if asked.profile:
        with torch.profiler.profile() as profile:
            one_pass(target, oracle, encoder, sets)
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=40))


if __name__ == "__main__":
    main()
