"""From per-item metrics to the numbers of metrics.json: every one with its n, its interval and its reference.

A number whose data or reference is missing is absent, with the reason beside it; none is guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from expunge.errors import RunFolderError
from expunge.evals import composite, divergence, measure, membership, metrics, peer, stats
from expunge.evals.measure import ASKED, FORGET, HOLDOUT, TOFU_UTILITY, Convention, Measured, Reference, per_item
from expunge.evals.metrics import PerItem
from expunge.evals.numbers import Bootstrap, Number, defined, mean
from expunge.evals.stats import FloatArray, Interval, Sample
from expunge.evals.table import ENTAILMENT, FLUENCY

_WORSE = (
    "forget_excess",
    "forget_reworded",
    "forget_verbmem",
    "forget_knowmem",
    "forget_Q_A",
    f"forget_{ENTAILMENT}",
    "exact_memorization",
    "extraction_strength",
    "forget_quality_ks",
)
_REPEATS = "_repetition"
GENERAL = "general"
_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Judgement:
    """All numbers of one model, why others are absent, and the per-item values behind the numbers."""

    numbers: Mapping[str, Number]
    absent: Mapping[str, str]
    items: Mapping[str, PerItem]

    def entries(self) -> dict[str, dict[str, Any]]:
        """metrics.json."""
        return {name: number.entry() for name, number in self.numbers.items()}


def metrics_from_folder(
    folder: Path,
    reference: Path | None = None,
    *,
    target: Path | None = None,
    convention: str = "expunge",
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """metrics.json of an evaluation folder (eval/LABEL of a run), recomputed from its tables: no model, no torch.

    `reference` is the oracle's evaluation folder, or a TOFU_EVAL.json that OpenUnlearning wrote for it; `target` that
    of the model before unlearning, which composite scores are relative to.
    """
    how = Bootstrap(resamples, seed)
    return judge_folder(folder, reference, target=target, convention=convention, bootstrap=how).entries()


def judge_folder(
    folder: Path,
    reference: Path | None,
    *,
    target: Path | None = None,
    convention: str = "expunge",
    bootstrap: Bootstrap | None = None,
) -> Judgement:
    """The judgement of an evaluation folder; `reference` and `target` as for `metrics_from_folder`."""
    how = measure.convention(convention)
    oracle = None if reference is None else read_reference(reference, how)
    before = None if target is None else measure.read_sets(target)
    sets, texts = measure.read_sets(folder), measure.read_texts(folder)
    found = judge(sets, oracle, how, bootstrap or Bootstrap(), texts, before)
    beside = divergence.judge(folder, bootstrap or Bootstrap())
    numbers = {**found.numbers, **beside.numbers}
    return Judgement(
        {name: numbers[name] for name in sorted(numbers)},
        {**found.absent, **beside.absent},
        {**found.items, **beside.items},
    )


def read_reference(path: Path, how: Convention) -> Reference:
    """The reference in an evaluation folder or in a TOFU_EVAL.json; RunFolderError if it is neither."""
    if path.is_dir():
        return measure.reference_of(path.name, measure.read_sets(path), how)
    if path.suffix == ".json":
        return peer.read_log(path)
    raise RunFolderError(f"reference '{path}' is neither an evaluation folder (with scores/) nor a TOFU_EVAL.json")


def judge(
    sets: Mapping[str, Measured],
    reference: Reference | None,
    how: Convention,
    bootstrap: Bootstrap,
    texts: Mapping[str, pa.Table] | None = None,
    target: Mapping[str, Measured] | None = None,
) -> Judgement:
    """Every number that these tables and this reference give. `texts` are answers of sets that were only asked."""
    items = {key: value for name, measured in sets.items() for key, value in _items(name, measured, how).items()}
    items |= dict(_told(name, table, how) for name, table in (texts or {}).items())
    absent: dict[str, str] = {}
    _writing(sets, texts or {}, items, absent)
    numbers = {name: mean(item, _higher(name), bootstrap) for name, item in items.items()}
    _perplexity(sets, numbers, absent, bootstrap)
    _utility(sets, items, numbers, absent, bootstrap)
    _forget_quality(items, reference, numbers, absent, bootstrap)
    _excess(sets, items, numbers, absent, bootstrap)
    leaks = membership.judge(sets, reference, how, bootstrap)
    numbers |= leaks.numbers
    absent |= leaks.absent
    if FORGET in sets:
        sides = [None if one is None else _side(one, how) for one in (sets, target)]
        assert sides[0] is not None
        quality = numbers.get("forget_quality")
        made, missing = composite.judge(sides[0], sides[1], reference, how, bootstrap, quality)
        numbers |= made
        absent |= missing
    return Judgement({name: numbers[name] for name in sorted(numbers)}, absent, items)


def _told(name: str, table: pa.Table, how: Convention) -> tuple[str, PerItem]:
    """What the answers of a set say that was asked and not scored: MUSE's tasks in MUSE's way."""
    if name in ASKED:
        return f"{name}_ROUGE", metrics.rouge_f1(table)
    return f"{measure.prefix(name)}_Q_A_ROUGE", metrics.rouge(table, how.strip_prompt)["rougeL_recall"]


def _writing(
    sets: Mapping[str, Measured], texts: Mapping[str, pa.Table], items: dict[str, PerItem], absent: dict[str, str]
) -> None:
    """How much of what it wrote repeats itself, and what classifiers say of it, for each set that was asked."""
    asked = {name: measured.generations for name, measured in sets.items() if measured.generations is not None}
    for name, table in {**asked, **texts}.items():
        for what in (FLUENCY, ENTAILMENT):
            if what in table.column_names:
                items[f"{measure.prefix(name)}_{what}"] = metrics.column(table, what)
        metric, found = measure.prefix(name) + _REPEATS, metrics.repetition(table)
        if found.defined.any():
            items[metric] = found
        else:
            absent[metric] = "no answer of five words or more"


def _perplexity(
    sets: Mapping[str, Measured], numbers: dict[str, Number], absent: dict[str, str], bootstrap: Bootstrap
) -> None:
    """Perplexity of general text, where there is a set of it."""
    if GENERAL not in sets:
        absent["general_perplexity"] = "no general set (data.general, with suite own)"
        return
    answers = sets[GENERAL].answers
    interval = bootstrap(metrics.perplexity(answers), [Sample.of(answers.subjects)], None)
    numbers["general_perplexity"] = Number(interval, "worse", facts={"tokens": int(answers.lengths.sum())})


def _side(sets: Mapping[str, Measured], how: Convention) -> composite.Side:
    items = {key: value for name, measured in sets.items() for key, value in _items(name, measured, how).items()}
    _writing(sets, {}, items, {})
    parts, _ = _utility_parts(sets, items)
    return composite.Side(sets, items, parts)


def _excess(
    sets: Mapping[str, Measured],
    items: Mapping[str, PerItem],
    numbers: dict[str, Number],
    absent: dict[str, str],
    bootstrap: Bootstrap,
) -> None:
    """How much more of the forget answers the model has than of holdout answers, which it never saw: 0 is ideal.

    What stands in for an oracle where there is none.
    """
    names = {"forget_excess_Prob": "forget_Q_A_Prob", "forget_excess_extraction": "extraction_strength"}
    if FORGET not in sets or HOLDOUT not in sets:
        absent.update(dict.fromkeys(names, "no holdout set: what a model has of records it never saw is not known"))
        return
    answers = sets[HOLDOUT]
    never = {"forget_excess_Prob": metrics.probability(answers.loss)}
    never["forget_excess_extraction"] = metrics.extraction_strength(answers.answers)
    for name, metric in names.items():
        mine, other = defined(items[metric]), defined(never[name])
        means = [stats.weighted_mean(part.averaged) for part in (mine, other)]

        def difference(
            own: FloatArray, theirs: FloatArray, pair: Sequence[stats.Statistic] = tuple(means)
        ) -> FloatArray:
            return pair[0](own) - pair[1](theirs)

        interval = bootstrap(difference, [Sample.of(mine.subjects), Sample.of(other.subjects)], (-1.0, 1.0))
        counts: dict[str, object] = {"n_forget": len(mine), "n_holdout": len(other)}
        numbers[name] = Number(interval, "worse", "holdout records", facts=counts)


def _items(name: str, measured: Measured, how: Convention) -> dict[str, PerItem]:
    return {} if name == HOLDOUT else per_item(name, measured, how)


def _higher(name: str) -> str:
    if name.endswith("_PERT_Prob"):
        return "neither"
    if name.endswith(f"_{FLUENCY}"):
        return "better"
    return "worse" if name.startswith(_WORSE) or name.endswith(_REPEATS) else "better"


def _utility(
    sets: Mapping[str, Measured],
    items: Mapping[str, PerItem],
    numbers: dict[str, Number],
    absent: dict[str, str],
    bootstrap: Bootstrap,
) -> None:
    """Model utility: the harmonic mean of probability, ROUGE and truth ratio of every set that is to be kept."""
    parts, why = _utility_parts(sets, items)
    if not parts:
        absent["model_utility"] = why
        return
    numbers["model_utility"] = _harmonic(parts, bootstrap)
    published = {name: [*trio[:2], measure.tofu_truth_ratio(sets[name])] for name, trio in parts.items()}
    numbers["model_utility_tofu"] = _harmonic(
        {name: [part for part in trio if part is not None] for name, trio in published.items()}, bootstrap
    )


def _utility_parts(sets: Mapping[str, Measured], items: Mapping[str, PerItem]) -> tuple[dict[str, list[PerItem]], str]:
    """The three metrics of each set that is to be kept; empty with the reason if model utility cannot be had."""
    kept = [name for name in sets if name != HOLDOUT and not name.startswith(FORGET)]
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
            return {}, f"the set '{name}' has no {' and no '.join(missing)}"
    return parts, "" if parts else "no set has probability, ROUGE and truth ratio"


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
