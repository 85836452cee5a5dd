"""What a study found, as tables and figures: written once, and shown alike in the terminal and on a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from expunge import runfolder
from expunge.evals.stats import Interval
from expunge.recipe import Recipe
from expunge.report import compare, measured
from expunge.report.measured import SHEET
from expunge.runfolder import RunFolder

FOLDER = runfolder.MEASURED


@dataclass(frozen=True)
class Table:
    """Text cells under column heads; `note` says in a sentence what is in them."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Line:
    """One line of a figure; y may hold None, where it breaks."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Figure:
    """A small chart of lines; `within` are the ends of its y axis if all values fit."""

    title: str
    note: str
    x_name: str
    lines: tuple[Line, ...]
    within: tuple[float, float] | None = None


@dataclass(frozen=True)
class Sheet:
    """One study on a page: a title, a sentence, notes, tables, figures. No text of records."""

    title: str
    lede: str
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()


def create(out: str | Path, recipe: Recipe, question: str) -> RunFolder:
    """A new folder for a study of the recipe; refuses one that holds another run unless recipe.overwrite."""
    folder = runfolder.create(out, "measure", recipe, recipe.overwrite, name=question)
    folder.update(question=question)
    folder.file(FOLDER).mkdir(exist_ok=True)
    return folder


def write(folder: RunFolder, sheet: Sheet) -> Path:
    """The path of the page; the sheet is kept beside it, so that the page can be drawn again."""
    keep(folder, FOLDER, sheet)
    return measured.render(folder.path, folder.file(runfolder.REPORT))


def keep(folder: RunFolder, inner: str, sheet: Sheet) -> None:
    """Leaves the sheet in a folder of the run, from which its page is drawn."""
    folder.write_json(f"{inner}/{SHEET}", asdict(sheet))


def read(folder: RunFolder, inner: str = FOLDER) -> Sheet:
    """The sheet that was left in a folder of the run."""
    return TypeAdapter(Sheet).validate_python(folder.read_json(f"{inner}/{SHEET}"))


def shown(interval: Interval | None, decimals: int = 3) -> str:
    """Value and interval as a table cell; † where too few subjects make it too narrow.

    >>> shown(Interval(0.5, 0.1, 0.25, 0.75, 10, 10)), shown(Interval(8.6e-6, 0.0, 4e-6, 0.01, 10, 10))
    ('0.500 [0.250, 0.750]', '8.6e-06 [4.0e-06, 0.010]')
    """
    if interval is None or interval.value != interval.value:
        return "n/a"
    mark = "†" if interval.optimistic else ""
    value, low, high = (compare.shown(end, decimals) for end in (interval.value, interval.low, interval.high))
    return f"{value} [{low}, {high}]{mark}"
