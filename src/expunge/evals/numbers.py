"""One number of metrics.json: its value with interval and n, which way is good, and what it was compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from expunge.evals import stats
from expunge.evals.metrics import PerItem
from expunge.evals.stats import Interval, Sample, Statistic

UNKNOWN = Interval(math.nan, math.nan, math.nan, math.nan, 0, 0)


@dataclass(frozen=True)
class Number:
    """One entry of metrics.json. `skipped` items had no defined value; `facts` are further keys of the entry."""

    interval: Interval
    higher: str
    reference: str | None = None
    skipped: int = 0
    facts: Mapping[str, object] = field(default_factory=dict)

    def entry(self) -> dict[str, Any]:
        """The entry as JSON has it."""
        i = self.interval
        return {
            "agg_value": i.value,
            "n": i.n,
            "stderr": i.stderr,
            "ci_low": i.low,
            "ci_high": i.high,
            "clusters": i.clusters,
            "resampled": i.unit,
            "optimistic": i.optimistic,
            "skipped": self.skipped,
            "higher": self.higher,
            "reference": self.reference,
            **self.facts,
        }


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made: resamples, seed and confidence of `stats.bootstrap`."""

    resamples: int = 2000
    seed: int = 0
    confidence: float = 0.95

    def __call__(
        self, statistic: Statistic, samples: Sequence[Sample], bounds: tuple[float, float] | None = (0.0, 1.0)
    ) -> Interval:
        return stats.bootstrap(
            statistic,
            samples,
            resamples=self.resamples,
            confidence=self.confidence,
            seed=self.seed,
            bounds=bounds,
        )


def mean(
    item: PerItem,
    higher: str,
    bootstrap: Bootstrap,
    bounds: tuple[float, float] | None = (0.0, 1.0),
    reference: str | None = None,
) -> Number:
    """The mean over the items for which the metric is defined; `bounds` are those of its values, if it has any."""
    values = item.averaged[item.defined]
    sample = Sample.of([s for s, kept in zip(item.subjects, item.defined, strict=True) if kept])
    interval = bootstrap(stats.weighted_mean(values), [sample], bounds) if len(values) else UNKNOWN
    return Number(interval, higher, reference, skipped=int((~item.defined).sum()))


def defined(item: PerItem) -> PerItem:
    """The items for which the metric is defined."""
    keep = item.defined
    names = [name for name, kept in zip(item.ids, keep, strict=True) if kept]
    subjects = [name for name, kept in zip(item.subjects, keep, strict=True) if kept]
    return PerItem(tuple(names), tuple(subjects), item.values[keep])
