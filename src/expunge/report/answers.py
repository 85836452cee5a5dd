"""Generated answers side by side: what each model says to the same question, with what changed marked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.errors import RunFolderError
from expunge.report import words
from expunge.report.collect import Column

MAX_EACH = 40
MAX_CHARACTERS = 1_200_000
_MOST_WORDS = 250
_SPLIT = re.compile(r"\s*\w+|\s*[^\w\s]|\s+")
_FIRST = ("forget", "neighbour", "neighbor", "retain")


@dataclass(frozen=True)
class Piece:
    """A stretch of an answer; `fresh` if the target did not say it there."""

    text: str
    fresh: bool = False


@dataclass(frozen=True)
class Answer:
    """One model's answer; `same` if it is the target's, letter by letter."""

    model: str
    css: str
    pieces: tuple[Piece, ...]
    same: bool = False


@dataclass(frozen=True)
class Question:
    """One prompt with the answer in the data and what the models say."""

    id: str
    data: str
    prompt: str
    reference: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class DataSet:
    """Questions of one data set: those shown, and how many there are."""

    name: str
    questions: tuple[Question, ...]
    total: int


def collect(models: Sequence[Column], styles: Mapping[str, str]) -> list[DataSet]:
    """The data sets that any model generated for, forget set first.

    At most 40 questions of each, evenly spaced, and fewer where all together would be more than the page can hold.
    """
    names = {name for model in models for name in model.folder.tables(model.label, "generations")}
    ordered = sorted(names, key=lambda name: (next((i for i, f in enumerate(_FIRST) if name.startswith(f)), 9), name))
    count = MAX_EACH
    while True:
        sets = [made for name in ordered if (made := _data_set(name, models, styles, count)).questions]
        if count <= 5 or sum(map(_size, sets)) <= MAX_CHARACTERS:
            return sets
        count //= 2


def marked(before: str, after: str) -> tuple[Piece, ...]:
    """`after` in pieces, those that `before` does not have at their place marked fresh; word by word.

    >>> [(p.text, p.fresh) for p in marked("He was born in Oslo.", "He was born in a town.")]
    [('He was born in ', False), ('a town', True), ('.', False)]
    """
    one, other = _SPLIT.findall(before), _SPLIT.findall(after)
    if max(len(one), len(other)) > _MOST_WORDS * 2 or not before:
        return (Piece(after),)
    pieces: list[Piece] = []
    for kind, _, _, start, end in difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        text = "".join(other[start:end])
        bare = text.lstrip() if kind != "equal" else ""
        for part, fresh in ((text[: len(text) - len(bare)], False), (bare, True)):
            if part and pieces and pieces[-1].fresh == fresh:
                pieces[-1] = Piece(pieces[-1].text + part, fresh)
            elif part:
                pieces.append(Piece(part, fresh))
    return tuple(pieces)


def _size(one: DataSet) -> int:
    """Characters on the page, the markup of each answer included."""
    every = (answer for question in one.questions for answer in question.answers)
    return sum(150 + sum(len(piece.text) + 15 for piece in answer.pieces) for answer in every)


def _data_set(name: str, models: Sequence[Column], styles: Mapping[str, str], count: int) -> DataSet:
    tables = [(model, _table(model, name)) for model in models]
    tables = [(model, rows) for model, rows in tables if rows]
    ids = list(dict.fromkeys(key for _, rows in tables for key in rows))
    places = np.unique(np.linspace(0, len(ids) - 1, min(len(ids), count)).round().astype(int))
    return DataSet(name, tuple(_question(name, ids[i], tables, styles) for i in places), len(ids))


def _question(
    name: str, key: str, tables: Sequence[tuple[Column, Mapping[str, Mapping[str, Any]]]], styles: Mapping[str, str]
) -> Question:
    rows = [(model, rows[key]) for model, rows in tables if key in rows]
    before = next((_text(row, "generation") for model, row in rows if model.role == "target"), "")
    answers = []
    for model, row in rows:
        text = _text(row, "generation")
        compared = model.role == "run" and bool(before)
        pieces = marked(before, text) if compared else (Piece(text),)
        answers.append(Answer(model.name, styles[model.name], pieces, compared and text == before))
    some = rows[0][1]
    return Question(words.visible(key, 120), name, _text(some, "prompt"), _text(some, "reference"), tuple(answers))


def _text(row: Mapping[str, Any], key: str) -> str:
    return words.visible(str(row.get(key) or ""))


def _table(model: Column, name: str) -> dict[str, Mapping[str, Any]]:
    if name not in model.folder.tables(model.label, "generations"):
        return {}
    try:
        rows = model.folder.read_table(f"eval/{model.label}/generations/{name}.parquet").to_pylist()
    except RunFolderError:
        return {}
    return {str(row["id"]): row for row in rows if "id" in row}
