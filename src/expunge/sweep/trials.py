"""Trials as what they are: arms of a study on the tuning records; their results, read from disk; the choice."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge import recipe as recipes
from expunge import runfolder
from expunge.errors import RecipeError
from expunge.explain import value_at
from expunge.presets import with_setting
from expunge.recipe import Recipe
from expunge.report import collect
from expunge.search import Stop, Sweep
from expunge.sweep.samplers import Outcome, Settings, grid, suggest

TUNING = "tuning"
"""The folder of the trials, in that of the sweep."""


@dataclass(frozen=True)
class Trial:
    """One trial: what it tried, and what came of it. `kept` is the share of the target's; None for what broke."""

    arm: str
    number: int
    settings: Settings
    folder: str
    forgotten: float | None = None
    kept: float | None = None
    stopped: int | None = None
    error: str = ""

    def meets(self, floor: float) -> bool:
        """True if it kept enough."""
        return self.kept is not None and self.kept >= floor


def sweep_of(recipe: Recipe) -> Sweep:
    """The sweep section of a recipe; RecipeError if it has none."""
    if recipe.sweep is None:
        raise RecipeError(["sweep: not set; say what is searched, such as sweep.space"], recipe.name)
    return recipe.sweep


def check(recipe: Recipe) -> None:
    """RecipeError names what keeps the recipe from being swept, such as a grid that is not of `trials` points."""
    how, faults = sweep_of(recipe), []
    if not recipe.arms:
        faults.append("arms: none; a sweep tunes arms, such as arms: {npo: [method.preset=npo]}")
    for arm in tuned_arms(recipe) if recipe.arms else ():
        ranges = how.ranges(arm)
        if not ranges:
            faults.append(f"sweep.space: nothing is searched for the arm {arm}")
        elif how.sampler == "grid":
            try:
                grid(list(ranges.values()), how.trials)
            except ValueError as error:
                faults.append(f"sweep: arm {arm}: {error}")
    if faults:
        raise RecipeError(faults, recipe.name)
    first = {arm: [next_settings(recipe, arm, 0, ())] for arm in tuned_arms(recipe)}
    recipes.variants(tuning_recipe(recipe, first))  # names what no trial could be built of


def tuned_arms(recipe: Recipe) -> list[str]:
    """The arms that have trials of their own: all but the controls of another arm, which run as their method does."""
    return [arm for arm, method in methods(recipe).items() if arm == method]


def methods(recipe: Recipe) -> dict[str, str]:
    """By arm, the arm whose settings it runs with: itself, or for a control the arm that it controls for."""
    bare = {variant.name: _bare(variant) for variant in _one_seed(recipe)}
    controls = {variant.name for variant in _one_seed(recipe) if variant.method.control != "none"}
    found = {}
    for arm, settings in bare.items():
        alike = [other for other in bare if other not in controls and bare[other] == settings]
        found[arm] = alike[0] if arm in controls and alike else arm
    return found


def tuning_recipe(recipe: Recipe, tried: Mapping[str, Sequence[Settings]]) -> Recipe:
    """The study of trials: an arm for each, ARM-t0, ARM-t1, ..., on the tuning records, in the folder tuning/."""
    how = sweep_of(recipe)
    stop = _stop(how)
    arms = {
        trial_name(arm, number): (*_overrides(recipe, arm, settings), *how.tuning)
        for arm, trials in tried.items()
        for number, settings in enumerate(trials)
    }
    evaluation = recipe.evaluation.model_copy(update={"stop": stop} if stop else {})
    folder = str(Path(recipe.output_dir) / TUNING)
    update = {"arms": arms, "seeds": 1, "output_dir": folder, "sweep": None, "evaluation": evaluation}
    return recipe.model_copy(update=update)


def chosen_recipe(recipe: Recipe, chosen: Mapping[str, Trial]) -> Recipe:
    """The study that is reported: every arm with the settings that were chosen for it, or for its method."""
    arms = {
        arm: _overrides(recipe, arm, chosen[method].settings)
        for arm, method in methods(recipe).items()
        if method in chosen
    }
    return recipe.model_copy(update={"arms": arms, "sweep": None})


def trial_name(arm: str, number: int) -> str:
    """The name and folder of a trial.

    >>> trial_name("npo", 2)
    'npo-t2'
    """
    return f"{arm}-t{number}"


def next_settings(recipe: Recipe, arm: str, number: int, before: Sequence[Trial]) -> dict[str, str | float]:
    """What trial `number` of an arm tries, with the trials `before` it over."""
    how = sweep_of(recipe)
    outcomes = [Outcome(one.settings, one.forgotten, how.keep.at_least - (one.kept or 0.0)) for one in before]
    return suggest(how, arm, number, outcomes, recipe.seed)


def results(recipe: Recipe, arm: str) -> list[Trial | None]:
    """The trials of an arm in order; None for those that are not over."""
    how, found = sweep_of(recipe), list[Trial | None]()
    for number in range(how.trials):
        over = [one for one in found if one is not None]
        if how.sampler == "tpe" and len(over) < number:
            found.append(None)  # what it would try depends on a trial that is not over
        else:
            found.append(result(recipe, arm, number, next_settings(recipe, arm, number, over)))
    return found


def ready(recipe: Recipe, arm: str) -> list[Recipe]:
    """The recipes of the trials of an arm that can be made now."""
    known, done = known_settings(recipe, arm), results(recipe, arm)
    return [run_recipe(recipe, arm, n, settings) for n, settings in enumerate(known) if done[n] is None]


def known_settings(recipe: Recipe, arm: str) -> list[dict[str, str | float]]:
    """What the trials of an arm try, as far as that can be known: for tpe up to the first that is not over."""
    how = sweep_of(recipe)
    over = [one for one in results(recipe, arm) if one is not None]
    last = min(len(over) + 1, how.trials) if how.sampler == "tpe" else how.trials
    return [next_settings(recipe, arm, number, over[:number]) for number in range(last)]


def result(recipe: Recipe, arm: str, number: int, settings: Settings) -> Trial | None:
    """A trial's result, if its run is over; None if it is still to be made, or to be gone on with."""
    how = sweep_of(recipe)
    own = run_recipe(recipe, arm, number, settings)
    path = Path(own.output_dir)
    made = Trial(arm, number, settings, path.name)
    if not runfolder.is_run(path):
        return None
    run = runfolder.open(path)
    if run.manifest["recipe_hash"] != runfolder.recipe_hash(own):
        return None
    if run.manifest["status"] == "failed" and str(run.manifest["error"]).startswith("TrainingError"):
        return _with(made, error=str(run.manifest["error"]))
    if run.manifest["status"] != "finished" or not run.has("report.html"):
        return None
    view = collect.views([path])[0]
    values = [view.own.cells.get(name) for name in (how.minimise, how.keep.metric)]
    before = None if view.target is None else view.target.cells.get(how.keep.metric)
    missing = [n for n, v in zip((how.minimise, how.keep.metric), values, strict=True) if v is None]
    if missing or before is None:
        raise RecipeError(
            [f"sweep: '{missing[0] if missing else how.keep.metric}' was not measured in {path}, or not of the target"]
        )
    forgotten, kept = (cell.value for cell in values if cell is not None)
    stopped = (run.manifest.get("stop") or {}).get("stopped")
    return _with(made, forgotten=forgotten, kept=kept / before.value, stopped=stopped)


def run_recipe(recipe: Recipe, arm: str, number: int, settings: Settings) -> Recipe:
    """The recipe of one trial."""
    alone = tuning_recipe(recipe, {arm: [settings]})
    arms = {trial_name(arm, number): overrides for overrides in alone.arms.values()}
    return recipes.variants(alone.model_copy(update={"arms": arms}))[0]


def choose(trials: Sequence[Trial], floor: float) -> Trial | None:
    """The trial that forgot most of those that keep the floor; where none does, the one that kept most; None of none.

    Ties go to the earlier trial.

    >>> lost, kept = Trial("a", 0, {}, "", 0.0, 0.5), Trial("a", 1, {}, "", 0.3, 0.95)
    >>> choose([lost, kept], 0.9).number, choose([lost], 0.9).number, choose([], 0.9)
    (1, 0, None)
    """
    whole = [one for one in trials if one.kept is not None and one.forgotten is not None]
    enough = [one for one in whole if one.meets(floor)]
    if enough:
        return min(enough, key=lambda one: (one.forgotten, one.number))
    return max(whole, key=lambda one: (one.kept, -one.number), default=None)


def rows(trials: Sequence[Trial], chosen: Mapping[str, Trial], floor: float) -> list[dict[str, Any]]:
    """A flat row for each trial: what trials.json and trials.csv hold."""
    return [
        {
            "arm": one.arm, "trial": one.number, "folder": one.folder,
            "settings": " ".join(f"{key}={value}" for key, value in one.settings.items()),
            "forgotten": one.forgotten, "kept": one.kept, "meets_floor": one.meets(floor),
            "stopped_after_epoch": one.stopped, "error": one.error, "chosen": chosen.get(one.arm) == one,
        }
        for one in trials
    ]  # fmt: skip


def as_csv(table: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table[0]) if table else ["arm"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue()


def _with(trial: Trial, **facts: Any) -> Trial:
    return Trial(**{**trial.__dict__, **facts})


def _stop(how: Sweep) -> Stop | None:
    """The rule that ends hopeless trials; None where there is none."""
    share = how.keep.stop_below * how.keep.at_least
    return Stop(metric=how.keep.metric, below=share) if share else None


def _overrides(recipe: Recipe, arm: str, settings: Settings) -> tuple[str, ...]:
    """The arm's overrides with these settings behind them."""
    own = recipe.arms[arm]
    specs: dict[str, str] = {}
    plain = []
    for key, value in settings.items():
        path, colon, name = key.partition(":")
        if colon:
            specs[path] = with_setting(specs.get(path) or _spec(recipe, arm, path), name, f"{value}")
        else:
            plain.append(f"{key}={value}")
    return (*own, *plain, *(f"{path}={spec}" for path, spec in specs.items()))


def _spec(recipe: Recipe, arm: str, path: str) -> str:
    """The spec that an arm has at a path, such as npo at method.preset."""
    return value_at(next(variant for variant in _one_seed(recipe) if variant.name == arm), path)


def _one_seed(recipe: Recipe) -> list[Recipe]:
    return recipes.variants(recipe.model_copy(update={"seeds": 1}))


def _bare(variant: Recipe) -> str:
    """What a method and its controls have in common."""
    method = variant.method.model_copy(update={"control": "none", "paired_run": None})
    return str(variant.model_copy(update={"name": "", "output_dir": "", "method": method}).model_dump_json())
