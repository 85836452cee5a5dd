"""A benchmark on disk: our JSON lines with gold spans, or the files and columns of TOFU."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from math import gcd
from pathlib import Path
from typing import Any, Literal

from expunge.data.columns import to_row
from expunge.data.records import Split
from expunge.errors import DataError, unknown
from expunge.synth.benchmark import Benchmark
from expunge.synth.forms import Entry, Form
from expunge.synth.world import Person

Layout = Literal["expunge", "tofu"]
Rows = Iterable[Mapping[str, Any]]

MANIFEST = "benchmark.json"
_FORMAT = 1
_SUBJECTS: tuple[Split, ...] = ("forget", "retain", "holdout")
_TOFU_COLUMNS = {
    "prompt": "question",
    "paraphrase": "paraphrased_answer",
    "prompt_paraphrase": "paraphrased_question",
    "perturbed": "perturbed_answer",
}
_PERTURBED = 400
"""Records in TOFU's retain_perturbed: enough to judge by, few enough to score often."""


def write(benchmark: Benchmark, folder: str | Path, layout: Layout = "expunge", overwrite: bool = False) -> list[Path]:
    """The files written, benchmark.json (settings, counts and hashes of the others) last.

    `expunge`: a JSONL file a split for question and answer, for running text, and for probes. `tofu`: TOFU's names and
    columns, so that its suite runs on the folder; the general facts near the people stand in for real authors. Files
    in the way are an error unless `overwrite`.
    """
    if layout not in ("expunge", "tofu"):
        raise DataError(unknown("layout of a benchmark", layout, ("expunge", "tofu")))
    root = Path(folder)
    tables = _own(benchmark) if layout == "expunge" else _tofu(benchmark)
    taken = [name for name in (*tables, MANIFEST) if (root / name).exists()]
    if taken and not overwrite:
        raise DataError(f"'{root}' already holds {', '.join(taken[:5])}. Choose another folder, or ask to overwrite.")
    root.mkdir(parents=True, exist_ok=True)
    files = {name: _write(root / name, rows) for name, rows in tables.items()}
    manifest = {"format": _FORMAT, "layout": layout, "settings": settings(benchmark), "files": files}
    _replace(root / MANIFEST, [json.dumps(manifest, indent=2) + "\n"])
    return [root / name for name in (*tables, MANIFEST)]


def settings(benchmark: Benchmark) -> dict[str, str | int]:
    """What decides the benchmark: its size, language, seed and so on."""
    world = benchmark.world
    return {
        "people": world.people,
        "seed": world.seed,
        "language": benchmark.language,
        "kind": benchmark.kind,
        "forget": world.forget,
        "holdout": world.holdout,
        "neighbours": world.neighbours,
        "shared": world.shared,
        "facts": len(world.facts),
        "phrasings": benchmark.phrasings,
        "pairs": benchmark.pairs,
        "general": benchmark.general,
    }


def tofu_names(benchmark: Benchmark) -> tuple[str, str, str]:
    """TOFU's names for the forget, retain and holdout files by the share forgotten: forget10, retain90, holdout10."""
    percent = max(round(100 * benchmark.world.forget / benchmark.world.people), 1)
    return f"forget{percent:02d}", f"retain{100 - percent:02d}", f"holdout{percent:02d}"


def _own(benchmark: Benchmark) -> dict[str, Rows]:
    tables: dict[str, Rows] = {}
    for split in _SUBJECTS:
        tables[f"{split}.jsonl"] = _rows(benchmark, split, ("qa",))
        tables[f"{split}_text.jsonl"] = _rows(benchmark, split, ("spread", "biography"))
    tables["entangled.jsonl"] = _rows(benchmark, "forget", ("entangled",))
    tables["general.jsonl"] = _rows(benchmark, "general", ("qa", "sentence"))
    tables["unseen.jsonl"] = _rows(benchmark, "general", ("unseen",))
    tables["probes.jsonl"] = chain.from_iterable(_rows(benchmark, split, ("cloze", "reverse")) for split in _SUBJECTS)
    tables["choices.jsonl"] = chain.from_iterable(_choices(benchmark, split) for split in _SUBJECTS)
    tables["people.jsonl"] = (_facts(benchmark, p) for split in _SUBJECTS for p in benchmark.subjects(split))
    return tables


def _tofu(benchmark: Benchmark) -> dict[str, Rows]:
    forget, retain, holdout = tofu_names(benchmark)
    each = len(benchmark.world.facts) * benchmark.phrasings
    step = -(-len(benchmark.world.numbers("retain")) * each // _PERTURBED)
    while gcd(step, each) != 1:
        step += 1  # else every person would be judged by the same kinds of fact
    judged = (row for k, row in enumerate(_tofu_rows(benchmark, "retain")) if k % step == 0)
    return {
        "full.json": chain.from_iterable(_plain(benchmark, split) for split in ("forget", "retain", "general")),
        f"{forget}.json": _plain(benchmark, "forget"),
        f"{forget}_perturbed.json": _tofu_rows(benchmark, "forget"),
        f"{retain}.json": _plain(benchmark, "retain"),
        "retain_perturbed.json": judged,
        f"{holdout}.json": _plain(benchmark, "holdout"),
        f"{holdout}_perturbed.json": _tofu_rows(benchmark, "holdout"),
        "real_authors_perturbed.json": _tofu_rows(benchmark, "general", near=True),
        "world_facts_perturbed.json": _tofu_rows(benchmark, "general", near=False),
    }


def _rows(benchmark: Benchmark, split: Split, wanted: tuple[Form, ...]) -> Iterator[Mapping[str, Any]]:
    return (_row(entry) for entry in benchmark.entries(split, wanted))


def _row(entry: Entry) -> dict[str, Any]:
    return {**to_row(entry.record), "form": entry.form, "fact": entry.fact}


def _tofu_rows(benchmark: Benchmark, split: Split, near: bool | None = None) -> Iterator[Mapping[str, Any]]:
    entries = benchmark.entries(split) if near is None else benchmark.general_facts(near)
    for entry in entries:
        yield {_TOFU_COLUMNS.get(name, name): value for name, value in _row(entry).items()}


def _plain(benchmark: Benchmark, split: Split) -> Iterator[Mapping[str, Any]]:
    """TOFU's rows as they are trained on, without what is only judged."""
    judged = {"paraphrased_answer", "paraphrased_question", "perturbed_answer"}
    for row in _tofu_rows(benchmark, split):
        yield {name: value for name, value in row.items() if name not in judged}


def _choices(benchmark: Benchmark, split: Split) -> Iterator[Mapping[str, Any]]:
    """Multiple choice in the shape of MMLU and WMDP: `answer` is the place of the right one of `choices`."""
    for entry in benchmark.entries(split, ("choice",)):
        record = entry.record
        yield {
            "id": record.id,
            "question": entry.template,
            "choices": list(entry.options),
            "answer": "ABCD".index(record.answer),
            "subject": record.subject,
            "split": split,
            "fact": entry.fact,
        }


def _facts(benchmark: Benchmark, person: Person) -> Mapping[str, Any]:
    return {
        "id": person.id,
        "name": person.name,
        "split": person.split,
        "neighbour_of": person.neighbour_of,
        "shared": list(person.shared),
        "facts": {f.name: v.text for f, v in zip(benchmark.world.facts, person.values, strict=True)},
    }


def _write(path: Path, rows: Rows) -> dict[str, str | int]:
    """How many rows were written, and their hash."""
    digest, count = hashlib.sha256(), 0

    def lines() -> Iterator[str]:
        nonlocal count
        for row in rows:
            line = json.dumps(row, ensure_ascii=False) + "\n"
            digest.update(line.encode())
            count += 1
            yield line

    _replace(path, lines())
    return {"rows": count, "sha256": digest.hexdigest()}


def _replace(path: Path, lines: Iterable[str]) -> None:
    """Writes beside `path` and renames: a file under its name is always whole."""
    beside = path.with_name(path.name + ".part")
    with beside.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)
    os.replace(beside, path)
