"""The verbs that write what a run begins with: a recipe for one's own model and records, records to try things on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.errors import DataError


def init(
    model: Annotated[str, typer.Option(help="Folder or hub name of the model to change.", show_default=False)],
    forget: Annotated[str, typer.Option(help="File with the records to forget.", show_default=False)],
    retain: Annotated[str | None, typer.Option(help="File with records to keep.")] = None,
    out: Annotated[Path, typer.Option(help="The recipe that is written.")] = Path("recipe.yaml"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a commented recipe for your model and records; it runs as it is."""
    from expunge.starter import starter

    if out.exists() and not overwrite:
        raise DataError(f"'{out}' exists. Choose another --out, or --overwrite")
    out.write_text(starter(model, forget, retain, out.stem), encoding="utf-8")
    typer.echo(f"Wrote {out}. Look: expunge run {out} --dry-run. Run: expunge run {out}")


def synth(
    out: Annotated[Path, typer.Option(help="Folder for the files.", show_default=False)],
    people: Annotated[int, typer.Option(help="How many people (or libraries), 20 to 20,000.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Decides every name, fact and wording.")] = 0,
    language: Annotated[str, typer.Option(help="en, zh or ar.")] = "en",
    kind: Annotated[str, typer.Option(help="people, or code: libraries that do not exist.")] = "people",
    layout: Annotated[str, typer.Option(help="expunge: with gold spans; tofu: TOFU's files and columns.")] = "expunge",
    forget: Annotated[float, typer.Option(min=0, max=0.5, help="Share of the people to forget.")] = 0.1,
    holdout: Annotated[float, typer.Option(min=0, max=0.25, help="Share of the people never taught.")] = 0.1,
    facts: Annotated[int | None, typer.Option(help="Kinds of fact a person; all if not given.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files in the way.")] = False,
) -> None:
    """Invent fictitious people, with questions, answers and gold spans: records to try everything on."""
    from typing import cast

    from expunge import synth as invented
    from expunge.synth.benchmark import Kind
    from expunge.synth.files import Layout

    made = invented.make(
        people, seed, language, cast(Kind, kind), forget_share=forget, holdout_share=holdout, facts=facts
    )
    for file in invented.write(made, out, cast(Layout, layout), overwrite):
        typer.echo(str(file))
