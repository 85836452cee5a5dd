"""The verbs `expunge ledger ...`: removal requests entered, looked at, proved, tested again, and receipts for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from expunge.ledger.requests import Added

app = typer.Typer(
    help="Keep removal requests in a ledger, test earlier ones again, give receipts.", no_args_is_help=True
)

Folder = Annotated[Path, typer.Option("--ledger", help="The ledger's folder; begun by the first request.")]
Request = Annotated[str, typer.Argument(help="What the request is called in the ledger.", show_default=False)]


@app.command()
def add(
    run: Annotated[Path, typer.Argument(help="Folder of the finished unlearning run.", show_default=False)],
    request: Annotated[str, typer.Option(help="A reference such as case-0017; no names.", show_default=False)],
    ledger: Folder = Path("ledger"),
    gate: Annotated[Path | None, typer.Option(help="YAML file that says what must hold, if the run has none.")] = None,
) -> None:
    """Enter a request with the run that removed it, and test all earlier ones on the new model. Exit code 0, 1 or 2."""
    from expunge.ledger import requests
    from expunge.ledger.chain import Ledger

    _show(requests.add(Ledger(ledger), run, request, gate))


@app.command()
def retest(
    model: Annotated[str, typer.Argument(help="Folder or hub name of a model, or a run folder.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the tables.", show_default=False)],
    ledger: Folder = Path("ledger"),
) -> None:
    """Test all requests on a model, such as the one that will be shipped. Exit code 0, 1 or 2, as for a verdict."""
    from expunge.ledger import requests
    from expunge.ledger.chain import Ledger

    _show(requests.retest(Ledger(ledger), model, out))


@app.command("list")
def list_(ledger: Folder = Path("ledger")) -> None:
    """Show every entry: request, records, spans, models before and after, verdict, earlier requests tested again."""
    from rich.console import Console

    from expunge import terminal
    from expunge.ledger.chain import Ledger

    Console().print(terminal.ledger(Ledger(ledger).entries()))


@app.command()
def verify(
    ledger: Folder = Path("ledger"),
    head: Annotated[str | None, typer.Option(help="A hash that `add` printed once: it must still be there.")] = None,
    receipt: Annotated[list[Path] | None, typer.Option(help="A receipt that must still hold.")] = None,
    files: Annotated[bool, typer.Option(help="Also hash runs, weights and records again.")] = True,
) -> None:
    """Prove that nothing was changed, cut out or cut off. Exit code 0: nothing was; else 1."""
    from expunge.ledger import receipt as receipts
    from expunge.ledger.chain import Ledger

    book = Ledger(ledger)
    entries, faults = book.read() if book.exists else (book.entries(), [])
    if head is not None and head not in {entry.hash for entry in entries}:
        faults.append(f"no entry has the hash {head[:16]}...: entries were cut off, or all were rewritten")
    for path in receipt or ():
        faults += [f"{path}: {fault}" for fault in receipts.faults(receipts.read(path), entries)]
    if files and not faults:
        faults += receipts.checked(book)
    for fault in faults:
        typer.echo(fault)
    if faults:
        raise typer.Exit(1)
    typer.echo(f"{len(entries)} entries, nothing changed. Head: {entries[-1].hash}")


@app.command()
def receipt(
    request: Request,
    out: Annotated[Path, typer.Option(help="The receipt that is written.", show_default=False)],
    ledger: Folder = Path("ledger"),
    key: Annotated[Path | None, typer.Option(help="Also write the request's key, for the requester alone.")] = None,
) -> None:
    """Write what the requester is given: hashes, numbers, verdict and limits, and no text of the records."""
    from expunge.ledger import receipt as receipts
    from expunge.ledger import requests
    from expunge.ledger.chain import Ledger

    book = Ledger(ledger)
    records = requests.records_of_entry(book, requests.find(book.entries(), request))
    typer.echo(f"Receipt: {receipts.write(book, request, out, records, key)}")


@app.command()
def match(
    receipt: Annotated[Path, typer.Argument(help="A receipt.", show_default=False)],
    key: Annotated[Path, typer.Option(help="The file with the request's key.", show_default=False)],
    data: Annotated[str, typer.Option(help="File with records.", show_default=False)],
) -> None:
    """Say whether records of yours are those that a receipt names. Exit code 0: all are; else 1."""
    from expunge.data.load import load
    from expunge.ledger import receipt as receipts
    from expunge.ledger import salted
    from expunge.recipe import Source

    records = load(Source(path=data), "forget")
    others = receipts.match(receipts.read(receipt), salted.read_key(key), records)
    typer.echo(f"{len(records) - len(others)} of {len(records)} records are named in the receipt.")
    if others:
        typer.echo(f"Not named: {', '.join(others[:5])}{', ...' if len(others) > 5 else ''}")
        raise typer.Exit(1)


def _show(added: Added) -> None:
    from rich.console import Console

    from expunge import terminal
    from expunge.evals.verdict import EXIT_CODES

    Console().print(terminal.ledger([added.entry]))
    typer.echo(f"Head: {added.entry.hash}\nKeep this hash elsewhere: it proves that nothing was cut off or rewritten.")
    raise typer.Exit(EXIT_CODES[added.outcome])
