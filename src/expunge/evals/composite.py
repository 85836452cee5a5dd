"""The field's composite scores by their published names, each with an interval over the items that all its parts share.

A composite hides what it is made of: it stands beside its parts, never in their place. Formulas and where they come
from: docs/evaluation.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from expunge.evals import measure, metrics, stats
from expunge.evals.measure import FORGET, HOLDOUT, Convention, Measured, Reference
from expunge.evals.metrics import PerItem
from expunge.evals.numbers import Bootstrap, Number
from expunge.evals.stats import FloatArray, Interval, Sample
from expunge.evals.table import FLUENCY

Drawn = Mapping[str, FloatArray]
"""(R, n) item weights by set."""
Term = Callable[[Drawn], FloatArray]
SHARPNESS = 9.05
"""OpenUnlearning's constant of the privacy score, worked back from the 0.10 that it publishes for its initial model."""
PARTS = ("ou_memorization", "ou_privacy", "ou_utility")
NAMES = (*PARTS, "ou_aggregate", "ou_aggregate_without_privacy", "etw_aggregate")
_SMALLEST = 1e-300


@dataclass(frozen=True)
class Side:
    """One model: its sets, its per-item metrics, and the metrics by set that its model utility is made of."""

    sets: Mapping[str, Measured]
    items: Mapping[str, PerItem]
    utility: Mapping[str, Sequence[PerItem]]


def judge(
    own: Side,
    target: Side | None,
    reference: Reference | None,
    how: Convention,
    bootstrap: Bootstrap,
    quality: Number | None,
) -> tuple[dict[str, Number], dict[str, str]]:
    """The composites that can be had, and why the others are absent. `quality` is forget quality, for ETW's."""
    numbers: dict[str, Number] = {}
    if target is None:
        return numbers, dict.fromkeys(NAMES, "no target to compare with: composites are relative to it")
    terms, absent = _terms(own, target, reference, how)
    named = "target" if reference is None else f"target and {reference.name}"
    groups = {name: (name,) for name in PARTS} | {
        "ou_aggregate": PARTS,
        "ou_aggregate_without_privacy": ("ou_memorization", "ou_utility"),
    }
    for name, wanted in groups.items():
        missing = [part for part in wanted if part not in terms]
        if missing:
            absent.setdefault(name, f"{', '.join(missing)} is absent")
            continue
        unread = "ou_utility" in wanted and _fluent(own, target) is None
        facts = {"without": "fluency: no gibberish classifier was asked"} if unread else {}
        interval = _interval([terms[part] for part in wanted], own.sets, bootstrap, (0.0, 1.0))
        numbers[name] = Number(interval, "better", named, facts=facts)
    _etw(own, target, bootstrap, quality, numbers, absent)
    return numbers, absent


def _terms(
    own: Side, target: Side, reference: Reference | None, how: Convention
) -> tuple[dict[str, Term], dict[str, str]]:
    """The three scores of OpenUnlearning as functions of drawn items."""
    terms: dict[str, Term] = {}
    absent: dict[str, str] = {}
    pairs = [(_memory(own, how).get(name), _memory(target, how).get(name)) for name in _memory(own, how)]
    both = [(a, measure.paired(b, a)) for a, b in pairs if a is not None and b is not None]
    if len(both) == 4 and all(b is not None for _, b in both):
        terms["ou_memorization"] = _harmonic([_forgotten(a, b) for a, b in both if b is not None])
    else:
        absent["ou_memorization"] = "needs paraphrases and wrong answers of forget records, under both models"
    aucs = {} if reference is None or reference.aucs is None else reference.aucs
    known = set(aucs).intersection(*(measure.attacks(s, how) for n, s in own.sets.items() if n in (FORGET, HOLDOUT)))
    if HOLDOUT in own.sets and set(_ATTACKS) <= known and max(aucs[a] for a in _ATTACKS) < 1:
        terms["ou_privacy"] = _harmonic([_private(own.sets, name, aucs[name], how) for name in _ATTACKS])
    else:
        absent["ou_privacy"] = "needs a holdout set, each attack, and an oracle's AUC of each below 1"
    mine, theirs = _utility(own.utility), _utility(target.utility)
    if mine is not None and theirs is not None and _alike(own.utility, target.utility):
        kept: Term = lambda drawn: np.clip(_over(mine(drawn), theirs(drawn)), 0, 1)  # noqa: E731
        fluent = _fluent(own, target)
        terms["ou_utility"] = kept if fluent is None else _harmonic([kept, fluent])
    else:
        absent["ou_utility"] = "needs model utility of both models on the same items"
    return terms, absent


_ATTACKS = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus")


def _memory(side: Side, how: Convention) -> dict[str, PerItem | None]:
    """The four things that memorisation is made of; the truth ratio as the right answer's share."""
    forget = side.sets[FORGET]
    share = None
    if forget.paraphrase is not None and forget.perturbed:
        ratio = metrics.truth_ratio(forget.paraphrase, forget.perturbed, "prob_mean", how.epsilon)
        share = metrics.over(ratio, forget.loss)
    names = ("extraction_strength", "exact_memorization", "forget_Q_A_PARA_Prob")
    return {**{name: side.items.get(name) for name in names}, "share": share}


def _fluent(own: Side, target: Side) -> Term | None:
    """Fluency of the forget set's answers over the target's, within [0, 1]; None if one of them was not read."""
    name = f"{FORGET}_{FLUENCY}"
    mine, theirs = own.items.get(name), target.items.get(name)
    before = None if mine is None or theirs is None else measure.paired(theirs, mine)
    if mine is None or before is None or len(mine.ids) != len(own.sets[FORGET].loss.ids):
        return None
    after, start = stats.weighted_mean(mine.averaged), stats.weighted_mean(before.averaged)
    return lambda drawn: np.clip(_over(after(drawn[FORGET]), start(drawn[FORGET])), 0, 1)


def _forgotten(own: PerItem, target: PerItem) -> Term:
    """1 - m / m of the target, within [0, 1]."""
    mine, theirs = stats.weighted_mean(own.averaged), stats.weighted_mean(target.averaged)
    return lambda drawn: np.clip(1 - _over(mine(drawn[FORGET]), theirs(drawn[FORGET])), 0, 1)


def _private(sets: Mapping[str, Measured], name: str, oracle: float, how: Convention) -> Term:
    """1 / (1 + 9.05 |dev|), dev the distance of the AUC from the oracle's over the room that is left to it."""
    inside, outside = (measure.attacks(sets[s], how)[name] for s in (FORGET, HOLDOUT))
    keep = inside.defined, outside.defined
    area = stats.weighted_auc(inside.values[keep[0]], outside.values[keep[1]])

    def term(drawn: Drawn) -> FloatArray:
        found = area(drawn[FORGET][:, keep[0]], drawn[HOLDOUT][:, keep[1]])
        return np.asarray(1 / (1 + SHARPNESS * np.abs((oracle - found) / (1 - oracle))))

    return term


def _utility(parts: Mapping[str, Sequence[PerItem]]) -> Term | None:
    if not parts:
        return None
    means = [(name, stats.weighted_mean(part.averaged)) for name, group in parts.items() for part in group]
    return _harmonic([lambda drawn, n=name, m=mean: m(drawn[n]) for name, mean in means])  # type: ignore[misc]


def _alike(own: Mapping[str, Sequence[PerItem]], target: Mapping[str, Sequence[PerItem]]) -> bool:
    return own.keys() == target.keys() and all(own[name][0].ids == target[name][0].ids for name in own)


def _harmonic(terms: Sequence[Term]) -> Term:
    def mean(drawn: Drawn) -> FloatArray:
        values = np.stack([term(drawn) for term in terms])
        with np.errstate(divide="ignore"):
            return np.asarray(len(values) / (1 / np.maximum(values, 0)).sum(0))

    return mean


def _over(upper: FloatArray, lower: FloatArray) -> FloatArray:
    return np.asarray(np.divide(upper, lower, out=np.full_like(upper, np.nan), where=lower > 0))


def _interval(
    terms: Sequence[Term], sets: Mapping[str, Measured], bootstrap: Bootstrap, bounds: tuple[float, float] | None
) -> Interval:
    """The harmonic mean of the terms; every set is drawn once for all of them."""
    names, whole = list(sets), _harmonic(terms) if len(terms) > 1 else terms[0]
    samples = [Sample.of(sets[name].loss.subjects) for name in names]
    return bootstrap(lambda *weights: whole(dict(zip(names, weights, strict=True))), samples, bounds)


def _etw(
    own: Side,
    target: Side,
    bootstrap: Bootstrap,
    quality: Number | None,
    numbers: dict[str, Number],
    absent: dict[str, str],
) -> None:
    """-log10 of forget quality times the points of model utility lost; its interval spans those of both factors."""
    mine, theirs = _utility(own.utility), _utility(target.utility)
    if quality is None or mine is None or theirs is None or not _alike(own.utility, target.utility):
        absent["etw_aggregate"] = "needs forget quality, and model utility of model and target on the same items"
        return
    lost = _interval([lambda drawn: 100 * (theirs(drawn) - mine(drawn))], own.sets, bootstrap, None)
    far, middle, near = (
        -math.log10(max(p, _SMALLEST)) for p in (quality.interval.low, quality.interval.value, quality.interval.high)
    )
    corners = [p * u for p in (near, far) for u in (lost.low, lost.high)]
    span = Interval(
        middle * lost.value, (max(corners) - min(corners)) / 3.92, min(corners), max(corners),
        min(lost.n, quality.interval.n), min(lost.clusters, quality.interval.clusters), lost.unit,
        lost.optimistic or quality.interval.optimistic,
    )  # fmt: skip
    facts = {"minus_log10_forget_quality": middle, "utility_points_lost": lost.value}
    numbers["etw_aggregate"] = Number(span, "neither", quality.reference, facts=facts)
