"""How far a model's predictions are from another's, token by token: the tables of it, and their numbers.

A table is eval/LABEL/kl/OTHER/SET.parquet, OTHER the oracle or the target. No model, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from expunge.evals import table
from expunge.evals.measure import prefix
from expunge.evals.metrics import PerItem
from expunge.evals.numbers import Bootstrap, Number, mean

FOLDER = "kl"
KL = pa.schema(
    [
        ("id", pa.string()),
        ("subject", pa.string()),
        ("start", pa.list_(pa.int32())),
        ("end", pa.list_(pa.int32())),
        ("kl", pa.list_(pa.float32())),
        ("informative", pa.list_(pa.bool_())),
    ]
)
"""One row per record, one list entry per scored token of its answer. `start`, `end`: its characters in the answer, -1
outside it. `kl`: KL(other || model) in nats. `informative`: it stands in a marked span; null for a record without."""
PARTS: Mapping[str, bool] = {"informative": True, "structural": False}


@dataclass(frozen=True)
class Divergences:
    """The numbers, why others are absent, and the per-record values behind the numbers."""

    numbers: Mapping[str, Number]
    absent: Mapping[str, str]
    items: Mapping[str, PerItem]


def name_of(set_name: str, other: str) -> str:
    """The metric of a set: its mean KL(other || model).

    >>> name_of("real_authors", "oracle")
    'ra_KL_oracle'
    """
    return f"{prefix(set_name)}_KL_{other}"


def names_of(set_name: str, other: str) -> list[str]:
    """All metrics that a set's table may give."""
    name = name_of(set_name, other)
    return [name, *(f"{name}_{part}" for part in PARTS)]


def judge(folder: Path, bootstrap: Bootstrap) -> Divergences:
    """What the KL tables of an evaluation folder say; nothing where there are none."""
    numbers: dict[str, Number] = {}
    absent: dict[str, str] = {}
    items: dict[str, PerItem] = {}
    for file in sorted((folder / FOLDER).glob("*/*.parquet")):
        other = file.parent.name
        found = per_record(file.stem, other, table.read(file))
        items |= found
        for name, item in found.items():
            numbers[name] = mean(item, _higher(file.stem, other), bootstrap, None, other)
        missing = [name for name in names_of(file.stem, other) if name not in found]
        absent |= dict.fromkeys(missing, f"no record of the set '{file.stem}' has marked spans")
    return Divergences(numbers, absent, items)


def per_record(set_name: str, other: str, kl: pa.Table) -> dict[str, PerItem]:
    """Mean KL over the scored tokens of each record, by metric; over those of a part, if any record has spans.

    NaN for a record without such a token: one without spans has neither part.
    """
    table.check(kl, KL, "KL table")
    ids, subjects = (tuple(kl[column].to_pylist()) for column in ("id", "subject"))
    values = [np.array(row, np.float64) for row in kl["kl"].to_pylist()]
    marks = kl["informative"].to_pylist()
    name = name_of(set_name, other)
    found = {name: PerItem(ids, subjects, np.array([_mean(row) for row in values]))}
    if any(mark is not None for mark in marks):
        for part, wanted in PARTS.items():
            means = [
                np.nan if mark is None else _mean(row[np.array(mark, np.bool_) == wanted])
                for row, mark in zip(values, marks, strict=True)
            ]
            found[f"{name}_{part}"] = PerItem(ids, subjects, np.array(means))
    return found


def _higher(set_name: str, other: str) -> str:
    """Far from the oracle is bad anywhere; far from the target is what unlearning is for, on forget sets alone."""
    return "neither" if other != "oracle" and set_name.startswith("forget") else "worse"


def _mean(values: table.FloatArray) -> float:
    return float(values.mean()) if len(values) else np.nan
