"""The same records under two treatments: means, their paired difference with an interval, and its p-value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from expunge.evals.stats import FloatArray, Interval, Sample, bootstrap, paired_test, weighted_mean


@dataclass(frozen=True)
class Paired:
    """Means of `first` and `second` over the records where both are defined, and of first - second.

    `p`: two-sided, of 'the differences are symmetric about 0', by random sign flips of whole subjects.
    """

    name: str
    first: Interval
    second: Interval
    difference: Interval
    p: float

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def compare(
    name: str,
    first: Sequence[float],
    second: Sequence[float],
    subjects: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Paired:
    """Two treatments of the same records, in one order; NaN where a treatment is not defined for a record.

    >>> found = compare("gap", [1.0, 3.0, 2.0], [0.0, 1.0, float("nan")], ["a", "b", "c"])
    >>> found.first.value, found.second.value, found.difference.value, found.difference.n
    (2.0, 0.5, 1.5, 2)
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    both = np.isfinite(one) & np.isfinite(other)
    kept = [subject for subject, there in zip(subjects, both, strict=True) if there]
    sample = Sample.of(kept)

    def interval(values: FloatArray) -> Interval:
        if not len(kept):
            return Interval(math.nan, math.nan, math.nan, math.nan, 0, 0)
        return bootstrap(weighted_mean(values), [sample], resamples=resamples, seed=seed)

    gaps = one[both] - other[both]
    return Paired(name, interval(one[both]), interval(other[both]), interval(gaps), paired_test(gaps, kept, seed=seed))
