"""The models that a study names: target, oracle and base of a recipe, a run folder, any folder or hub name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from expunge import lm as lms
from expunge import runfolder, runs
from expunge.errors import ModelError
from expunge.lm import LM
from expunge.recipe import Model, Recipe


def named(text: str) -> tuple[str, str]:
    """('oracle', 'runs/oracle') of 'oracle=runs/oracle'; a model without a name goes by its own.

    >>> named("seed-1=runs/etw-1"), named("oracle"), named("runs/base/")
    (('seed-1', 'runs/etw-1'), ('oracle', 'oracle'), ('base', 'runs/base/'))
    """
    name, equals, model = text.partition("=")
    return (name, model) if equals else (Path(text).name or text, text)


def numbered(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Name and model of each; models of one name are its seeds, and numbered.

    >>> numbered(["etw=runs/etw-0", "etw=runs/etw-1", "oracle"])
    [('etw (1)', 'runs/etw-0'), ('etw (2)', 'runs/etw-1'), ('oracle', 'oracle')]
    """
    pairs = [named(text) for text in texts]
    names = [name for name, _ in pairs]
    return [
        (name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})", model)
        for place, (name, model) in enumerate(pairs)
    ]


def load(recipe: Recipe, which: str = "target") -> LM:
    """The model that `which` means for a recipe.

    'target' is the model that the recipe changes, its own or the one that its finetune section makes; 'oracle' the one
    made without the forget set, or evaluation.oracle; 'base' the model that fine-tuning starts from. Anything else is a
    run folder, a model's folder or a hub name. ModelError says what must be made first.
    """
    return lms.load(settings(recipe, which), device=lms.device_of(recipe.device))


def settings(recipe: Recipe, which: str) -> Model:
    """The model section that loads it."""
    made = {"target": (), "oracle": ("forget",)}
    if which == "oracle" and recipe.evaluation.oracle is not None:
        return _of(recipe, recipe.evaluation.oracle)
    if which in made and recipe.finetune is not None:
        folder = Path(runs.finetune_recipe(recipe, made[which]).output_dir) / "model"
        if not folder.is_dir():
            raise ModelError(
                f"the recipe makes its {which} first, and '{folder}' is not there. Run: expunge finetune RECIPE"
                + ("" if which == "target" else " --without forget")
            )
        return _of(recipe, str(folder))
    if which == "oracle":
        raise ModelError("the recipe names no oracle. Set evaluation.oracle, or give one as oracle=FOLDER")
    if which in ("target", "base"):
        if recipe.model.fresh is not None:
            raise ModelError(f"the recipe's {which} is a model with random weights, which has learned nothing to score")
        return recipe.model
    return _of(recipe, which)


def _of(recipe: Recipe, path: str) -> Model:
    folder = Path(path) / "model" if runfolder.is_run(path) else path
    return recipe.model.model_copy(update={"model_name_or_path": str(folder), "model_revision": None, "fresh": None})
