"""Peak memory and time a record of annotating, projecting, batching and tabulating many records, a process for each.

    python benchmarks/bigdata.py --records 20000 100000 --folder runs/bigdata

Records are short fictitious questions, cheap to make; the tokenizer is a small one, fitted on a thousand of them.
Peak memory is what the process held at most (VmHWM), less what it held with everything imported. No model is loaded:
the numbers of the score table are made up, so that what is measured is the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from expunge import fresh, identifiers, sides
from expunge.data.collate import collate
from expunge.data.columns import to_row
from expunge.data.encode import Encoded, Encoder
from expunge.data.load import iterate
from expunge.data.records import Record, Span
from expunge.evals import metrics, table
from expunge.recipe import FreshModel, Source

STAGES = ("annotate", "project", "batch", "tabulate")
BATCH, TOKENS, GROUP, DRAWN = 16, 24, 4096, 20_000


def people(count: int) -> Iterator[Record]:
    """Records whose every name and year is another."""
    for number in range(count):
        name = f"Ada{number:07d} Sten{number % 977}"
        answer = f"{name} was born in Oslo{number % 331} in {1900 + number % 99} and wrote {number % 13} books."
        yield Record(f"r{number:07d}", f"Where was {name} born?", answer, spans=(Span("answer", 0, len(name)),))


def status(name: str) -> float:
    """Megabytes that /proc says of this process: VmHWM is the most it ever held, VmRSS what it holds."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Runs every stage at every size and prints a table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--records", type=int, nargs="+", default=[20_000, 100_000])
    arguments.add_argument("--folder", type=Path, default=Path("runs/bigdata"))
    arguments.add_argument("--stage", choices=STAGES, help="run one stage in this process")
    given = arguments.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.stage:
        print(json.dumps(measured(given.stage, given.folder, given.records[0])))
        return
    print("| stage | records | seconds | microseconds a record | peak, MB more than at start |")
    print("|---|---|---|---|---|")
    for stage in STAGES:
        for count in given.records:
            call = [sys.executable, __file__, "--stage", stage, "--records", str(count), "--folder", str(given.folder)]
            told = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            print(
                f"| {stage} | {count:,} | {told['seconds']:.1f} | {told['each']:.0f} | {told['peak']:.0f} |", flush=True
            )


class Again:
    """The records of a file, read anew each time they are gone through."""

    def __init__(self, source: Source, count: int) -> None:
        self.source, self.count = source, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Record]:
        return iterate(self.source, "forget")


def measured(stage: str, folder: Path, count: int) -> dict[str, float]:
    """What one stage took in this process; its records are made first if they are not there."""
    data = folder / f"records-{count}.jsonl"
    if not data.is_file():
        with data.open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(to_row(record)) + "\n" for record in people(count))
    work = prepared(stage, folder, count)
    before, began = status("VmRSS"), time.process_time()
    work()
    seconds = time.process_time() - began
    return {"seconds": seconds, "each": 1e6 * seconds / count, "peak": max(0.0, status("VmHWM") - before)}


def prepared(stage: str, folder: Path, count: int) -> Callable[[], object]:
    """The stage as something to call, everything it needs imported and made."""
    source = Source(path=str(folder / f"records-{count}.jsonl"))
    spans = folder / f"spans-{count}.jsonl"
    texts = [text for record in people(1000) for text in (record.prompt, record.answer)]
    encoder = Encoder(fresh.fit_tokenizer(texts, FreshModel(vocab_size=400)), template="{prompt}\n{answer}")
    records = Again(source, count)
    rng = np.random.default_rng(0)

    def annotate() -> None:
        spans.unlink(missing_ok=True)
        identifiers.annotate(records, identifiers.build(r"regex:pattern=\d{4}"), spans)

    def project() -> Sequence[Encoded]:
        sides.IN_MEMORY = 0
        return sides.encode_all(encoder, records)

    def batch() -> None:
        items = project()
        order = rng.permutation(len(items))
        for first in range(0, min(count, DRAWN), BATCH):
            collate([items[int(place)] for place in order[first : first + BATCH]], pad_id=0)

    def tabulate() -> None:
        file = folder / f"scores-{count}.parquet"
        write_scores(file, count, rng)
        metrics.probability(metrics.average_loss(table.answers(table.read(file))))

    return {"annotate": annotate, "project": project, "batch": batch, "tabulate": tabulate}[stage]


def write_scores(file: Path, count: int, rng: np.random.Generator) -> None:
    """A score table of `TOKENS` tokens a record, written in groups of rows."""
    with pq.ParquetWriter(file, table.SCORES) as writer:
        for first in range(0, count, GROUP):
            rows = min(GROUP, count - first)
            ends = np.arange(0, (rows + 1) * TOKENS, TOKENS, dtype=np.int32)
            made = {
                field.name: pa.ListArray.from_arrays(ends, values(field.type.value_type, rows * TOKENS, rng))
                if pa.types.is_list(field.type)
                else values(field.type, rows, rng)
                for field in table.SCORES
            }
            made |= {
                "id": pa.array([f"r{first + row:07d}" for row in range(rows)]),
                "variant": pa.array(["answer"] * rows),
            }
            writer.write_table(pa.table(made, schema=table.SCORES))


def values(kind: pa.DataType, size: int, rng: np.random.Generator) -> pa.Array:
    """So many values of a type, made up; numbers are below 0, as log-probabilities are."""
    if pa.types.is_string(kind):
        return pa.array(["word"] * size)
    if pa.types.is_boolean(kind):
        return pa.array(rng.random(size) < 0.5)
    return pa.array(-rng.random(size)).cast(kind, safe=False)


if __name__ == "__main__":
    main()
