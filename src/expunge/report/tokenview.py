"""The token view, packed small for the page: at most 200 records, thinned until they fit."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.errors import RunFolderError
from expunge.report import sentences, words
from expunge.report.collect import Column, View
from expunge.report.sentences import Known, Sentence

MAX_RECORDS = 200
MAX_TOKENS = 160
MAX_EPOCHS = 24
MAX_BYTES = 2_400_000
STEP = 0.001
"""Resolution of packed numbers (nats, weights): 16 bits reach 65.5."""

Table = Mapping[str, Sentence]
Packed = dict[str, Any]
_CUT = slice(MAX_TOKENS)
_BLANK = "▬ "
"""What a redacted page shows for every token: even the length of a word can give it away."""


@dataclass(frozen=True)
class _Source:
    """The token tables of the runs, what evaluations know of their records, and the models to show beside them."""

    tables: Sequence[Table]
    facts: Sequence[Mapping[str, Known]]
    models: Sequence[Mapping[str, Known]]
    redact: bool


def pack(seen: Sequence[View], models: Sequence[Column] = (), redact: bool = False) -> Packed:
    """What the page's script draws; {} if no run has tokens. `models`: target and oracle, for their probabilities.

    Redacted, all tokens are the same blank and records are numbers: weights and probabilities stay.
    """
    ids = _sample([_ids(view) for view in seen], MAX_RECORDS)
    tables = [_readable(view, ids) for view in seen]
    ids, epochs = [key for key in ids if any(key in table for table in tables)], MAX_EPOCHS
    if not ids:
        return {}
    known = [sentences.known(column, frozenset(ids)) for column in [*models, *(view.own for view in seen)]]
    source = _Source(tables, known, known[: len(models)], redact)
    while True:
        records = [_record(place, key, source, epochs) for place, key in enumerate(ids)]
        size = sum(map(_size, records))
        if size <= MAX_BYTES or (len(ids) <= 10 and epochs <= 2):
            break
        if epochs > 6:
            epochs //= 2
        else:
            ids, epochs = _spaced(ids, max(10, int(len(ids) * 0.9 * MAX_BYTES / size))), max(2, epochs - 1)
    return {
        "step": STEP,
        "redacted": redact,
        "runs": [view.name for view in seen],
        "models": [column.name for column in models],
        "records": records,
        "total": len({key for view in seen for key in _ids(view)}),
        "first": _telling(ids, tables),
    }


def pack_numbers(values: npt.ArrayLike) -> str:
    """Non-negative numbers as base64 of little-endian 16-bit multiples of 0.001; NaN as 65535."""
    array = np.asarray(values, dtype=np.float64)
    scaled = np.clip(np.round(np.nan_to_num(array, nan=0.0, posinf=65.534, neginf=0.0) / STEP), 0, 65534)
    scaled[np.isnan(array)] = 65535
    return base64.b64encode(scaled.astype("<u2").tobytes()).decode()


def _ids(view: View) -> list[str]:
    try:
        return sentences.ids(view.folder)
    except RunFolderError:
        return []


def _readable(view: View, ids: Sequence[str]) -> Table:
    try:
        return sentences.read(view.folder, ids)
    except RunFolderError:
        return {}


def _sample(each: Sequence[Sequence[str]], count: int) -> list[str]:
    """At most `count` ids, evenly spaced; only records that all runs have, if there are such."""
    there = [frozenset(ids) for ids in each if ids]
    ids = list(dict.fromkeys(key for run in each for key in run))
    return _spaced([key for key in ids if all(key in run for run in there)] or ids, count)


def _spaced(ids: Sequence[str], count: int) -> list[str]:
    return [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, min(len(ids), count)).round().astype(int))]


def _telling(ids: Sequence[str], tables: Sequence[Table]) -> int:
    """The record to show first: short enough to take in, with gold tokens that were forgotten most."""

    def worth(key: str) -> float:
        there = [table[key] for table in tables if key in table]
        fits = all(8 <= len(sentence.tokens) <= 45 and any(sentence.gold) for sentence in there)
        mean = float(np.mean([sentence.forgotten for sentence in there]))
        return mean if fits and np.isfinite(mean) else -2.0

    return int(np.argmax([worth(key) for key in ids]))


def _record(place: int, key: str, source: _Source, epochs: int) -> Packed:
    some = next(table[key] for table in source.tables if key in table)
    text, prompt = _text(key, some, source.facts)
    packed: Packed = {
        "id": f"record {place + 1}" if source.redact else words.visible(key, 120),
        "prompt": "" if source.redact else words.visible(prompt, 400),
        "more": max(0, len(some.tokens) - MAX_TOKENS),
        "models": [_beside(some, model.get(key)) for model in source.models],
        "runs": [_run(table.get(key), some, epochs, text, source.redact) for table in source.tables],
    }
    return packed | _tokens(some, text, source.redact)


def _tokens(sentence: Sentence, text: str, redact: bool) -> Packed:
    shown = sentences.pieces(sentence.tokens, sentence.start, sentence.end, text)[_CUT]
    known = max(sentence.start) >= 0
    return {
        "tokens": [_BLANK] * len(shown) if redact else [words.token(token) for token in shown],
        "gold": [i for i, gold in enumerate(sentence.gold[_CUT]) if gold],
        "special": [i for i, start in enumerate(sentence.start[_CUT]) if known and start < 0],
    }


def _run(sentence: Sentence | None, some: Sentence, epochs: int, text: str, redact: bool) -> Packed | None:
    if sentence is None:
        return None
    frames = sentence.frames
    if len(frames) > epochs:
        frames = tuple(frames[i] for i in np.linspace(0, len(frames) - 1, epochs).round().astype(int))
    packed: Packed = {
        "epochs": [round(frame.epoch, 3) for frame in frames],
        "weight": [pack_numbers(frame.weight[_CUT]) for frame in frames],
        "nll": [pack_numbers(-frame.logp[_CUT]) for frame in frames],
        "entropy": [pack_numbers(frame.entropy[_CUT]) for frame in frames],
    }
    return packed if sentence.tokens == some.tokens else packed | _tokens(sentence, text, redact)


def _beside(some: Sentence, known: Known | None) -> str | None:
    """A model's negative log-probabilities, if its evaluation cut the answer into the same tokens."""
    if known is None or known.tokens != some.tokens or len(known.logp) != len(some.tokens):
        return None
    return pack_numbers([np.nan if value is None else -value for value in known.logp[_CUT]])


def _text(key: str, some: Sentence, facts: Sequence[Mapping[str, Known]]) -> tuple[str, str]:
    """Answer and prompt of a record: the token table's own, else those of an evaluation that read the record."""
    there = [fact[key] for fact in facts if key in fact]
    text = some.text or next((fact.text for fact in there if fact.text), "")
    return text, some.prompt or next((fact.prompt for fact in there if fact.prompt), "")


def _size(record: Packed) -> int:
    """Bytes of a record on the page, near enough: its packed numbers and its text, as JSON escapes it."""
    runs = [run for run in record["runs"] if run]
    numbers = sum(len(part) + 4 for run in runs for key in ("weight", "nll", "entropy") for part in run[key])
    strings = [token for part in (record, *runs) for token in part.get("tokens", ())]
    return numbers + sum(len(text.encode("utf-8", "replace")) + 4 for text in strings) + 2 * len(record["prompt"]) + 300
