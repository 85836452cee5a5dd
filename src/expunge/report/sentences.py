"""Records of a run with their tokens, weights and probabilities, epoch by epoch, as the run folder holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from expunge.errors import RunFolderError
from expunge.report.collect import Column
from expunge.runfolder import TOKENS, TOKENS_TABLE, RunFolder

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """One record at one epoch: arrays over its scored tokens, nats."""

    epoch: float
    weight: FloatArray
    logp: FloatArray
    entropy: FloatArray


@dataclass(frozen=True)
class Sentence:
    """One record of one run: its tokens, which of them are gold, and a frame for each epoch, in order."""

    id: str
    tokens: tuple[str, ...]
    gold: tuple[bool, ...]
    start: tuple[int, ...]
    end: tuple[int, ...]
    frames: tuple[Frame, ...]
    prompt: str = ""
    text: str = ""

    @property
    def first(self) -> Frame:
        """The frame of the earliest epoch: before training, in a run that recorded it."""
        return self.frames[0]

    @property
    def last(self) -> Frame:
        """The frame of the latest epoch."""
        return self.frames[-1]

    @property
    def forgotten(self) -> float:
        """Mean fall in probability of the gold tokens from first to last epoch; NaN without gold tokens."""
        gold = np.array(self.gold)
        fall = (np.exp(self.first.logp) - np.exp(self.last.logp))[gold]
        return float(fall.mean()) if len(fall) else float("nan")


@dataclass(frozen=True)
class Known:
    """What an evaluation knows of a record: answer, prompt, and the answer's tokens with log-probabilities."""

    text: str = ""
    prompt: str = ""
    tokens: tuple[str, ...] = ()
    logp: tuple[float | None, ...] = ()


def ids(run: RunFolder) -> list[str]:
    """The records of a run's token table, in its order; empty if there is none. RunFolderError if it is malformed."""
    if not run.has(TOKENS_TABLE):
        return []
    return [str(key) for key in _table(run).column("id").unique().to_pylist()]


def read(run: RunFolder, wanted: Sequence[str] | None = None) -> dict[str, Sentence]:
    """The records of a run's token table, all or those wanted; empty if there is none.

    RunFolderError if the table is malformed.
    """
    if not run.has(TOKENS_TABLE):
        return {}
    table = _table(run)
    if wanted is not None:
        table = table.filter(pc.is_in(table["id"], pa.array(wanted, pa.string())))
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        rows.setdefault(str(row["id"]), []).append(row)
    try:
        made = [_sentence(key, group) for key, group in rows.items()]
    except (TypeError, ValueError) as error:
        raise RunFolderError(f"'{run.file(TOKENS_TABLE)}' has columns of the wrong type: {error}. Run again.") from None
    return {sentence.id: sentence for sentence in made if sentence is not None}


def known(column: Column, wanted: frozenset[str]) -> dict[str, Known]:
    """What a model's evaluation tables say of these records; records that they lack are missing."""
    found: dict[str, Known] = {}
    for name in column.folder.tables(column.label, "scores"):
        for row in _rows(column.folder, f"eval/{column.label}/scores/{name}.parquet", wanted):
            if row.get("variant", "answer") == "answer":
                tokens, logp = tuple(row.get("tokens") or ()), tuple(row.get("logp") or ())
                found[row["id"]] = Known(str(row.get("text") or ""), "", tokens, logp)
    for name in column.folder.tables(column.label, "generations"):
        for row in _rows(column.folder, f"eval/{column.label}/generations/{name}.parquet", wanted):
            old = found.get(row["id"], Known(text=str(row.get("reference") or "")))
            found[row["id"]] = Known(old.text, str(row.get("prompt") or ""), old.tokens, old.logp)
    return found


def pieces(tokens: Sequence[str], start: Sequence[int], end: Sequence[int], text: str) -> tuple[str, ...]:
    """Each token's own slice of `text`, gaps going to the token after them; the decoded token where that fails.

    >>> pieces(("Paris", "▁is", "</s>"), (0, 6, -1), (5, 8, -1), "Paris is")
    ('Paris', ' is', '</s>')
    """
    shown, position = [], 0
    for token, low, high in zip(tokens, start, end, strict=True):
        if position < high <= len(text) and low >= 0:
            shown.append(text[position:high])
            position = high
        else:
            shown.append(token)
    return tuple(shown)


def texts(run: RunFolder) -> list[str]:
    """All text of records that the run's tables hold: what a redacted page must not show."""
    found: list[str] = []
    try:
        for sentence in read(run).values():
            joined = "".join(pieces(sentence.tokens, sentence.start, sentence.end, sentence.text))
            found += [joined, sentence.prompt, sentence.text]
    except RunFolderError:
        pass
    for label in run.labels:
        for name in run.tables(label, "scores"):
            found += _strings(run, f"eval/{label}/scores/{name}.parquet", ("text",))
        for name in run.tables(label, "generations"):
            found += _strings(run, f"eval/{label}/generations/{name}.parquet", ("prompt", "reference", "generation"))
    return found


def _table(run: RunFolder) -> pa.Table:
    table = run.read_table(TOKENS_TABLE)
    missing = [name for name in TOKENS.names if name not in table.column_names]
    if missing:
        raise RunFolderError(f"'{run.file(TOKENS_TABLE)}' lacks the columns {', '.join(missing)}. Run again.")
    return table


def _sentence(key: str, rows: Sequence[Mapping[str, Any]]) -> Sentence | None:
    """One record's rows as a sentence; rows whose lists do not have one value a token are left out."""
    rows = sorted(rows, key=lambda row: float(row["epoch"] or 0))
    tokens = tuple(str(token) for token in rows[0]["tokens"] or ())
    whole = [row for row in rows if all(len(row[name] or ()) == len(tokens) for name in ("weight", "logp", "entropy"))]
    if not tokens or not whole:
        return None
    row = whole[0]
    gold = row["gold"] or ()
    return Sentence(
        id=key,
        tokens=tokens,
        gold=tuple(bool(value and value > 0) for value in gold) if len(gold) == len(tokens) else (False,) * len(tokens),
        start=_offsets(row["start"], len(tokens)),
        end=_offsets(row["end"], len(tokens)),
        frames=tuple(
            Frame(float(row["epoch"] or 0), _array(row["weight"]), _array(row["logp"]), _array(row["entropy"]))
            for row in whole
        ),
        prompt=str(row.get("prompt") or ""),
        text=str(row.get("text") or ""),
    )


def _offsets(values: Sequence[int | None] | None, count: int) -> tuple[int, ...]:
    values = values or ()
    return tuple(-1 if v is None else int(v) for v in values) if len(values) == count else (-1,) * count


def _array(values: Sequence[float | None]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float32)


def _rows(run: RunFolder, file: str, ids: frozenset[str]) -> list[dict[str, Any]]:
    wanted = ("id", "variant", "text", "tokens", "logp", "prompt", "reference")
    try:
        table = run.read_table(file)
        table = table.select([name for name in wanted if name in table.column_names])
        rows: list[dict[str, Any]] = table.filter(pc.is_in(table["id"], pa.array(sorted(ids)))).to_pylist()
    except (RunFolderError, KeyError, pa.ArrowException):
        return []
    return rows


def _strings(run: RunFolder, file: str, names: Sequence[str]) -> list[str]:
    try:
        table = run.read_table(file)
    except RunFolderError:
        return []
    return [str(text) for name in names if name in table.column_names for text in table.column(name).to_pylist()]
