"""The page about a study: tables and small charts from the sheet in its run folder. It holds no text of records."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from expunge import runfolder
from expunge.errors import RunFolderError
from expunge.report import charts, shell
from expunge.report.charts import SERIES_COLOURS, Chart, Series

SHEET = "sheet.json"


def is_study(run: str | Path) -> bool:
    """True if the folder is a run folder with a study's sheet."""
    return runfolder.is_run(run) and runfolder.open(run).has(f"{runfolder.MEASURED}/{SHEET}")


def render(run: str | Path, out: str | Path) -> Path:
    """The HTML file `out` about the study in a run folder; RunFolderError if the folder holds none."""
    sheet = read(run)
    css = shell.asset("page.css")
    context = {
        "policy": shell.policy(css, ""),
        "css": Markup(css),  # nosec B704 - our own file
        "version": importlib.metadata.version("expunge"),
        "title": sheet["title"],
        "lede": sheet["lede"],
        "notes": sheet["notes"],
        "tables": sheet["tables"],
        "figures": drawn(sheet),
        "colours": SERIES_COLOURS,
    }
    target = Path(out).expanduser().resolve()
    with runfolder.replacing(target) as stream:
        stream.write(shell.template("measured.html.j2").render(context).encode("utf-8", "replace"))
    return target


def read(run: str | Path) -> dict[str, Any]:
    """The sheet of the study in a run folder; RunFolderError if the folder holds none."""
    folder = runfolder.open(run)
    if not folder.has(f"{runfolder.MEASURED}/{SHEET}"):
        raise RunFolderError(f"run '{run}' is no study: it has no {runfolder.MEASURED}/{SHEET}. Run the study again.")
    sheet: dict[str, Any] = folder.read_json(f"{runfolder.MEASURED}/{SHEET}")
    return sheet


def beside(run: str | Path) -> list[dict[str, Any]]:
    """The sheets that stand in a run that is no study: how what would be shipped differs from what was judged."""
    folder, file = runfolder.open(run), f"{runfolder.ARTEFACTS}/{SHEET}"
    return [folder.read_json(file)] if folder.has(file) else []


def drawn(sheet: Mapping[str, Any]) -> list[tuple[Chart, Sequence[Mapping[str, Any]]]]:
    """The figures of a sheet that have anything to draw, each with its lines."""
    return [(chart, figure["lines"]) for figure in sheet["figures"] if (chart := _draw(figure)) is not None]


def _draw(figure: Mapping[str, Any]) -> Chart | None:
    lines: Sequence[Mapping[str, Any]] = figure["lines"]
    series = [Series(line["name"], place, line["x"], line["y"]) for place, line in enumerate(lines)]
    within = None if figure["within"] is None else (float(figure["within"][0]), float(figure["within"][1]))
    return charts.lines(figure["title"], figure["title"], series, figure["x_name"], figure["note"], within)
