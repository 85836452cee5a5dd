"""The verbs `expunge annotations ...`: annotation files compared and looked at, and identifiers trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge import progress
from expunge.errors import DataError, unknown

if TYPE_CHECKING:
    from expunge.data.records import Record

app = typer.Typer(help="Compare annotation files, look at them, train identifiers.", no_args_is_help=True)

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


Folder = Annotated[Path, typer.Option(help="Folder for the model.", show_default=False)]
Seed = Annotated[int, typer.Option(min=0, help="All that is random follows from it.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what the folder holds.")]


@app.command()
def train_mlm(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Records or texts: never the forget set.", show_default=False)
    ],
    out: Folder,
    steps: Annotated[int, typer.Option(min=1, help="Updates.")] = 2000,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts an update.")] = 32,
    rate: Annotated[float, typer.Option(min=0, help="Peak step size of AdamW.")] = 1e-3,
    vocab_size: Annotated[int, typer.Option(min=300, help="Size of the tokenizer that is fitted.")] = 8192,
    hidden_size: Annotated[int, typer.Option(min=4, help="Width, a multiple of --heads.")] = 256,
    layers: Annotated[int, typer.Option(min=1, help="Number of layers.")] = 4,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads a layer.")] = 4,
    length: Annotated[int, typer.Option(min=8, help="Longest text in tokens; longer ones are cut in pieces.")] = 256,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Train a small masked language model from scratch, for `masked-lm` where no hub can be reached."""
    from expunge.identifiers.neural.pretrain import Schedule, Shape, train_masked_lm

    _room(out, overwrite)
    texts = [text for file in files for text in _texts(file)]
    shape = Shape(vocab_size, hidden_size, layers, heads, length)
    schedule = Schedule(steps, batch_size, rate, report_every=max(1, min(50, steps // 20)))
    with progress.automatic().stage(f"Train on {len(texts)} texts") as bar:
        made = train_masked_lm(
            texts, out, shape=shape, schedule=schedule, seed=seed,
            on_step=lambda step, loss: bar(step, steps, f"loss {loss:.2f}"),
        )  # fmt: skip
    notes = _notes(made)
    first, last = notes["losses"][0][1], notes["losses"][-1][1]
    typer.echo(f"Loss at hidden words: {first:.2f} -> {last:.2f} nats. Use it: --with masked-lm:model={made}")


@app.command()
def train_classifier(
    records: Annotated[str, typer.Argument(help="File with the records.", show_default=False)],
    annotation: Annotated[Path, typer.Argument(help="Annotation of some of them, at least.", show_default=False)],
    out: Folder,
    base: Annotated[str, typer.Option(help="Masked language model to begin with.")] = "distilroberta-base",
    words: Annotated[str, typer.Option(help="words, whitespace, characters or code.")] = "words",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the annotated records.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts an update.")] = 16,
    rate: Annotated[float, typer.Option(min=0, help="Peak step size of AdamW.")] = 5e-5,
    held_out: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of them that only says how well it does.")
    ] = 0.1,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Teach a classifier from annotations of a part of the records which words are unwanted, for `classifier`."""
    from typing import cast, get_args

    from expunge.data import annotations
    from expunge.data.load import load
    from expunge.data.words import Segmentation
    from expunge.identifiers.neural.tagger import Lessons
    from expunge.identifiers.neural.tagger import train_classifier as train
    from expunge.recipe import Source

    if words not in get_args(Segmentation):
        raise DataError(unknown("segmentation", words, get_args(Segmentation)))
    _room(out, overwrite)
    lessons = Lessons(epochs=epochs, batch_size=batch_size, rate=rate, held_out=held_out)
    found = load(Source(path=records), "forget")
    with progress.automatic().stage("Train the classifier") as bar:
        made = train(
            found, annotations.read(annotation), out, base=base, words=cast(Segmentation, words), lessons=lessons,
            seed=seed, on_epoch=lambda epoch, loss: bar(epoch, epochs, f"loss {loss:.3f}"),
        )  # fmt: skip
    notes = _notes(made)
    score = notes["held_out"]
    typer.echo(f"Learnt from {notes['texts']} records.")
    if score:
        parts = ", ".join(f"{name} {score[name]:.2f}" for name in ("precision", "recall", "f1"))
        typer.echo(f"On {score['texts']} held out: {parts}")
    typer.echo(f"Use it: --with classifier:model={made}")


def _room(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not (folder.is_dir() and (overwrite or not any(folder.iterdir()))):
        raise DataError(f"'{folder}' is not empty. Choose another --out, or --overwrite")


def _texts(file: str) -> Iterator[str]:
    """What a file's records say: question and answer, or text."""
    from expunge.data.load import iterate
    from expunge.recipe import Source

    return (" ".join(filter(None, (r.prompt, r.body))) for r in iterate(Source(path=file), "general"))


def _notes(folder: Path) -> dict[str, Any]:
    from expunge.identifiers.neural.folder import NOTES

    notes: dict[str, Any] = json.loads((folder / NOTES).read_text(encoding="utf-8"))
    return notes


def _records(files: list[Path], records: str | None) -> list[Record]:
    from expunge.data.load import load
    from expunge.recipe import Source

    try:
        return load(Source(path=records or str(files[0])), "forget")
    except DataError as error:
        if records is not None:
            raise
        raise DataError(f"'{files[0]}' holds no records of its own. Name them with --records FILE. ({error})") from None
