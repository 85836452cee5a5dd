"""Can one tell what was in the forget set? Attacks on forget against holdout records, and whether they mean anything.

Every attack scores low for members. Its AUC is 1 if the forget set looks trained on and .5 if it cannot be told. What
counts in practice is how many members are found at a false-positive rate one could live with, so those rates stand
beside it. None of it means anything if the two sets differ in their words alone, which is tested first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from expunge.data import drift
from expunge.evals import measure, metrics, stats
from expunge.evals.measure import FORGET, HOLDOUT, Convention, Measured, Reference
from expunge.evals.metrics import PerItem
from expunge.evals.numbers import Bootstrap, Number, defined
from expunge.evals.stats import FloatArray, Sample, Statistic

RATES = {"tpr_at_1_fpr": 0.01, "tpr_at_5_fpr": 0.05}
ATTACKS = ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_reference", "mia_gradnorm")
DRIFT = "set_drift"
_RATED = ("mia_loss", "mia_min_k", "mia_reference", "mia_gradnorm")
"""Attacks whose rates at a false-positive rate are reported; the others follow min-k closely."""


@dataclass(frozen=True)
class Found:
    """The numbers of membership, and why others are absent."""

    numbers: Mapping[str, Number]
    absent: Mapping[str, str]


def judge(sets: Mapping[str, Measured], reference: Reference | None, how: Convention, bootstrap: Bootstrap) -> Found:
    """AUCs of membership scores, true-positive rates, PrivLeak, and the drift between the two sets."""
    if FORGET not in sets or HOLDOUT not in sets:
        why = "no holdout set: membership needs records like the forget set that were never trained on"
        return Found({}, dict.fromkeys((*ATTACKS, "privleak", DRIFT), why))
    numbers: dict[str, Number] = {DRIFT: set_drift(sets[FORGET], sets[HOLDOUT], bootstrap)}
    absent: dict[str, str] = {}
    scores = {name: (measure.attacks(sets[FORGET], how)[name], measure.attacks(sets[HOLDOUT], how)[name])
              for name in measure.attacks(sets[FORGET], how)}  # fmt: skip
    _reference_attack(sets, reference, scores, absent)
    if "mia_gradnorm" not in scores:
        absent["mia_gradnorm"] = "gradients were not measured. Set evaluation.grad_norm=true"
    if "mia_min_k_plus_plus" not in scores:
        absent["mia_min_k_plus_plus"] = "the tables hold no entropies: what answered gives log-probabilities alone"
    for name, (inside, outside) in scores.items():
        whose = reference.name if reference is not None and name == "mia_reference" else None
        numbers[name] = _auc(inside, outside, whose, bootstrap)
        for rate, share in RATES.items() if name in _RATED else ():
            _rate(f"{name}_{rate}", share, inside, outside, whose, numbers, absent, bootstrap)
    _privleak(*scores["mia_min_k"], reference, how, numbers, absent, bootstrap)
    if _void(numbers[DRIFT]):
        caution: dict[str, object] = {"void": True, "why": VOID}
        marked = {n: replace(x, facts={**x.facts, **caution}) for n, x in numbers.items() if n != DRIFT}
        numbers |= marked
    return Found(numbers, absent)


VOID = "forget and holdout set can be told apart by their words alone: what separates them need not be membership"


def set_drift(forget: Measured, holdout: Measured, bootstrap: Bootstrap) -> Number:
    """The AUC of a bag-of-words classifier, tested on subjects it has not read, for forget against holdout records.

    Records without text in the tables give .5. The attacks are void if its interval lies above `drift.LEVEL`.
    """
    first, second = forget.answers, holdout.answers
    own, other = drift.separation(first.texts, second.texts, first.subjects, second.subjects)
    statistic = stats.weighted_auc(-own, -other)
    interval = bootstrap(statistic, [Sample.of(first.subjects), Sample.of(second.subjects)])
    counts: dict[str, object] = {"n_forget": len(own), "n_holdout": len(other)}
    return Number(interval, "neither", facts=counts)


def weighted_rate(members: FloatArray, others: FloatArray, share: float) -> Statistic:
    """The statistic 'share of members below the highest threshold that at most `share` of the others are below'."""
    order = np.argsort(others, kind="stable")
    ranked = others[order]

    def statistic(member_weights: FloatArray, other_weights: FloatArray) -> FloatArray:
        sums = np.cumsum(other_weights[:, order], axis=1)
        beyond = sums > share * sums[:, -1:] + 1e-9
        threshold = ranked[beyond.argmax(1)]
        hit: FloatArray = (member_weights * (members[None, :] < threshold[:, None])).sum(1) / member_weights.sum(1)
        return hit

    return statistic


def _void(found: Number) -> bool:
    return bool(found.interval.low > drift.LEVEL)


def _reference_attack(
    sets: Mapping[str, Measured],
    reference: Reference | None,
    scores: dict[str, tuple[PerItem, PerItem]],
    absent: dict[str, str],
) -> None:
    other = [same(reference, "losses", name, sets[name].loss) for name in (FORGET, HOLDOUT)]
    if other[0] is None or other[1] is None:
        absent["mia_reference"] = "no reference model with losses on the same forget and holdout items"
        return
    scores["mia_reference"] = (
        metrics.reference_score(sets[FORGET].loss, other[0]),
        metrics.reference_score(sets[HOLDOUT].loss, other[1]),
    )


def _auc(members: PerItem, others: PerItem, reference: str | None, bootstrap: Bootstrap) -> Number:
    return _number(stats.weighted_auc, members, others, reference, bootstrap)


def _rate(
    name: str,
    share: float,
    members: PerItem,
    others: PerItem,
    reference: str | None,
    numbers: dict[str, Number],
    absent: dict[str, str],
    bootstrap: Bootstrap,
) -> None:
    needed, there = round(1 / share), int(others.defined.sum())
    if there < needed:
        absent[name] = (
            f"a false-positive rate of {share:.0%} needs at least {needed} holdout records; there are {there}"
        )
        return
    numbers[name] = _number(
        lambda inside, outside: weighted_rate(inside, outside, share), members, others, reference, bootstrap
    )


def _number(
    statistic: Callable[[FloatArray, FloatArray], Statistic],
    members: PerItem,
    others: PerItem,
    reference: str | None,
    bootstrap: Bootstrap,
) -> Number:
    kept = [defined(part) for part in (members, others)]
    interval = bootstrap(statistic(kept[0].values, kept[1].values), [Sample.of(part.subjects) for part in kept])
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
    inside, outside = defined(members), defined(others)
    own = stats.weighted_auc(inside.values, outside.values)
    theirs = [same(reference, "min_k", *pair) for pair in ((FORGET, inside), (HOLDOUT, outside))]
    whole = theirs[0] is not None and theirs[1] is not None and theirs[0].defined.all() and theirs[1].defined.all()
    oracle = stats.weighted_auc(theirs[0].values, theirs[1].values) if whole and theirs[0] and theirs[1] else None

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


def same(reference: Reference | None, what: str, name: str, own: PerItem) -> PerItem | None:
    """The reference's numbers on our items, if it has them all."""
    if reference is None:
        return None
    found = reference.losses if what == "losses" else reference.min_k
    return None if found is None or name not in found else measure.paired(found[name], own)
