"""Signal to noise of weighted gradients along a direction, from two numbers a record. No model, no torch.

With g_b the weighted mean gradient of record b and d a unit vector: SNR = m^2 / (mean_b ||g_b||^2 - m^2), where
m = mean_b <g_b, d>. The denominator is what the mean gradient along d is lost in: the spread along d, and all that is
orthogonal to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from expunge.evals.stats import FloatArray, Interval, Sample, Statistic, bootstrap

MOMENTS = pa.schema(
    [
        ("id", pa.string()),
        ("subject", pa.string()),
        ("scorer", pa.string()),
        ("weights", pa.string()),
        ("share", pa.float64()),
        ("projection", pa.float64()),
        ("square", pa.float64()),
    ]
)
"""A row a record and weighting: `weights` is uniform, hard, soft, random or shuffled; `share` the r of hard and random,
else NaN; `projection` <g_b, d> and `square` ||g_b||^2, NaN where no token of the record has weight. `scorer` is '' for
what no scorer decides."""


@dataclass(frozen=True)
class Signal:
    """SNR of one weighting, with its ratio to uniform weights on the same resamples, over `records` records.

    `projection` is the mean of <g_b, d> (positive: the step of gradient ascent goes along d), `square` of ||g_b||^2.
    """

    scorer: str
    weights: str
    share: float
    records: int
    snr: Interval
    ratio: Interval
    projection: Interval
    square: Interval

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def snr(projection: FloatArray, square: FloatArray) -> Statistic:
    """The statistic SNR of `projection` and `square` (records,); NaN where all gradients are the same along d alone."""
    moments = np.stack([np.ones(len(projection)), projection, square], axis=1)

    def statistic(weights: FloatArray) -> FloatArray:
        n, along, whole = (weights @ moments).T
        n = np.maximum(n, 1e-300)
        signal = (along / n) ** 2
        noise = whole / n - signal
        defined = noise > 1e-12 * np.maximum(whole / n, 1e-300)
        return np.asarray(np.divide(signal, noise, out=np.full(len(n), math.nan), where=defined))

    return statistic


def measure(moments: pa.Table, *, resamples: int = 2000, seed: int = 0) -> list[Signal]:
    """The SNR of every weighting in the table, in its order; records where it has no gradient are left out of both
    sides of the ratio.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in moments.to_pylist():
        groups.setdefault((row["scorer"], row["weights"], repr(row["share"])), []).append(row)
    plain = {row["id"]: row for (_, weights, _), rows in groups.items() if weights == "uniform" for row in rows}
    return [_signal(rows, plain, resamples, seed) for rows in groups.values()]


def _signal(
    rows: Sequence[Mapping[str, Any]], plain: Mapping[str, Mapping[str, Any]], resamples: int, seed: int
) -> Signal:
    kept = [row for row in rows if math.isfinite(row["projection"])]
    sample = Sample.of([row["subject"] for row in kept])
    own, other = _snr_of(kept), _snr_of([plain[row["id"]] for row in kept])

    def interval(statistic: Statistic) -> Interval:
        return bootstrap(statistic, [sample], resamples=resamples, seed=seed)

    def ratio(weights: FloatArray) -> FloatArray:
        below = other(weights)
        return np.asarray(np.divide(own(weights), below, out=np.full(len(below), math.nan), where=below > 0))

    def mean(name: str) -> Statistic:
        values = np.array([row[name] for row in kept], np.float64)
        return lambda weights: weights @ values / np.maximum(weights.sum(1), 1e-300)

    first = rows[0]
    return Signal(
        first["scorer"],
        first["weights"],
        first["share"],
        len(kept),
        interval(own),
        interval(ratio),
        interval(mean("projection")),
        interval(mean("square")),
    )


def _snr_of(rows: Sequence[Mapping[str, Any]]) -> Statistic:
    projection, square = (np.array([row[name] for row in rows], np.float64) for name in ("projection", "square"))
    return snr(projection, square)
