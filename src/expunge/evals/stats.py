"""Intervals, tests and corrections for numbers that are means, or anything else, over evaluated items.

Every statistic is a function of item weights: with weights 1 it is the observed value, with resampled counts it is a
bootstrap replicate, with a unit left out a jackknife value. So one vectorised `bootstrap` serves means, AUCs, KS
distances, harmonic means and their differences. Items about one person are not independent: units of resampling are
subjects wherever there are enough of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Statistic = Callable[..., FloatArray]
"""Takes one (R, n_k) array of item weights for each sample and returns R values; weights need not sum to 1."""

MIN_CLUSTERS = 8
_CELLS = 1 << 21
_NORMAL = 1e9
"""Degrees of freedom at which Student's distribution is the normal one."""


@dataclass(frozen=True)
class Interval:
    """A value with its uncertainty. `n` items in `clusters` units of resampling.

    `unit` says what was resampled. `optimistic`: items share subjects, but there were too few subjects to resample,
    so that items were taken as independent and the interval is narrower than it should be.
    """

    value: float
    stderr: float
    low: float
    high: float
    n: int
    clusters: int
    unit: Literal["items", "clusters"] = "items"
    optimistic: bool = False


@dataclass(frozen=True)
class Sample:
    """The items of one sample and the unit each belongs to: `units` (n,) int in `range(count)`."""

    units: IntArray
    count: int
    unit: Literal["items", "clusters"] = "items"
    optimistic: bool = False

    def __len__(self) -> int:
        return int(self.units.shape[0])

    @classmethod
    def of(cls, subjects: Sequence[str], minimum: int = MIN_CLUSTERS) -> Sample:
        """Units are subjects if there are at least `minimum`, else items; an item without subject is its own unit.

        >>> Sample.of(["ann", "ann", "bob"], minimum=2).units.tolist()
        [0, 0, 1]
        >>> Sample.of(["ann", "ann", "bob"])
        Sample(units=array([0, 1, 2]), count=3, unit='items', optimistic=True)
        """
        names = [subject or f"\x00{index}" for index, subject in enumerate(subjects)]
        order = {name: index for index, name in enumerate(dict.fromkeys(names))}
        if len(order) == len(names):
            return cls(np.arange(len(names)), len(names))
        if len(order) < minimum:
            return cls(np.arange(len(names)), len(names), optimistic=True)
        return cls(np.array([order[name] for name in names], dtype=np.int64), len(order), "clusters")

    def resampled(self, resamples: int, rng: np.random.Generator) -> FloatArray:
        """(resamples, n) weights: how often each item's unit was drawn."""
        draws = rng.integers(0, self.count, (resamples, self.count))
        draws += np.arange(resamples)[:, None] * self.count
        counts = np.bincount(draws.ravel(), minlength=resamples * self.count).reshape(resamples, self.count)
        weights: FloatArray = counts[:, self.units].astype(np.float64)
        return weights

    def leave_one_out(self) -> FloatArray:
        """(count, n) weights: 1, but 0 on the items of the unit left out."""
        weights: FloatArray = (self.units[None, :] != np.arange(self.count)[:, None]).astype(np.float64)
        return weights


def bootstrap(
    statistic: Statistic,
    samples: Sequence[Sample],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
    bounds: tuple[float, float] | None = None,
) -> Interval:
    """`statistic` of the samples with a bootstrap interval: bias-corrected, accelerated, widened for few units.

    BCa, because the statistics are skewed, which the percentile interval ignores. Plain BCa is too narrow for few units
    (88% instead of 95% at 8), so its ends are moved away from the value by Student's quantile over the normal one,
    times sqrt(units / (units - 1)), with Welch's degrees of freedom if there are several samples, and cut at `bounds`.
    `stderr` carries the square root alone. Measured coverage: docs/evaluation.md.

    If no resample changes the value (all items equal, all pairs in order), a bootstrap knows nothing. With `bounds` of
    the statistic, the interval is then the exact one for "all units agreed": with probability at least
    (alpha / 2) ** (1 / units) a new unit agrees too, otherwise it may be anywhere within the bounds.

    Samples are drawn from `numpy.random.default_rng(seed)` in order: the same units give the same resamples, so that
    differences between two models on the same items are differences on the same resamples.
    """
    value = float(statistic(*(np.ones((1, len(sample))) for sample in samples))[0])
    count = min(sample.count for sample in samples)
    replicates = _replicates(statistic, samples, resamples, seed)
    replicates = replicates[np.isfinite(replicates)]
    alpha = (1 - confidence) / 2
    if not math.isfinite(value) or count < 2 or not len(replicates):
        low = high = stderr = math.nan
    elif np.ptp(replicates) <= 1e-9 * max(1.0, abs(value)):
        agree = alpha ** (1 / count)
        lower, upper = bounds or (value, value)
        low, high, stderr = agree * value + (1 - agree) * lower, agree * value + (1 - agree) * upper, 0.0
    else:
        stretch, widening, acceleration = _jackknife(statistic, samples, alpha)
        ends = np.quantile(replicates, _bca_levels(replicates, value, alpha, acceleration))
        lower, upper = bounds or (-math.inf, math.inf)
        low, high = (min(max(value + float(end - value) * stretch, lower), upper) for end in ends)
        stderr = float(replicates.std(ddof=1)) * widening
    return Interval(
        value,
        stderr,
        low,
        high,
        n=min(len(sample) for sample in samples),
        clusters=count,
        unit="clusters" if any(sample.unit == "clusters" for sample in samples) else "items",
        optimistic=any(sample.optimistic for sample in samples),
    )


def _replicates(statistic: Statistic, samples: Sequence[Sample], resamples: int, seed: int) -> FloatArray:
    rngs = [np.random.default_rng([seed, index]) for index in range(len(samples))]
    chunk = max(1, _CELLS // max(1, sum(len(sample) for sample in samples)))
    parts = [
        statistic(*(s.resampled(min(chunk, resamples - start), rng) for s, rng in zip(samples, rngs, strict=True)))
        for start in range(0, resamples, chunk)
    ]
    return np.concatenate(parts)


def _jackknife(statistic: Statistic, samples: Sequence[Sample], alpha: float) -> tuple[float, float, float]:
    """(stretch of the interval, its square-root factor alone, acceleration) from leaving out each unit once."""
    cubes = variance = shrunk = squares = 0.0
    for index, sample in enumerate(samples):
        weights = [np.ones((sample.count, len(other))) for other in samples]
        weights[index] = sample.leave_one_out()
        values = statistic(*weights)
        influence = (sample.count - 1) * (np.nanmean(values) - values)
        influence = influence[np.isfinite(influence)]
        units = sample.count
        part = float((influence**2).sum()) / (units * (units - 1))
        cubes += float((influence**3).sum()) / units**3
        variance += part
        shrunk += part * (units - 1) / units
        squares += part**2 / (units - 1)
    if variance <= 0:
        return 1.0, 1.0, 0.0
    widening = math.sqrt(variance / shrunk)
    student = float(special.stdtrit(variance**2 / squares, 1 - alpha))
    return student / float(special.ndtri(1 - alpha)) * widening, widening, cubes / (6 * shrunk**1.5)


def _bca_levels(replicates: FloatArray, value: float, alpha: float, acceleration: float) -> FloatArray:
    resamples = len(replicates)
    share = ((replicates < value).sum() + 0.5 * (replicates == value).sum()) / resamples
    bias = float(special.ndtri(min(max(share, 1 / (resamples + 1)), resamples / (resamples + 1))))
    quantile = float(special.ndtri(1 - alpha))
    ends = bias + np.array([-quantile, quantile])
    return np.asarray(special.ndtr(bias + ends / np.maximum(1 - acceleration * ends, 1e-6)), dtype=np.float64)


def weighted_mean(values: FloatArray) -> Statistic:
    """The statistic 'mean of `values` (n,)', NaN left out."""
    defined = ~np.isnan(values)
    kept = values[defined]

    def statistic(weights: FloatArray) -> FloatArray:
        total = weights[:, defined].sum(1)
        sums: FloatArray = weights[:, defined] @ kept
        return _quotient(sums, total)

    return statistic


def weighted_auc(members: FloatArray, others: FloatArray) -> Statistic:
    """The statistic 'probability that a member scores below another, ties counted half', from rank sums."""
    order = np.argsort(members, kind="stable")
    ranked = members[order]
    below, upto = np.searchsorted(ranked, others, "left"), np.searchsorted(ranked, others, "right")

    def statistic(member_weights: FloatArray, other_weights: FloatArray) -> FloatArray:
        sums = np.zeros((len(member_weights), len(members) + 1))
        np.cumsum(member_weights[:, order], axis=1, out=sums[:, 1:])
        wins = (other_weights * (sums[:, below] + sums[:, upto])).sum(1) / 2
        return _quotient(wins, sums[:, -1] * other_weights.sum(1))

    return statistic


def _quotient(upper: FloatArray, lower: FloatArray) -> FloatArray:
    out: FloatArray = np.divide(upper, lower, out=np.full(len(lower), np.nan), where=lower > 0)
    return out


def ks_distance(first: FloatArray, second: FloatArray) -> float:
    """The largest distance between the two empirical distribution functions, in [0, 1]."""
    ones = [np.ones((1, len(values))) for values in (first, second)]
    return float(np.abs(_gaps(first, second)(*ones)).max())


def ks_interval(
    first: FloatArray,
    second: FloatArray,
    samples: Sequence[Sample],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The KS distance with a band interval. One sample: the values are paired, item by item; two: independent.

    The observed distance is biased upward near 0, which resampling repeats instead of removing (percentile and BCa
    intervals there never cover). The band uses |D - true D| <= sup |observed gap - true gap|, whose quantile the
    bootstrap does estimate: right at 0, a little wide for large distances. `stderr` is the spread of resamples.
    """
    gaps = _gaps(first, second)

    def pair(weights: Sequence[FloatArray]) -> FloatArray:
        return gaps(weights[0], weights[-1])

    observed = pair([np.ones((1, len(sample))) for sample in samples])
    value = float(np.abs(observed).max())

    def both(*weights: FloatArray) -> FloatArray:
        gap = pair(weights)
        return np.stack([np.abs(gap).max(1), np.abs(gap - observed).max(1)], axis=1)

    count = min(sample.count for sample in samples)
    low = high = stderr = math.nan
    if count >= 2:
        replicates = _replicates(both, samples, resamples, seed)
        reach = float(np.quantile(replicates[:, 1], confidence)) * math.sqrt(count / (count - 1))
        low, high, stderr = max(0.0, value - reach), min(1.0, value + reach), float(replicates[:, 0].std(ddof=1))
    return Interval(
        value,
        stderr,
        low,
        high,
        n=min(len(sample) for sample in samples),
        clusters=count,
        unit="clusters" if any(sample.unit == "clusters" for sample in samples) else "items",
        optimistic=any(sample.optimistic for sample in samples),
    )


def _gaps(first: FloatArray, second: FloatArray) -> Callable[[FloatArray, FloatArray], FloatArray]:
    points = np.unique(np.concatenate([first, second]))
    orders = [np.argsort(values, kind="stable") for values in (first, second)]
    places = [
        np.searchsorted(values[order], points, "right") for values, order in zip((first, second), orders, strict=True)
    ]

    def distribution(weights: FloatArray, order: IntArray, place: IntArray) -> FloatArray:
        sums = np.zeros((len(weights), len(order) + 1))
        np.cumsum(weights[:, order], axis=1, out=sums[:, 1:])
        return np.asarray(sums[:, place] / np.maximum(sums[:, -1:], 1e-300))

    def gaps(weights: FloatArray, others: FloatArray) -> FloatArray:
        return distribution(weights, orders[0], places[0]) - distribution(others, orders[1], places[1])

    return gaps


def paired_test(differences: FloatArray, subjects: Sequence[str], *, resamples: int = 10000, seed: int = 0) -> float:
    """Two-sided p of 'the differences are symmetric about 0': random sign flips of whole units.

    Exact (all sign patterns) up to 13 units. Otherwise the observed pattern is counted among the drawn ones, so that
    p is never 0. NaN if there are no differences.

    >>> paired_test(np.array([1.0, 1.0, 1.0]), ["", "", ""])
    0.25
    """
    sample = Sample.of(subjects)
    if not len(sample):
        return math.nan
    sums = np.bincount(sample.units, weights=differences, minlength=sample.count)
    tolerance = 1e-12 * float(np.abs(sums).sum())
    observed = abs(float(sums.sum())) - tolerance
    if sample.count <= 13:
        patterns = (np.arange(2**sample.count)[:, None] >> np.arange(sample.count)) & 1
        return float((np.abs((2 * patterns - 1) @ sums) >= observed).mean())
    rng = np.random.default_rng(seed)
    hits = 0
    chunk = max(1, _CELLS // sample.count)
    for start in range(0, resamples, chunk):
        signs = rng.integers(0, 2, (min(chunk, resamples - start), sample.count)) * 2 - 1
        hits += int((np.abs(signs @ sums) >= observed).sum())
    return (hits + 1) / (resamples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for the number of tests by Holm's step-down rule, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def over_seeds(
    values: FloatArray,
    subjects: Sequence[str],
    *,
    resamples: int = 2000,
    seed: int = 0,
    bounds: tuple[float, float] | None = None,
) -> Interval:
    """The mean of `values` (seeds, items) with an interval over both: seeds and units of items are resampled together.

    With one seed this is `bootstrap` of the mean, and says nothing about other seeds. Items without a value under any
    seed are left out.
    """
    kept = np.asarray(~np.isnan(values).any(axis=0))
    sample = Sample.of([name for name, keep in zip(subjects, kept, strict=True) if keep])
    if len(values) == 1 or not len(sample):
        return bootstrap(weighted_mean(values[0, kept]), [sample], resamples=resamples, seed=seed, bounds=bounds)
    table = values[:, kept].T

    def statistic(items: FloatArray, seeds: FloatArray) -> FloatArray:
        return _quotient(((items @ table) * seeds).sum(1), items.sum(1) * seeds.sum(1))

    samples = [sample, Sample.of([""] * len(values))]
    return bootstrap(statistic, samples, resamples=resamples, seed=seed, bounds=bounds)


def difference_p(differences: FloatArray, subjects: Sequence[str]) -> float:
    """Two-sided p of 'the mean of `differences` (seeds, items) is 0', paired by item and seed.

    One seed: the sign-flip test of `paired_test`. Several: a t test whose variance is that of the units of items plus
    that of the seeds (what they share is counted twice, on the safe side), with Welch's degrees of freedom.
    """
    kept = np.asarray(~np.isnan(differences).any(axis=0))
    names = [name for name, keep in zip(subjects, kept, strict=True) if keep]
    table = differences[:, kept]
    if len(table) == 1 or not len(names):
        return paired_test(table[0] if len(names) else np.empty(0), names)
    parts = difference_parts(differences, subjects)
    return t_test(float(table.mean()), parts) if parts else math.nan


def difference_parts(differences: FloatArray, subjects: Sequence[str]) -> list[tuple[float, float]]:
    """(variance, degrees of freedom) of the mean of `differences` (seeds, items): of units of items, and of seeds.

    What the two share is counted twice. Empty with fewer than two units.
    """
    kept = np.asarray(~np.isnan(differences).any(axis=0))
    sample = Sample.of([name for name, keep in zip(subjects, kept, strict=True) if keep])
    if sample.count < 2:
        return []
    table = differences[:, kept]
    influence = np.bincount(sample.units, weights=table.mean(0) - table.mean(), minlength=sample.count) / len(sample)
    parts = [(float((influence**2).sum()) * sample.count / (sample.count - 1), float(sample.count - 1))]
    if len(table) > 1:
        parts.append((float(table.mean(1).var(ddof=1)) / len(table), float(len(table) - 1)))
    return parts


def t_test(value: float, parts: Sequence[tuple[float, float]]) -> float:
    """Two-sided p of 'the value is 0'. `parts` are (variance, degrees of freedom) of the sources of its variance.

    >>> round(t_test(2.0, [(1.0, 10)]), 4)
    0.0734
    """
    variance, freedom = _welch(parts)
    if variance <= 0:
        return 1.0 if value == 0 else 0.0
    return 2 * float(special.stdtr(freedom, -abs(value) / math.sqrt(variance)))


def t_interval(value: float, parts: Sequence[tuple[float, float]], confidence: float = 0.95) -> tuple[float, float]:
    """The ends of the interval around a value whose variance comes from `parts`, as in `t_test`."""
    variance, freedom = _welch(parts)
    reach = -float(special.stdtrit(freedom, (1 - confidence) / 2)) * math.sqrt(variance) if variance > 0 else 0.0
    return value - reach, value + reach


def minimum_detectable(parts: Sequence[tuple[float, float]], *, power: float = 0.8, confidence: float = 0.95) -> float:
    """The smallest true difference that a test at 1 - confidence finds with probability `power`.

    `parts` are the sources of the difference's variance, as in `t_test`. What is not distinguishable may still differ
    by less than this. NaN without a source of variance.

    >>> round(minimum_detectable([(1.0, math.inf)]), 2), round(minimum_detectable([(1.0, 7)]), 2)
    (2.8, 3.26)
    """
    variance, freedom = _welch(parts)
    if not parts or variance <= 0:
        return math.nan
    reach = special.stdtrit(freedom, (1 + confidence) / 2) + special.stdtrit(freedom, power)
    return float(reach) * math.sqrt(variance)


def _welch(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(variance, degrees of freedom) of a sum of independent estimates, by Welch and Satterthwaite."""
    variance = sum(v for v, _ in parts)
    squares = sum(v**2 / f for v, f in parts if f > 0)
    return variance, min(variance**2 / squares, _NORMAL) if squares > 0 else _NORMAL
