"""The tables that separate scoring from judging: their columns, their files, and a numpy view of one.

A score table has a row for each (record, variant), with one list entry for each scored token; a generation table a row
for each generated answer. Files are Parquet with, in their metadata, a key of what made them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from expunge.errors import DataError, RunFolderError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

SCORES = pa.schema(
    [
        ("id", pa.string()),
        ("variant", pa.string()),
        ("subject", pa.string()),
        ("text", pa.string()),
        ("truncated", pa.bool_()),
        ("eos", pa.bool_()),
        ("tokens", pa.list_(pa.string())),
        ("start", pa.list_(pa.int32())),
        ("end", pa.list_(pa.int32())),
        ("logp", pa.list_(pa.float32())),
        ("label_logit", pa.list_(pa.float32())),
        ("lse", pa.list_(pa.float32())),
        ("entropy", pa.list_(pa.float32())),
        ("second_moment", pa.list_(pa.float32())),
        ("top1", pa.list_(pa.bool_())),
    ]
)
"""One row per (record, variant). `variant`: answer, paraphrase, perturbed:0, ... `text`: that answer's text.
`eos`: the last scored token ends the text. `tokens`: the characters of each; `start`, `end`: where they are in `text`,
-1 outside it. `logp`, `label_logit`, `lse` (log-sum-exp) and `entropy` in nats, `second_moment` sum_v p_v (log p_v)^2,
all at temperature 1; `top1`: the token is the arg max."""

GRAD_NORM = "grad_norm"
"""A column (float64) that a score table may have besides: the norm of the gradient of the answer's loss."""

FLUENCY, ENTAILMENT = "fluency", "entailment"
"""Columns that a generation table may have beside its own: what a classifier makes of the answers."""
GENERATIONS = pa.schema(
    [
        ("id", pa.string()),
        ("subject", pa.string()),
        ("prompt", pa.string()),
        ("reference", pa.string()),
        ("generation", pa.string()),
        ("n_tokens", pa.int32()),
        ("stopped", pa.bool_()),
    ]
)
"""One row per record: the prompt as the record has it, the right answer, what the model wrote (special tokens left
out), how many tokens it wrote, and whether it stopped by itself."""


@dataclass(frozen=True)
class Answers:
    """One variant of a score table as arrays: `ids`, `subjects`, `texts` (n), `eos` (n,) bool; the tokens of item i are
    `offsets[i]:offsets[i + 1]` of the flat arrays `logp`, `entropy`, `second_moment` (float64) and `top1` (bool).
    `grad_norm` (n,) where the table has it."""

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    texts: tuple[str, ...]
    eos: BoolArray
    offsets: IntArray
    logp: FloatArray
    entropy: FloatArray
    second_moment: FloatArray
    top1: BoolArray
    grad_norm: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> IntArray:
        """(n,) scored tokens of each item."""
        return np.diff(self.offsets)

    def without_eos(self) -> Answers:
        """The same items without the token that ends the text; a truncated answer has none to lose."""
        keep = np.ones(len(self.logp), dtype=np.bool_)
        keep[self.offsets[1:][self.eos] - 1] = False
        return replace(
            self,
            eos=np.zeros(len(self), dtype=np.bool_),
            offsets=np.concatenate([[0], np.cumsum(self.lengths - self.eos)]),
            logp=self.logp[keep],
            entropy=self.entropy[keep],
            second_moment=self.second_moment[keep],
            top1=self.top1[keep],
        )


def answers(table: pa.Table, variant: str = "answer") -> Answers:
    """The rows of one variant in the order of the table; DataError with the variants there are if it has none."""
    check(table, SCORES, "score table")
    part = table.filter(pc.equal(table["variant"], variant)).combine_chunks()
    if not part.num_rows:
        raise DataError(f"the score table has no variant '{variant}'; it has {', '.join(variants(table)) or 'no rows'}")
    lengths = np.asarray(pc.list_value_length(part["logp"]), dtype=np.int64)
    return Answers(
        ids=tuple(part.column("id").to_pylist()),
        subjects=tuple(part.column("subject").to_pylist()),
        texts=tuple(part.column("text").to_pylist()),
        eos=np.array(part.column("eos").to_pylist(), dtype=np.bool_),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        logp=_flat(part, "logp"),
        entropy=_flat(part, "entropy"),
        second_moment=_flat(part, "second_moment"),
        top1=_flat(part, "top1").astype(np.bool_),
        grad_norm=_numbers(part, GRAD_NORM) if GRAD_NORM in part.column_names else None,
    )


def variants(table: pa.Table) -> list[str]:
    """The variants of a score table in the order of their first row."""
    return [str(name) for name in table.column("variant").unique().to_pylist()]


def check(table: pa.Table, schema: pa.Schema, what: str) -> None:
    """DataError if a column of `schema` is missing or has another type."""
    for field in schema:
        if field.name not in table.column_names:
            raise DataError(f"{what} lacks the column '{field.name}'; it has {', '.join(table.column_names)}")
        found = table.schema.field(field.name).type
        if found != field.type:
            raise DataError(f"{what}: column '{field.name}' should be {field.type}, found {found}")


def read(path: Path) -> pa.Table:
    """The table of a file; RunFolderError if it is missing or damaged."""
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise RunFolderError(f"there is no table '{path}'") from None
    except (pa.ArrowException, OSError) as error:
        raise RunFolderError(f"'{path}' is not a readable table ({error}); delete it and evaluate again") from None


def _numbers(table: pa.Table, name: str) -> FloatArray:
    return np.array([np.nan if v is None else v for v in table.column(name).to_pylist()], dtype=np.float64)


def _flat(table: pa.Table, name: str) -> FloatArray:
    column = table.column(name).combine_chunks()
    array = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return np.asarray(array.flatten().to_numpy(zero_copy_only=False), dtype=np.float64)
