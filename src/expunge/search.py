"""What a sweep searches: the values a setting may have, the budget of every arm, and what makes one trial better."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from expunge.sections import PositiveInt, Section


class Range(Section):
    """The values that one setting may have. Exactly one of the four is given.

    >>> Range(log=(1e-4, 1e-2)).at(0.5), Range(whole=(1, 4)).at(0.99), Range(choice=("a", "b")).at(0.2)
    (0.001, 4, 'a')
    """

    choice: tuple[str, ...] = Field((), description="one of these, as they would be written in the recipe")
    log: tuple[float, float] | None = Field(None, description="lowest and highest, uniform in the logarithm")
    uniform: tuple[float, float] | None = Field(None, description="lowest and highest, uniform")
    whole: tuple[int, int] | None = Field(None, description="lowest and highest whole number, both included")

    @model_validator(mode="after")
    def _check(self) -> Range:
        given = [bounds for bounds in (self.log, self.uniform, self.whole) if bounds is not None]
        if len(given) + bool(self.choice) != 1:
            raise ValueError("give exactly one of choice, log, uniform and whole")
        if any(low >= high for low, high in given):
            raise ValueError("the lowest value must be below the highest")
        if self.log is not None and self.log[0] <= 0:
            raise ValueError("log needs values above 0")
        return self

    def at(self, place: float) -> str | float:
        """The value at a place in [0, 1): how samplers that think in the unit cube draw from any kind of range."""
        if self.choice:
            return self.choice[math.floor(place * len(self.choice))]
        if self.whole is not None:
            low, high = self.whole
            return low + math.floor(place * (high - low + 1))
        if self.log is not None:
            low_log, high_log = math.log(self.log[0]), math.log(self.log[1])
            return float(f"{math.exp(low_log + place * (high_log - low_log)):.4g}")
        assert self.uniform is not None
        return float(f"{self.uniform[0] + place * (self.uniform[1] - self.uniform[0]):.4g}")

    @property
    def size(self) -> float:
        """How many values there are; infinite for a continuous range."""
        if self.choice:
            return len(self.choice)
        return math.inf if self.whole is None else self.whole[1] - self.whole[0] + 1


class Stop(Section):
    """Training ends after the first epoch that leaves too little of a metric, on the evaluation's own records."""

    metric: str = Field("retain_Q_A_Prob", min_length=1, description="a mean over answers of one evaluation set")
    below: float = Field(gt=0, lt=1, description="share of what the model had before training")


class Floor(Section):
    """What a trial must keep to be chosen: a share of what the target has in a metric."""

    metric: str = Field("retain_Q_A_Prob", min_length=1, description="a metric of what should be kept")
    at_least: float = Field(0.9, gt=0, description="share of the target's value that must be left")
    stop_below: float = Field(
        0.0, ge=0, lt=1, description="end a trial after an epoch with less than this share of the floor left; 0: never"
    )


class Sweep(Section):
    """How the settings of every arm are tuned: the same number of trials each, on other records than the report's."""

    trials: PositiveInt = Field(5, description="trials of every arm")
    sampler: Literal["random", "grid", "tpe"] = Field(
        "random", description="random: a Latin hypercube, the same for arms with the same ranges; grid; tpe: Optuna's"
    )
    space: dict[str, Range] = Field(
        default_factory=dict, description="range by setting, for every arm; method.preset:beta is a preset's beta"
    )
    arm_space: dict[str, dict[str, Range]] = Field(
        default_factory=dict, description="further ranges by arm, or others than those of every arm"
    )
    tuning: tuple[str, ...] = Field(
        (), description="key=value of the trials alone: other records, and what is measured of them"
    )
    minimise: str = Field("forget_Q_A_Prob", min_length=1, description="the metric that a trial should bring down")
    keep: Floor = Field(default_factory=Floor)

    def ranges(self, arm: str) -> dict[str, Range]:
        """The range of each setting that is searched for an arm."""
        return {**self.space, **self.arm_space.get(arm, {})}
