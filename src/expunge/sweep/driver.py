"""The sweep from beginning to end: trials, choice, the chosen settings over the seeds, the leaderboard.

Nothing is remembered but what run folders say, so a sweep that was killed goes on where it was, in any number of
processes, or by commands that are run elsewhere.
"""

from __future__ import annotations

import multiprocessing
import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch

from expunge import comparison, pipeline, progress, runfolder
from expunge import recipe as recipes
from expunge.errors import DataError, TrainingError
from expunge.pipeline import Together
from expunge.progress import Progress
from expunge.recipe import Recipe
from expunge.report import page
from expunge.runfolder import RunFolder
from expunge.shared import Shared
from expunge.sides import records_of
from expunge.sweep import leaderboard, trials

TRIALS, TRIALS_CSV, CHOSEN = "trials.json", "trials.csv", "chosen.yaml"
Work = Callable[[Recipe, Sequence[str], Progress], None]
"""What is done for some arms of a recipe."""


def run(recipe: Recipe, *, jobs: int = 1, show: Progress | None = None) -> RunFolder:
    """The folder of a sweep with everything in it; goes on where an earlier call was stopped.

    `jobs` processes take the arms among them; in each, what the runs read alike is read once.
    """
    watched = show or progress.automatic()
    check(recipe)
    folder = pipeline.begin_study(recipe)
    recipe = recipe.model_copy(update={"overwrite": False})  # what is begun here is gone on with from now on
    with runfolder.recording(folder):
        pipeline.begin_study(_trials_there(recipe))
        _shared_out(tune, recipe, trials.tuned_arms(recipe), jobs, watched)
        chosen = judge_trials(recipe, folder)
        _shared_out(report, chosen, list(chosen.arms), jobs, watched)
        _lead(recipe, folder)
    return folder


def judge(recipe: Recipe) -> RunFolder:
    """The folder of a sweep whose runs are over, its choice and leaderboard drawn once more from them: no model."""
    folder = runfolder.open(recipe.output_dir)
    judge_trials(recipe, folder)
    _lead(recipe, folder)
    return folder


def check(recipe: Recipe) -> None:
    """RecipeError or DataError if the recipe cannot be swept; also if the tuning records are among the reported."""
    trials.check(recipe)
    tuned = recipes.variants(trials.tuning_recipe(recipe, {arm: [{}] for arm in list(recipe.arms)[:1]}))[0]
    asked = {
        which: {record.text_hash for side in ("forget", "holdout") for record in records_of(getattr(data, side), side)}
        for which, data in (("tuning", tuned.data), ("reporting", recipe.data))
    }
    both = asked["tuning"] & asked["reporting"]
    if both:
        raise DataError(
            f"{len(both)} records are forgotten, or held out, by the trials and by the reported runs alike: what was "
            "tuned on them cannot be judged on them. Name other records in sweep.tuning, such as data.forget.path=..."
        )


def tune(recipe: Recipe, arms: Sequence[str], show: Progress) -> None:
    """Makes the trials of these arms that are not over yet. One that breaks is over too: its folder says why."""
    together = Together(shared=Shared(keep=True))
    for arm in arms:
        while waiting := trials.ready(recipe, arm):
            for own in waiting:
                with suppress(TrainingError):
                    pipeline.run_one(own, together, show)


def report(recipe: Recipe, arms: Sequence[str], show: Progress) -> None:
    """Makes the runs of these arms of a study."""
    together = Together(shared=Shared(keep=True))
    for variant in recipes.variants(recipe.model_copy(update={"overwrite": False})):
        if variant.name in arms and not pipeline.is_whole(variant):
            pipeline.run_one(variant, together, show)


def judge_trials(recipe: Recipe, folder: RunFolder) -> Recipe:
    """The study with the chosen settings; writes trials.json, trials.csv and chosen.yaml.

    DataError unless every arm has had its whole budget.
    """
    how = trials.sweep_of(recipe)
    done = {arm: trials.results(recipe, arm) for arm in trials.tuned_arms(recipe)}
    over = {arm: [one for one in found if one is not None] for arm, found in done.items()}
    short = [f"{arm} has {len(found)}" for arm, found in over.items() if len(found) != how.trials]
    if short:
        raise DataError(f"every arm gets {how.trials} trials: {', '.join(short)}. Run the sweep again to go on")
    pipeline.begin_study(_trials_there(recipe)).finish()
    floor = how.keep.at_least
    best = {arm: one for arm, found in over.items() if (one := trials.choose(found, floor)) is not None}
    table = trials.rows([one for found in over.values() for one in found], best, floor)
    folder.write_json(TRIALS, table)
    folder.write_text(TRIALS_CSV, trials.as_csv(table))
    chosen = trials.chosen_recipe(recipe, best)
    folder.write_text(CHOSEN, recipes.dump(chosen))
    return chosen


def commands(recipe: Recipe) -> list[str]:
    """The commands that can run now, side by side, anywhere that sees the folder; none when all runs are over.

    The first of all stands alone: it makes the models, and judges the target, that the others share. Reported runs
    come when all trials are over.
    """
    check(recipe)
    folder = pipeline.begin_study(recipe)
    recipe = recipe.model_copy(update={"overwrite": False})
    tuning = pipeline.begin_study(_trials_there(recipe))
    where, ready = tuning, [own for arm in trials.tuned_arms(recipe) for own in trials.ready(recipe, arm)]
    if not ready:
        where = folder
        ready = [own for own in recipes.variants(judge_trials(recipe, folder)) if not pipeline.is_whole(own)]
    if ready and not pipeline.is_prepared(ready[0]):
        del ready[1:]
    return [_command(where, own) for own in ready]


def _command(where: RunFolder, own: Recipe) -> str:
    """The command that makes one run, from its recipe beside its folder."""
    path = where.write_text(f"{Path(own.output_dir).name}.yaml", recipes.dump(own))
    return shlex.join(["expunge", "run", str(path)])


def _trials_there(recipe: Recipe) -> Recipe:
    """The study of the trials that are known: those that are over, and those that can be made."""
    known = [trials.known_settings(recipe, arm) for arm in trials.tuned_arms(recipe)]
    return trials.tuning_recipe(recipe, dict(zip(trials.tuned_arms(recipe), known, strict=True)))


def _lead(recipe: Recipe, folder: RunFolder) -> None:
    leaderboard.write(recipe, folder)
    page.render([folder.path], folder.file(runfolder.REPORT), comparing=comparison.for_page)


def _shared_out(work: Work, recipe: Recipe, arms: Sequence[str], jobs: int, show: Progress) -> None:
    """The work on all arms, here or in `jobs` processes. The first arm is always done here: it makes what is shared."""
    if jobs == 1 or len(arms) < 2:
        work(recipe, arms, show)
        return
    work(recipe, arms[:1], show)
    context = multiprocessing.get_context("spawn")  # a fork would take over torch's threads
    threads = max(1, torch.get_num_threads() // jobs)
    with ProcessPoolExecutor(jobs, context, torch.set_num_threads, (threads,)) as pool:
        for future in [pool.submit(_elsewhere, work, recipe, arm) for arm in arms[1:]]:
            future.result()


def _elsewhere(work: Work, recipe: Recipe, arm: str) -> None:
    """The work on one arm in a process of its own, whose stages are lines: bars of several would run together."""
    work(recipe, [arm], progress.Lines())
