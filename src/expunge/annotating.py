"""The verbs `expunge annotations ...`: what to do with annotation files once they are made."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from expunge.errors import DataError

if TYPE_CHECKING:
    from expunge.data.records import Record

app = typer.Typer(help="Compare annotation files, or look at them.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Annotation files.", show_default=False)]
Records = Annotated[
    str | None, typer.Option("--records", help="File with the records, if the first annotation does not hold them.")
]


@app.command()
def compare(
    files: Files,
    records: Records = None,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples of each interval.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
) -> None:
    """How far annotations agree, in characters and words, each two of them and with the records' gold spans."""
    from rich.console import Console

    from expunge import terminal
    from expunge.data import agreement, annotations
    from expunge.evals import agreement as judging

    rows = _records(files, records)
    found = [one for file in files for one in agreement.readings(file.stem, rows, annotations.read(file))]
    gold = agreement.gold(rows)
    found += [] if gold is None else [gold]
    if len(found) < 2:
        raise DataError(f"'{files[0]}' is one annotation, and its records have no gold spans. Name a second file")
    for first, second in combinations(found, 2):
        compared = judging.compare(first, second, rows, resamples=resamples, seed=seed)
        Console().print(terminal.agreement(compared))


@app.command()
def inspect(
    files: Files,
    records: Records = None,
    out: Annotated[Path, typer.Option(help="The page that is written.")] = Path("annotations.html"),
) -> None:
    """Write one self-contained page about an annotation, or two side by side: every record with its spans."""
    from expunge.data import annotations
    from expunge.report import inspector
    from expunge.report.spans import Shown

    rows = _records(files, records)
    shown = [Shown.of(file.stem, rows, annotations.read(file), annotations.read_manifest(file)) for file in files]
    typer.echo(f"Page: {inspector.render(out, rows, shown)}")


def _records(files: list[Path], records: str | None) -> list[Record]:
    from expunge.data.load import load
    from expunge.recipe import Source

    try:
        return load(Source(path=records or str(files[0])), "forget")
    except DataError as error:
        if records is not None:
            raise
        raise DataError(f"'{files[0]}' holds no records of its own. Name them with --records FILE. ({error})") from None
