"""The verbs that show runs beside each other: a page with its figures, and a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The file; report.html in the first run if not given.")] = None,
    redact: Annotated[bool, typer.Option("--redact", help="Leave out every text of records and models.")] = False,
    chosen: Annotated[list[str] | None, typer.Option(help="A run that stands out in the trade-off.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Also write each figure here: SVG, PNG, PDF.")] = None,
) -> None:
    """Write one self-contained HTML page about one run or several, and what was measured about them."""
    from expunge import comparison
    from expunge.report import measured
    from expunge.report.page import render

    file = out or runs[0] / "report.html"
    alone = len(runs) == 1 and measured.is_study(runs[0])
    page = measured.render(runs[0], file) if alone else render(runs, file, redact, comparison.for_page, chosen or ())
    typer.echo(f"Report: {page}")
    if figures is not None:
        _figures(runs, figures, redact, chosen or ())


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, or of studies.", show_default=False)
    ],
    baseline: Annotated[str | None, typer.Option(help="Arm, target or oracle; the first method if unset.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Of metrics.json; one a question if unset.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write it: .json, .csv, .md or .tex.")] = None,
) -> None:
    """Compare methods over seeds, controls beside their method: intervals, paired tests, what cannot be told apart."""
    from rich.console import Console

    from expunge import comparison, terminal

    formats = {
        ".json": comparison.as_json, ".csv": comparison.as_csv, ".md": comparison.as_markdown,
        ".tex": comparison.as_latex,
    }  # fmt: skip
    if out is not None and out.suffix not in formats:
        raise typer.BadParameter(f"--out must end in {', '.join(formats)}; found '{out}'")
    found = comparison.compare_runs(runs, baseline=baseline, metrics=metric or ())
    Console().print(terminal.comparison(found))
    if out is not None:
        out.write_text(formats[out.suffix](found), encoding="utf-8")
        typer.echo(f"Wrote {out}")


def _figures(runs: Sequence[Path], folder: Path, redact: bool, chosen: Sequence[str]) -> None:
    from expunge.report import export
    from expunge.report.page import context

    files = export.write(context(runs, redact, chosen=chosen), folder)
    extra = "" if export.can_convert() else ". PNG and PDF need the extra 'figures': pip install 'expunge[figures]'"
    typer.echo(f"{len(files)} figures: {folder}{extra}")
