"""From per-item metrics to the numbers of metrics.json: every one with its n, its interval and its reference.

A number whose data or reference is missing is absent, with the reason beside it; none is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from expunge.errors import RunFolderError
from expunge.evals import measure, metrics, peer, stats
from expunge.evals.measure import FORGET, HOLDOUT, TOFU_UTILITY, Convention, Measured, Reference, attacks, per_item
from expunge.evals.metrics import PerItem
from expunge.evals.stats import FloatArray, Interval, Sample, Statistic

_WORSE = ("forget_Q_A", "exact_memorization", "extraction_strength", "forget_quality_ks")
_NEITHER = ("mia_", "privleak")
_NORMAL_95 = 1.959963984540054


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
class Judgement:
    """All numbers of one model, why others are absent, and the per-item values behind the numbers."""

    numbers: Mapping[str, Number]
    absent: Mapping[str, str]
    items: Mapping[str, PerItem]

    def entries(self) -> dict[str, dict[str, Any]]:
        """metrics.json."""
        return {name: number.entry() for name, number in self.numbers.items()}


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


def metrics_from_folder(
    folder: Path,
    reference: Path | None = None,
    *,
    convention: str = "expunge",
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """metrics.json of an evaluation folder (eval/LABEL of a run), recomputed from its tables: no model, no torch.

    `reference` is the oracle's evaluation folder, or a TOFU_EVAL.json that OpenUnlearning wrote for it.
    """
    return judge_folder(folder, reference, convention=convention, bootstrap=Bootstrap(resamples, seed)).entries()


def judge_folder(
    folder: Path, reference: Path | None, *, convention: str = "expunge", bootstrap: Bootstrap | None = None
) -> Judgement:
    """The judgement of an evaluation folder; `reference` as for `metrics_from_folder`."""
    how = measure.convention(convention)
    oracle = None if reference is None else read_reference(reference, how)
    return judge(measure.read_sets(folder), oracle, how, bootstrap or Bootstrap())


def read_reference(path: Path, how: Convention) -> Reference:
    """The reference in an evaluation folder or in a TOFU_EVAL.json; RunFolderError if it is neither."""
    if path.is_dir():
        return measure.reference_of(path.name, measure.read_sets(path), how)
    if path.suffix == ".json":
        return peer.read_log(path)
    raise RunFolderError(f"reference '{path}' is neither an evaluation folder (with scores/) nor a TOFU_EVAL.json")


def judge(
    sets: Mapping[str, Measured], reference: Reference | None, how: Convention, bootstrap: Bootstrap
) -> Judgement:
    """Every number that these tables and this reference give."""
    items = {key: value for name, measured in sets.items() for key, value in _items(name, measured, how).items()}
    numbers = {name: _mean(name, item, bootstrap) for name, item in items.items()}
    absent: dict[str, str] = {}
    _utility(sets, items, numbers, absent, bootstrap)
    _forget_quality(items, reference, numbers, absent, bootstrap)
    _membership(sets, reference, how, numbers, absent, bootstrap)
    return Judgement({name: numbers[name] for name in sorted(numbers)}, absent, items)


def _items(name: str, measured: Measured, how: Convention) -> dict[str, PerItem]:
    return {} if name == HOLDOUT else per_item(name, measured, how)


def _higher(name: str) -> str:
    if name.startswith(_NEITHER) or name.endswith("_PERT_Prob"):
        return "neither"
    return "worse" if name.startswith(_WORSE) else "better"


def _mean(name: str, item: PerItem, bootstrap: Bootstrap) -> Number:
    values = item.averaged[item.defined]
    sample = Sample.of([s for s, kept in zip(item.subjects, item.defined, strict=True) if kept])
    if not len(values):
        interval = Interval(math.nan, math.nan, math.nan, math.nan, 0, 0)
    else:
        interval = bootstrap(stats.weighted_mean(values), [sample])
    return Number(interval, _higher(name), skipped=int((~item.defined).sum()))


def _utility(
    sets: Mapping[str, Measured],
    items: Mapping[str, PerItem],
    numbers: dict[str, Number],
    absent: dict[str, str],
    bootstrap: Bootstrap,
) -> None:
    """Model utility: the harmonic mean of probability, ROUGE and truth ratio of every set that is to be kept."""
    kept = [name for name in sets if name not in (FORGET, HOLDOUT)]
    wanted = list(TOFU_UTILITY) if set(kept) & set(TOFU_UTILITY[1:]) else kept
    parts: dict[str, list[PerItem]] = {}
    for name in wanted:
        start = measure.prefix(name)
        probability = items.get(f"{start}_Q_A_Prob_normalised", items.get(f"{start}_Q_A_Prob"))
        trio = [probability, items.get(f"{start}_Q_A_ROUGE"), items.get(f"{start}_Truth_Ratio")]
        missing = [what for what, part in zip(("probability", "ROUGE", "truth ratio"), trio, strict=True) if not part]
        if not missing:
            parts[name] = [part for part in trio if part is not None]
        elif wanted == list(TOFU_UTILITY):
            absent["model_utility"] = f"the set '{name}' has no {' and no '.join(missing)}"
            return
    if not parts:
        absent["model_utility"] = "no set has probability, ROUGE and truth ratio"
        return
    numbers["model_utility"] = _harmonic(parts, bootstrap)
    published = {name: [*trio[:2], measure.tofu_truth_ratio(sets[name])] for name, trio in parts.items()}
    numbers["model_utility_tofu"] = _harmonic(
        {name: [part for part in trio if part is not None] for name, trio in published.items()}, bootstrap
    )


def _harmonic(parts: Mapping[str, Sequence[PerItem]], bootstrap: Bootstrap) -> Number:
    groups = list(parts.values())
    means = [[stats.weighted_mean(part.averaged) for part in group] for group in groups]

    def statistic(*weights: FloatArray) -> FloatArray:
        values = np.stack([mean(w) for group, w in zip(means, weights, strict=True) for mean in group])
        with np.errstate(divide="ignore"):
            harmonic: FloatArray = len(values) / (1 / np.maximum(values, 0)).sum(0)
        return harmonic

    samples = [Sample.of(group[0].subjects) for group in groups]
    interval = bootstrap(statistic, samples)
    return Number(interval, "better", facts={"of": list(parts)})


def _forget_quality(
    items: Mapping[str, PerItem],
    reference: Reference | None,
    numbers: dict[str, Number],
    absent: dict[str, str],
    bootstrap: Bootstrap,
) -> None:
    """KS distance and p between the truth ratios of model and oracle; p's interval is that of D, mapped."""
    own = items.get("forget_truth_ratio")
    if own is None or reference is None or reference.ratios is None:
        why = "no oracle to compare with" if reference is None else "model or oracle has no truth ratios"
        absent.update(forget_quality=why, forget_quality_ks=why)
        return
    other = measure.paired(reference.ratios, own)
    if other is not None:
        both = own.defined & other.defined
        mine, theirs = own.values[both], other.values[both]
        samples = [Sample.of([s for s, kept in zip(own.subjects, both, strict=True) if kept])]
    else:
        mine, theirs = own.values[own.defined], reference.ratios.values[reference.ratios.defined]
        samples = [Sample.of([""] * len(mine)), Sample.of([""] * len(theirs))]
    if not len(mine) or not len(theirs):
        absent.update(dict.fromkeys(("forget_quality", "forget_quality_ks"), "no item has a truth ratio"))
        return
    distance = stats.ks_interval(
        mine, theirs, samples, resamples=bootstrap.resamples, confidence=bootstrap.confidence, seed=bootstrap.seed
    )
    p = metrics.forget_quality(PerItem((), (), mine), PerItem((), (), theirs)).p
    low, high = (metrics.ks_p(d, len(mine), len(theirs)) for d in (distance.high, distance.low))
    ends = Interval(
        p, (high - low) / (2 * _NORMAL_95), low, high, distance.n, distance.clusters, distance.unit, distance.optimistic
    )
    numbers["forget_quality"] = Number(ends, "better", reference.name, facts={"statistic": distance.value})
    numbers["forget_quality_ks"] = Number(distance, "worse", reference.name)


def _membership(
    sets: Mapping[str, Measured],
    reference: Reference | None,
    how: Convention,
    numbers: dict[str, Number],
    absent: dict[str, str],
    bootstrap: Bootstrap,
) -> None:
    """AUCs of membership scores, forget against holdout, and PrivLeak."""
    names = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus")
    if FORGET not in sets or HOLDOUT not in sets:
        why = "no holdout set: membership needs records like the forget set that were never trained on"
        absent.update(dict.fromkeys((*names, "mia_reference", "privleak"), why))
        return
    inside, outside = attacks(sets[FORGET], how), attacks(sets[HOLDOUT], how)
    for name in names:
        numbers[name] = _auc(inside[name], outside[name], None, bootstrap)
    other = [_same(reference, "losses", name, sets[name].loss) for name in (FORGET, HOLDOUT)]
    if reference is None or other[0] is None or other[1] is None:
        absent["mia_reference"] = "no reference model with losses on the same forget and holdout items"
    else:
        scores = [
            metrics.reference_score(sets[name].loss, loss)
            for name, loss in zip((FORGET, HOLDOUT), other, strict=True)
            if loss is not None
        ]
        numbers["mia_reference"] = _auc(scores[0], scores[1], reference.name, bootstrap)
    _privleak(inside["mia_min_k"], outside["mia_min_k"], reference, how, numbers, absent, bootstrap)


def _auc(members: PerItem, others: PerItem, reference: str | None, bootstrap: Bootstrap) -> Number:
    kept = [_defined(part) for part in (members, others)]
    samples = [Sample.of(part.subjects) for part in kept]
    interval = bootstrap(stats.weighted_auc(kept[0].values, kept[1].values), samples)
    counts: dict[str, object] = {"n_forget": len(kept[0]), "n_holdout": len(kept[1])}
    return Number(interval, "neither", reference, len(members) + len(others) - len(kept[0]) - len(kept[1]), counts)


def _privleak(
    members: PerItem,
    others: PerItem,
    reference: Reference | None,
    how: Convention,
    numbers: dict[str, Number],
    absent: dict[str, str],
    bootstrap: Bootstrap,
) -> None:
    fixed = how.privleak_reference if reference is None else reference.min_k_auc
    if fixed is None:
        absent["privleak"] = "no oracle with a min-k AUC on forget and holdout"
        return
    inside, outside = _defined(members), _defined(others)
    own = stats.weighted_auc(inside.values, outside.values)
    theirs = [_same(reference, "min_k", *pair) for pair in ((FORGET, inside), (HOLDOUT, outside))]
    same = theirs[0] is not None and theirs[1] is not None and theirs[0].defined.all() and theirs[1].defined.all()
    oracle = stats.weighted_auc(theirs[0].values, theirs[1].values) if same and theirs[0] and theirs[1] else None

    def statistic(inside_weights: FloatArray, outside_weights: FloatArray) -> FloatArray:
        score = own(inside_weights, outside_weights)
        base = np.full_like(score, fixed) if oracle is None else oracle(inside_weights, outside_weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            leak: FloatArray = (base - score) / (1 - base + how.epsilon) * 100
        return leak

    if not how.epsilon and fixed == 1:
        absent["privleak"] = "the oracle's min-k AUC is 1, which leaves PrivLeak undefined"
        return
    top = metrics.privleak(0.0, fixed, how.epsilon)
    interval = bootstrap(statistic, [Sample.of(inside.subjects), Sample.of(outside.subjects)], (-100.0, top))
    name = f"AUC {fixed:g}" if reference is None else reference.name
    numbers["privleak"] = Number(interval, "neither", name, facts={"reference_auc": fixed})


def _same(reference: Reference | None, what: str, name: str, own: PerItem) -> PerItem | None:
    """The reference's numbers on our items, if it has them all."""
    if reference is None:
        return None
    found = reference.losses if what == "losses" else reference.min_k
    return None if found is None or name not in found else measure.paired(found[name], own)


def _defined(item: PerItem) -> PerItem:
    keep = item.defined
    names = [name for name, kept in zip(item.ids, keep, strict=True) if kept]
    subjects = [name for name, kept in zip(item.subjects, keep, strict=True) if kept]
    return PerItem(tuple(names), tuple(subjects), item.values[keep])
