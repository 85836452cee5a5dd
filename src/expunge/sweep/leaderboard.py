"""The leaderboard of a sweep: its arms in the order of the objective, the front, and what cannot be told apart.

Estimates, intervals and tests are those of `comparison`; nothing is computed here but the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from expunge import comparison
from expunge.comparison import Arm, Comparison
from expunge.recipe import Recipe
from expunge.report import naming
from expunge.report.collect import Cell, Column
from expunge.report.summary import front
from expunge.runfolder import RunFolder
from expunge.sweep.trials import sweep_of

NAME = "leaderboard"


def write(recipe: Recipe, folder: RunFolder) -> Comparison:
    """The leaderboard; leaderboard.md, .csv and .json in the sweep's folder hold it."""
    found = leaderboard(recipe, folder)
    best = front_of(recipe, found)
    folder.write_text(f"{NAME}.md", comparison.as_markdown(found, best) + "\n" + legend(recipe) + "\n")
    folder.write_text(f"{NAME}.csv", comparison.as_csv(found))
    folder.write_json(f"{NAME}.json", {"front": best, "baseline": found.baseline, "rows": found.rows()})
    return found


def leaderboard(recipe: Recipe, folder: RunFolder) -> Comparison:
    """The arms of the reported runs, best first, compared with the best.

    First those that keep the floor, by how much they forgot; then the others, by how much they kept. Target and oracle
    stand above, controls with the others.
    """
    how = sweep_of(recipe)
    plain = comparison.compare_runs([folder.path])
    metrics = [how.minimise, how.keep.metric, *(m for m in plain.metrics if m not in (how.minimise, how.keep.metric))]
    first = comparison.compare_runs([folder.path], metrics=metrics)
    order = ranked(recipe, first)
    found = comparison.compare_runs([folder.path], metrics=metrics, baseline=order[0]) if order else first
    places = {name: place for place, name in enumerate(order)}
    return replace(found, arms=tuple(sorted(found.arms, key=lambda arm: places.get(arm.name, -1))))


def ranked(recipe: Recipe, found: Comparison) -> list[str]:
    """The names of the arms that were run, best first."""
    how = sweep_of(recipe)
    runs = [arm for arm in found.arms if arm.columns[0].role == "run"]
    value = {(name, metric): estimate.value for (name, metric), estimate in found.estimates.items()}
    target = next((arm.name for arm in found.arms if arm.columns[0].role == "target"), "")
    floor = how.keep.at_least * value.get((target, how.keep.metric), 0.0)

    def key(arm: Arm) -> tuple[bool, float]:
        kept = value[arm.name, how.keep.metric]
        return (False, value[arm.name, how.minimise]) if kept >= floor else (True, -kept)

    return [arm.name for arm in sorted(runs, key=key)]


def front_of(recipe: Recipe, found: Comparison) -> list[str]:
    """The arms that no other beats in both: nearer the oracle in what is to be forgotten, higher in what is kept."""
    how = sweep_of(recipe)
    pair = (how.minimise, how.keep.metric)
    pooled = [_pooled(found, arm, pair) for arm in found.arms]
    return front(pooled, naming.metric(pair[0]), naming.metric(pair[1]))


def legend(recipe: Recipe) -> str:
    """What the order and the bold names mean, and how the settings were found."""
    how = sweep_of(recipe)
    forgotten, kept = (naming.metric(name).title for name in (how.minimise, how.keep.metric))
    return (
        f"Best first: those that keep {how.keep.at_least:.0%} of the target's '{kept}', by '{forgotten}'; then the "
        f"others, by '{kept}'. Bold: no other is both nearer the oracle in '{forgotten}' and higher in '{kept}'. "
        f"Each method had {how.trials} trials on other records ({how.sampler})."
    )


def _pooled(found: Comparison, arm: Arm, metrics: Sequence[str]) -> Column:
    """The arm as one column: its estimates over all seeds."""
    there: Mapping[str, Cell] = {
        name: Cell(found.estimates[arm.name, name].value) for name in metrics if (arm.name, name) in found.estimates
    }
    return replace(arm.columns[0], name=arm.name, cells=there)
