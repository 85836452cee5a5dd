"""How well a score tells two kinds of units apart: ROC-AUC, average precision, calibration, correlations, each a
function of the weights of records, so that one bootstrap serves them all. Pure numpy: no model, no torch.

A unit is a token or a word; it belongs to a record, and records to subjects. Resampling units are subjects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats as scipy_stats

from expunge.evals.stats import FloatArray, IntArray, Statistic

BoolArray = npt.NDArray[np.bool_]
LEVELS = 2048
"""Scores are told apart up to so many quantiles: then a bootstrap is two matrix products."""
BINS = 10
_POINTS = 100
_DEFINED = 1e-12


@dataclass(frozen=True)
class Units:
    """Units of one kind under one score: `record` (n,) int, `informative` (n,) bool, `score` and `weight` (n,).

    `subjects` has an entry a record; records without a unit count as records all the same.
    """

    record: IntArray
    informative: BoolArray
    score: FloatArray
    weight: FloatArray
    subjects: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.record)

    @property
    def base(self) -> float:
        """The share of informative units; NaN without a unit."""
        return float(self.informative.mean()) if len(self) else math.nan


@dataclass(frozen=True)
class Counts:
    """Informative and structural units of each record at each level of the score, lowest first: (records, levels)."""

    informative: FloatArray
    structural: FloatArray

    @classmethod
    def of(cls, units: Units, most: int = LEVELS) -> Counts:
        """The counts; scores with more than `most` distinct values are grouped into as many quantiles."""
        level, count = _levels(units.score, most)
        shape = (len(units.subjects), count)
        place = units.record * count + level
        tables = [
            np.bincount(place[side], minlength=shape[0] * count).reshape(shape).astype(np.float64)
            for side in (units.informative, ~units.informative)
        ]
        return cls(tables[0], tables[1])


def auc(counts: Counts) -> Statistic:
    """The statistic 'probability that an informative unit scores above a structural one, ties counted half'."""

    def statistic(weights: FloatArray) -> FloatArray:
        hits, misses = weights @ counts.informative, weights @ counts.structural
        below = np.cumsum(misses, axis=1) - misses / 2
        return _quotient((hits * below).sum(1), hits.sum(1) * misses.sum(1))

    return statistic


def average_precision(counts: Counts) -> Statistic:
    """The statistic 'mean precision over the informative units, from the highest score down'; ties enter together."""

    def statistic(weights: FloatArray) -> FloatArray:
        hits, misses = (weights @ table[:, ::-1] for table in (counts.informative, counts.structural))
        found = np.cumsum(hits, axis=1)
        taken = found + np.cumsum(misses, axis=1)
        precision = np.divide(found, taken, out=np.zeros_like(found), where=taken > 0)
        return _quotient((hits * precision).sum(1), hits.sum(1))

    return statistic


def roc(counts: Counts) -> tuple[list[float], list[float]]:
    """(false positive rate, true positive rate) from (0, 0) to (1, 1), thinned to about 100 points."""
    rates = []
    for table in (counts.structural, counts.informative):
        sums = np.concatenate([[0.0], np.cumsum(table.sum(0)[::-1])])
        rates.append(sums / max(float(sums[-1]), 1.0))
    keep = np.unique(np.linspace(0, len(rates[0]) - 1, _POINTS).round().astype(int))
    return rates[0][keep].tolist(), rates[1][keep].tolist()


@dataclass(frozen=True)
class Reliability:
    """Units by the quantile of their score: `informative` and `all` (records, bins), `middle` (bins,) of each bin."""

    informative: FloatArray
    all: FloatArray
    middle: FloatArray

    @classmethod
    def of(cls, units: Units, bins: int = BINS) -> Reliability:
        """Units in `bins` bins of equal width by their mid-rank over all records, in [0, 1]."""
        quantile = (scipy_stats.rankdata(units.score) - 0.5) / max(len(units), 1)
        place = units.record * bins + np.minimum((quantile * bins).astype(np.int64), bins - 1)
        shape = (len(units.subjects), bins)
        tables = [
            np.bincount(place[side], minlength=shape[0] * bins).reshape(shape).astype(np.float64)
            for side in (units.informative, np.ones(len(units), np.bool_))
        ]
        return cls(tables[0], tables[1], (np.arange(bins) + 0.5) / bins)

    def share(self, place: int) -> Statistic:
        """The statistic 'share of informative units in this bin'."""
        return lambda weights: _quotient(weights @ self.informative[:, place], weights @ self.all[:, place])

    def error(self, weights: FloatArray) -> FloatArray:
        """The mean over units of |share informative in their bin - middle of the bin|.

        0: the quantile of a score can be read as the probability that the unit is informative.
        """
        found, total = weights @ self.informative, weights @ self.all
        share = np.divide(found, total, out=np.zeros_like(found), where=total > 0)
        return _quotient((total * np.abs(share - self.middle)).sum(1), total.sum(1))


def weight_share(units: Units) -> Statistic:
    """The statistic 'share of all weight that lies on informative units'; `units.base` is what equal weights give."""
    records = len(units.subjects)
    total = np.bincount(units.record, units.weight, records)
    found = np.bincount(units.record, units.weight * units.informative, records)
    return lambda weights: _quotient(weights @ found, weights @ total)


def auc_by_record(units: Units) -> FloatArray:
    """(records,) the AUC within each record; NaN where one of the kinds is missing."""
    values = np.full(len(units.subjects), math.nan)
    for record in np.unique(units.record):
        mine = units.record == record
        inside, outside = units.score[mine & units.informative], units.score[mine & ~units.informative]
        if len(inside) and len(outside):
            values[record] = float(
                ((inside[:, None] > outside).mean() + (inside[:, None] >= outside).mean()) / 2  # ties counted half
            )
    return values


def correlation(x: FloatArray, y: FloatArray, record: IntArray, records: int, *, ranks: bool = False) -> Statistic:
    """The statistic 'Pearson correlation of x and y over units', or of their ranks; NaN where one does not vary.

    Units where either is not finite are left out. Ranks are those of the observed units in every resample.
    """
    there = np.isfinite(x) & np.isfinite(y)
    x, y, record = x[there], y[there], record[there]
    if ranks:
        x, y = scipy_stats.rankdata(x), scipy_stats.rankdata(y)
    x, y = (v - v.mean() if len(v) else v for v in (x, y))
    parts = (np.ones(len(x)), x, y, x * x, y * y, x * y)
    moments = np.stack([np.bincount(record, part, records) for part in parts], axis=1)

    def statistic(weights: FloatArray) -> FloatArray:
        n, sx, sy, sxx, syy, sxy = (weights @ moments).T
        n = np.maximum(n, _DEFINED)
        vx, vy = sxx / n - (sx / n) ** 2, syy / n - (sy / n) ** 2
        spread = np.where((vx > _DEFINED) & (vy > _DEFINED), vx * vy, 0.0)
        return np.clip(_quotient(sxy / n - sx * sy / n**2, np.sqrt(spread)), -1.0, 1.0)

    return statistic


def histogram(units: Units, values: FloatArray, bins: int = 24) -> tuple[list[float], list[float], list[float]]:
    """(edges, share of the informative units in each bin, share of the structural ones)."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
    shares = []
    for side in (units.informative, ~units.informative):
        counts = np.histogram(values[side], edges)[0]
        shares.append((counts / max(int(counts.sum()), 1)).tolist())
    return edges.tolist(), shares[0], shares[1]


def _levels(score: FloatArray, most: int) -> tuple[IntArray, int]:
    distinct, place = np.unique(score, return_inverse=True)
    if len(distinct) <= most:
        return place.astype(np.int64), max(len(distinct), 1)
    edges = np.unique(np.quantile(score, np.linspace(0, 1, most + 1)[1:-1]))
    return np.searchsorted(edges, score, side="right").astype(np.int64), len(edges) + 1


def _quotient(upper: FloatArray, lower: FloatArray) -> FloatArray:
    out: FloatArray = np.divide(upper, lower, out=np.full(np.shape(lower), math.nan), where=np.asarray(lower) > 0)
    return out
