"""The verbs that measure what methods rest on: does the score find the cause, and does the theory hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from expunge.recipe import Recipe
    from expunge.runfolder import RunFolder

RecipeFile = Annotated[
    str,
    typer.Argument(metavar="RECIPE", help="YAML file; or a study to judge again.", show_default=False),
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[key=value]...", help="Settings of the recipe.")]
Scores = Annotated[
    list[str] | None, typer.Option("--score", metavar="SCORER", help="A score, such as entropy; repeat for several.")
]
Resamples = Annotated[int, typer.Option(min=1, help="Bootstrap resamples of each interval.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the resampling.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another run in the output folder.")]


def selectivity(
    recipe: RecipeFile,
    overrides: Overrides = None,
    score: Scores = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="target, oracle, base, a folder, or NAME=FOLDER; repeat for several."),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="gold, given, or an annotation file; repeat for several.")
    ] = None,
    select: Annotated[str, typer.Option(help="The selector whose weights are looked at.")] = "top:r=0.3",
    baseline: Annotated[str, typer.Option(help="The score that the others must beat.")] = "",
    corpus: Annotated[str | None, typer.Option(help="File of texts whose words are counted, for rarity.")] = None,
    tagger: Annotated[str, typer.Option(help="spaCy pipeline that tags parts of speech.")] = "",
    resamples: Resamples = 2000,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("runs/selectivity"),
    overwrite: Overwrite = False,
) -> None:
    """Does a score find the words that carry the knowledge? ROC-AUC, precision, calibration against marked words."""
    from expunge import progress
    from expunge.evals.selectivity import Settings
    from expunge.studies import selectivity as study

    how = Settings(resamples, seed, baseline)
    folder = _judged_again(recipe, lambda folder: study.judge(folder, how))
    if folder is None:
        resolved = _resolve(recipe, overrides, overwrite)
        scorers = tuple(dict.fromkeys([*(score or _own_scores(resolved)), *([baseline] if baseline else [])]))
        asked = study.Asked(scorers, tuple(model or ("target",)), tuple(label or ()), select, corpus, tagger)
        folder = study.run(resolved, asked, out, how, progress.automatic())
    _show(folder.path)


def snr(
    recipe: RecipeFile,
    overrides: Overrides = None,
    score: Scores = None,
    r: Annotated[
        list[float] | None, typer.Option("--r", min=0, max=1, help="A share kept by hard selection; repeat.")
    ] = None,
    soft: Annotated[str, typer.Option(help="The selector of soft weights.")] = "normalised",
    direction: Annotated[str, typer.Option(help="oracle, gold, or a model that the target should become.")] = "oracle",
    params: Annotated[str | None, typer.Option(help="Regular expression of parameter names; all if not given.")] = None,
    model: Annotated[str, typer.Option(help="The model whose gradients are taken.")] = "target",
    resamples: Resamples = 2000,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("runs/snr"),
    overwrite: Overwrite = False,
) -> None:
    """Do a score's weights raise the signal-to-noise ratio of a record's gradient along the way to the oracle?"""
    from expunge import progress
    from expunge.errors import MethodError
    from expunge.studies import snr as study

    folder = _judged_again(recipe, lambda folder: study.judge(folder, resamples=resamples, seed=seed))
    if folder is None:
        resolved = _resolve(recipe, overrides, overwrite)
        scorers = tuple(score or [name for name in _own_scores(resolved) if name != "random"])
        if not scorers:
            raise MethodError("the recipe's method has no score of its own. Name one, such as --score entropy")
        shares = tuple(r or study.Asked.shares)
        asked = study.Asked(scorers, shares, soft, model, direction, params)
        folder = study.run(resolved, asked, out, progress.automatic(), resamples=resamples, seed=seed)
    _show(folder.path)


def intervene(
    recipe: RecipeFile,
    overrides: Overrides = None,
    score: Scores = None,
    share: Annotated[float, typer.Option(min=0, max=0.5, help="Share of each answer's tokens that is changed.")] = 0.3,
    model: Annotated[str, typer.Option(help="The model that is asked.")] = "target",
    resamples: Resamples = 2000,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("runs/interventions"),
    overwrite: Overwrite = False,
) -> None:
    """Are the tokens that a score picks causes? Replace them, leave out words of the prompt, beside matched tokens."""
    from expunge import progress
    from expunge.studies import interventions as study

    folder = _judged_again(recipe, lambda folder: study.judge(folder, resamples=resamples, seed=seed))
    if folder is None:
        resolved = _resolve(recipe, overrides, overwrite)
        asked = study.Asked(tuple(score or _own_scores(resolved)), model, share)
        folder = study.run(resolved, asked, out, progress.automatic(), resamples=resamples, seed=seed)
    _show(folder.path)


def recall(
    run: Annotated[list[Path], typer.Option("--run", help="Unlearned on the picked tokens; repeat for seeds.")],
    control: Annotated[list[Path], typer.Option("--control", help="Unlearned on matched random tokens; repeat.")],
    resamples: Resamples = 2000,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder of the study.")] = Path("runs/recall"),
    overwrite: Overwrite = False,
) -> None:
    """Do runs that unlearn the picked tokens forget paraphrases too? From evaluated runs, beside control runs."""
    from expunge.studies import recall as study

    folder = study.run(run, control, out, overwrite=overwrite, resamples=resamples, seed=seed)
    _show(folder.path)


def _judged_again(study: str, judge: Callable[[RunFolder], object]) -> RunFolder | None:
    """The folder of a study, judged from its tables once more; None if `study` is no folder of one but a recipe."""
    from expunge import runfolder

    if not runfolder.is_run(study):
        return None
    folder = runfolder.open(study)
    judge(folder)
    folder.seal()
    return folder


def _own_scores(recipe: Recipe) -> list[str]:
    """The scores of the recipe's forget terms that look at anything, and what every score must beat."""
    from expunge.terms import build_terms

    given = recipe.method.preset is not None or recipe.method.terms
    own = [str(term.score) for term in (build_terms(recipe.method) if given else ()) if term.on == "forget"]
    return [*dict.fromkeys(name for name in own if name != "uniform"), "random"]


def _resolve(recipe: str, overrides: list[str] | None, overwrite: bool) -> Recipe:
    from expunge.recipe import variants
    from expunge.resolve import resolve

    return variants(resolve(recipe, [*(overrides or ()), *(["overwrite=true"] if overwrite else [])], "finetune"))[0]


def _show(folder: Path) -> None:
    """The tables of a study, and where its page is."""
    from rich.console import Console

    from expunge import runfolder, terminal
    from expunge.studies import sheets

    Console().print(*terminal.sheet(sheets.read(runfolder.open(folder))), sep="\n")
    typer.echo(f"Run folder: {folder}\nReport: {folder / runfolder.REPORT}")
