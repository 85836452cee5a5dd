"""Which settings a trial tries: a pure function of seed, budget and the trials that are over, so nothing is kept."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.errors import MissingExtraError
from expunge.search import Range, Sweep

Settings = Mapping[str, str | float]
_FIRST = 3
"""Trials that TPE draws at random before it looks at outcomes."""
_BEYOND = 1e6
"""Larger than any metric: where trials below the floor begin."""


@dataclass(frozen=True)
class Outcome:
    """What one finished trial says to a sampler: its settings, the metric to minimise, how far it is under the floor.

    `value` is None for a trial that broke; `short` is 0 or less where the floor is kept.
    """

    settings: Settings
    value: float | None
    short: float = 0.0


def suggest(how: Sweep, arm: str, trial: int, before: Sequence[Outcome], seed: int) -> dict[str, str | float]:
    """The settings of trial `trial` (from 0) of an arm; `before` are the outcomes of the trials ahead of it.

    Only tpe looks at the outcomes.
    """
    ranges = how.ranges(arm)
    if how.sampler == "grid":
        return dict(zip(ranges, grid(list(ranges.values()), how.trials)[trial], strict=True))
    if how.sampler == "tpe":
        return _tpe(ranges, trial, before, seed)
    return {name: each.at(stratum(name, trial, how.trials, seed)) for name, each in ranges.items()}


def stratum(name: str, trial: int, trials: int, seed: int) -> float:
    """A place in [0, 1) for one setting of a trial; over all trials every stratum of 1 / trials holds one (Latin).

    >>> sorted(int(stratum("train.learning_rate", trial, 4, 0) * 4) for trial in range(4))
    [0, 1, 2, 3]
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    order, within = rng.permutation(trials), rng.random(trials)
    return float((order[trial] + within[trial]) / trials)


def grid(ranges: Sequence[Range], trials: int) -> list[tuple[str | float, ...]]:
    """Every combination of the ranges' values; a single continuous range is cut so that there are `trials` of them.

    ValueError if there are more or fewer: budgets would not be equal.

    >>> grid([Range(log=(1e-4, 1e-2)), Range(choice=("a", "b"))], 6)[:2]
    [(0.0001, 'a'), (0.0001, 'b')]
    """
    fixed = math.prod(int(each.size) for each in ranges if math.isfinite(each.size))
    free = [each for each in ranges if math.isinf(each.size)]
    points = trials // fixed if len(free) == 1 else 1
    columns = [_points(each, points if math.isinf(each.size) else int(each.size)) for each in ranges]
    if len(free) > 1 or fixed * points != trials:
        raise ValueError(
            f"a grid of {trials} trials does not come out: {len(free)} continuous ranges, and {fixed} combinations of "
            "the others. Give choices whose number divides the trials, and at most one continuous range"
        )
    return list(itertools.product(*columns))


def _points(each: Range, count: int) -> list[str | float]:
    """`count` values from the lowest to the highest; all of a range that has so many."""
    if math.isfinite(each.size):
        return [each.at((place + 0.5) / count) for place in range(count)]
    return [each.at(0.5 if count == 1 else place / (count - 1)) for place in range(count)]


def _tpe(ranges: Mapping[str, Range], trial: int, before: Sequence[Outcome], seed: int) -> dict[str, str | float]:
    """What Optuna's TPE asks next after these outcomes.

    It reads nothing but their order: those that keep the floor, by the metric, then the others, by what they lack.
    """
    try:
        import optuna
    except ImportError:
        raise MissingExtraError("the sampler tpe", "sweep") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed + trial, n_startup_trials=_FIRST))
    kinds: dict[str, Any] = {name: _distribution(optuna, each) for name, each in ranges.items()}
    create, states = optuna.trial.create_trial, optuna.trial.TrialState
    for one in before:
        value = one.value if one.short <= 0 or one.value is None else _BEYOND + one.short
        state = states.FAIL if value is None else states.COMPLETE
        study.add_trial(create(state=state, value=value, params=dict(one.settings), distributions=kinds))
    return dict(study.ask(kinds).params)


def _distribution(optuna: Any, each: Range) -> Any:
    kinds = optuna.distributions
    if each.choice:
        return kinds.CategoricalDistribution(each.choice)
    if each.whole is not None:
        return kinds.IntDistribution(*each.whole)
    bounds = each.log or each.uniform
    assert bounds is not None
    return kinds.FloatDistribution(*bounds, log=each.log is not None)
