"""Is a difference between two models more than chance? Pure functions of the cells of the comparison."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from expunge.report import naming
from expunge.report.collect import Cell, Column
from expunge.report.naming import IDEALS, Metric

RESAMPLES = 2000
MANY = 1000
"""With more units than this the mean is normal to the last digit shown, and no resampling is needed."""
MIN_SUBJECTS = 8
"""With fewer subjects than this a bootstrap over subjects says nothing, and records are drawn instead."""


@dataclass(frozen=True)
class Difference:
    """`value` = one - other with its 95 % interval. `how`: paired (record by record) or overlap of two intervals."""

    value: float
    low: float
    high: float
    how: Literal["paired", "overlap"]

    @property
    def triple(self) -> tuple[float, float, float]:
        """Lower end, value, upper end."""
        return self.low, self.value, self.high

    @property
    def distinguishable(self) -> bool:
        """True if 0 is outside the interval."""
        return self.low > 0 or self.high < 0


def ordered(models: Sequence[Column]) -> list[Metric]:
    """The metrics that any model has: question by question, set by set."""
    return [naming.metric(name) for name in sorted({n for model in models for n in model.cells}, key=naming.order)]


def headline(models: Sequence[Column], candidates: Sequence[str]) -> Metric | None:
    """The first of the candidates that a run has (else: that any model has), and that is not 0 in every model.

    The harmonic mean that utility is says nothing of a model so small that one of its parts is 0 before anything was
    changed; the next candidate then speaks.
    """
    there = ordered([model for model in models if model.role == "run"]) + ordered(models)
    by_name = {metric.name: metric for metric in there}
    known = [name for name in candidates if name in by_name]
    telling = [name for name in known if any(model.cells[name].value for model in models if name in model.cells)]
    return next((by_name[name] for name in telling or known), None)


def baseline(models: Sequence[Column]) -> Column | None:
    """What runs are compared with: the first run if there are several, else the target, else the oracle."""
    runs = [model for model in models if model.role == "run"]
    if len(runs) > 1:
        return runs[0]
    return next((model for model in models if model.role != "run"), None)


def difference(name: str, one: Column, other: Column) -> Difference | None:
    """How far `one` is from `other` in a metric; None where neither records nor intervals are there to tell."""
    a, b = one.cells.get(name), other.cells.get(name)
    if b is None and other.role == "oracle" and name in IDEALS:
        b = Cell(IDEALS[name], IDEALS[name], IDEALS[name])
    if a is None or b is None:
        return None
    shared = [key for key in a.items if key in b.items]
    if len(shared) > 1 and len(shared) == len(a.items) == len(b.items):
        return paired([a.items[k] - b.items[k] for k in shared], [one.subjects.get(k, "") for k in shared], name)
    return _overlap(a, b)


def paired(gaps: Sequence[float], subjects: Sequence[str], name: str = "") -> Difference:
    """The mean of `gaps` with an interval from 2,000 resamples: of subjects if there are 8, else of records.

    Percentiles, widened for small samples: a plain 95 % interval of 8 units covers the truth 88 % of the time. All gaps
    equal give an interval of one point.
    """
    values = np.asarray(gaps, dtype=np.float64)
    groups, place = np.unique(np.asarray(subjects, dtype=object).astype(str), return_inverse=True)
    if len(groups) < MIN_SUBJECTS or "" in groups:
        place = np.arange(len(values))
    sums, counts = np.bincount(place, values), np.bincount(place)
    if len(sums) > MANY:
        error = np.sqrt(((sums - values.mean() * counts) ** 2).sum() * len(sums) / (len(sums) - 1)) / len(values)
        half = -float(special.stdtrit(len(sums) - 1, 0.025) * error)
        return Difference(float(values.mean()), float(values.mean()) - half, float(values.mean()) + half, "paired")
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    draws = rng.integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    tail = float(special.ndtr(special.stdtrit(len(sums) - 1, 0.025) * np.sqrt(len(sums) / (len(sums) - 1))))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Difference(float(values.mean()), float(low), float(high), "paired")


def _overlap(a: Cell, b: Cell) -> Difference | None:
    """Bounds of the difference if each value may lie anywhere in its interval: on the safe side."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return None
    return Difference(a.value - b.value, a.low - b.high, a.high - b.low, "overlap")


def direction(metric: Metric, models: Sequence[Column]) -> str:
    """'better', 'worse' or 'neither': what a higher value means, as the evaluation recorded it."""
    said = {model.cells[metric.name].higher for model in models if metric.name in model.cells}
    return next(iter(said)) if len(said) == 1 else "neither"


def shown(value: float | None, decimals: int = 3) -> str:
    """A number as a table shows it: so many decimals, or a power of ten where they would show nothing but zeros.

    >>> [shown(v) for v in (0.123456, 0.0, 6.8e-05, -0.0, None)], shown(-99.66, 1)
    (['0.123', '0', '6.8e-05', '0', 'n/a'], '−99.7')
    """
    if value is None:
        return "n/a"
    text = f"{value:.{decimals}f}" if value == 0 or abs(value) >= 0.5 * 10**-decimals else f"{value:.1e}"
    return ("0" if value == 0 else text).replace("-", "−") if "e" not in text else text


def decimals(name: str, models: Sequence[Column]) -> int:
    """How many decimals a metric gets, the same in all columns: 3 for shares, 1 for percent, 0 for thousands."""
    largest = max((abs(model.cells[name].value) for model in models if name in model.cells), default=0.0)
    return 3 if largest < 10 else 1 if largest < 1000 else 0


def subjects_of(models: Sequence[Column]) -> Mapping[str, str]:
    """All record-to-subject pairs that the evaluations know."""
    return {key: subject for model in models for key, subject in model.subjects.items()}
