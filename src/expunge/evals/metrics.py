"""What a score or generation table says, as one number an item and one in all. Pure numpy: no model, no torch.

Names and defaults are those of OpenUnlearning where it has the metric. Where its code departs from its definition, the
definition is the default here and its number a named option (`epsilon=1e-10`, `floor=True`, `strip_prompt=True`);
docs/evaluation.md lists them.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import special, stats

from expunge.errors import DataError, unknown
from expunge.evals.stats import Statistic, ks_distance, weighted_auc
from expunge.evals.table import GENERATIONS, Answers, check

FloatArray = npt.NDArray[np.float64]
PEER_EPSILON = 1e-10
"""What OpenUnlearning adds to denominators. Harmless beside 1, not beside a probability of 1e-5."""
_RUN = 4


@dataclass(frozen=True)
class PerItem:
    """A number for each item: `values` (n,) float64, NaN where the metric is not defined for the item.

    `terms` (n,) is what the aggregate averages where that is not `values` itself (truth ratios).
    """

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    values: FloatArray
    terms: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def averaged(self) -> FloatArray:
        """(n,) what the aggregate averages."""
        return self.values if self.terms is None else self.terms

    @property
    def defined(self) -> npt.NDArray[np.bool_]:
        """(n,) True where the item counts."""
        return ~np.isnan(self.averaged)

    @property
    def aggregate(self) -> float:
        """The mean over the items for which the metric is defined; NaN if there is none."""
        return float(self.averaged[self.defined].mean()) if self.defined.any() else math.nan


def average_loss(answers: Answers, eos: bool = True) -> PerItem:
    """Mean negative log-likelihood of an answer in nats a token; NaN without a scored token.

    As published, the token that ends the answer counts; `eos=False` leaves it out.
    """
    part = answers if eos else answers.without_eos()
    return _each(part, lambda s: -float(part.logp[s].mean()))


def probability(loss: PerItem) -> PerItem:
    """exp(-loss): the geometric mean of the answer's token probabilities, in [0, 1]."""
    return replace(loss, values=np.exp(-loss.values))


def probability_with_options(correct: PerItem, wrong: Sequence[PerItem], epsilon: float = 0.0) -> PerItem:
    """The right answer's share of the length-normalised probability of all options, from their losses; in [0, 1]."""
    right = np.exp(-correct.values)
    others = np.nansum(np.exp(-_aligned(correct, wrong)), axis=1)
    if epsilon:
        return replace(correct, values=right / (right + others + epsilon))
    losses = np.concatenate([correct.values[:, None], _aligned(correct, wrong)], axis=1)
    total = special.logsumexp(-np.where(np.isnan(losses), np.inf, losses), axis=1)
    return replace(correct, values=np.exp(-correct.values - total))


@dataclass(frozen=True)
class TruthRatioForm:
    """One published truth ratio: how wrong answers are averaged, what an item's value is, what is averaged over items.

    `wrong='geometric'` is exp(-mean loss), `'arithmetic'` the mean probability. `value`: the ratio wrong / right,
    its inverse, or right's share right / (right + wrong). `term` of the ratio R: min(R, 1 / R), max(0, 1 - R) or R.
    """

    wrong: Literal["geometric", "arithmetic"]
    value: Literal["ratio", "inverse", "share"]
    term: Literal["closer_to_1", "true_better", "value"]


TRUTH_RATIOS: Mapping[str, TruthRatioForm] = {
    "closer_to_1": TruthRatioForm("geometric", "ratio", "closer_to_1"),
    "true_better": TruthRatioForm("geometric", "ratio", "true_better"),
    "prob_mean": TruthRatioForm("geometric", "share", "value"),
    "tofu_forget": TruthRatioForm("geometric", "inverse", "closer_to_1"),
    "tofu_utility": TruthRatioForm("arithmetic", "ratio", "true_better"),
}
"""closer_to_1: forget sets, OpenUnlearning. true_better: retain sets, OpenUnlearning. prob_mean: its meta-evaluation.
tofu_forget: what TOFU's own code feeds to its KS test, 1 / R (same KS). tofu_utility: what TOFU's own code puts into
model utility, with the arithmetic mean of the wrong answers; not comparable with OpenUnlearning's model utility."""


def truth_ratio(correct: PerItem, wrong: Sequence[PerItem], form: str = "closer_to_1", epsilon: float = 0.0) -> PerItem:
    """How likely the wrong answers are beside a right one, from their losses, in one of the forms `TRUTH_RATIOS`.

    Computed from differences of losses, so that no epsilon is needed; `epsilon=1e-10` gives OpenUnlearning's numbers.
    """
    if form not in TRUTH_RATIOS:
        raise DataError(unknown("truth ratio", form, TRUTH_RATIOS))
    how = TRUTH_RATIOS[form]
    losses = _aligned(correct, wrong)
    with np.errstate(over="ignore", divide="ignore"):
        if how.wrong == "geometric":
            mean_loss = _row_mean(losses)
        else:
            there = ~np.isnan(losses)
            some = there.any(1)
            total = special.logsumexp(-np.where(there, losses, np.inf)[some], axis=1)
            mean_loss = np.full(len(losses), math.nan)
            mean_loss[some] = np.log(there[some].sum(1)) - total
        if epsilon:
            right, mean = np.exp(-correct.values), np.exp(-mean_loss)
            ratio, inverse, share = mean / (right + epsilon), right / mean, right / (right + mean + epsilon)
            below = np.minimum(ratio, 1 / (ratio + epsilon))
        else:
            log_ratio = correct.values - mean_loss
            ratio, inverse, share = np.exp(log_ratio), np.exp(-log_ratio), special.expit(-log_ratio)
            below = np.exp(-np.abs(log_ratio))
    values = {"ratio": ratio, "inverse": inverse, "share": share}[how.value]
    terms = {"closer_to_1": below, "true_better": np.maximum(0.0, 1 - ratio), "value": values}[how.term]
    return replace(correct, values=values, terms=np.where(np.isnan(values), np.nan, terms))


def exact_memorization(answers: Answers, eos: bool = False) -> PerItem:
    """Share of the answer's tokens that are the arg max given the true tokens before them; in [0, 1].

    As published, the token that ends the answer does not count. NaN for an answer without a token (published too).
    """
    part = answers if eos else answers.without_eos()
    return _each(part, lambda s: float(part.top1[s].mean()))


def extraction_strength(answers: Answers, eos: bool = False, floor: bool = False) -> PerItem:
    """1 - k / n: n tokens, and k the shortest prefix after which every arg max is right; in [0, 1].

    0 if the last token is wrong. As published, the token that ends the answer does not count. `floor=True` gives
    OpenUnlearning's numbers, whose loop stops at k = n - 1 whether or not the last token is right (never below 1 / n),
    and 0 for an answer without a token; here that is NaN.
    """
    part = answers if eos else answers.without_eos()

    def strength(s: slice) -> float:
        right = part.top1[s]
        wrong = np.flatnonzero(~right)
        suffix = len(right) - (int(wrong[-1]) + 1 if len(wrong) else 0)
        return max(suffix, 1 if floor else 0) / len(right)

    return _each(part, strength, empty=0.0 if floor else math.nan)


def zlib_score(loss: PerItem, texts: Sequence[str]) -> PerItem:
    """Loss in nats a token over the length in bytes of the zlib-compressed answer; low for members."""
    sizes = np.array([len(zlib.compress(text.encode("utf-8"))) for text in texts], dtype=np.float64)
    return replace(loss, values=loss.values / sizes)


def min_k(answers: Answers, k: float = 0.4, eos: bool = False, empty: float = math.nan) -> PerItem:
    """Minus the mean log-probability of the `k` share of tokens that are least likely (one at least); low for members.

    As published, the token that ends the answer does not count. `empty` is the score of an answer without a token:
    undefined here, 0 in OpenUnlearning.
    """
    part = answers if eos else answers.without_eos()
    return _each(part, lambda s: _lowest(part.logp[s], k), empty)


def min_k_plus_plus(answers: Answers, k: float = 0.4, eos: bool = False, empty: float = math.nan) -> PerItem:
    """Min-k of log-probabilities standardised by the mean and deviation of log p under the model itself.

    The variance is at least 1e-6 (as in OpenUnlearning): where the model is certain, the quotient means nothing.
    """
    part = answers if eos else answers.without_eos()
    variance = part.second_moment - part.entropy**2
    standard = (part.logp + part.entropy) / np.sqrt(np.maximum(variance, 1e-6))
    return _each(part, lambda s: _lowest(standard[s], k), empty)


def gradient_norm(answers: Answers) -> PerItem | None:
    """The norms of the loss's gradient that the table has, low for members; None if it has none."""
    return None if answers.grad_norm is None else PerItem(answers.ids, answers.subjects, answers.grad_norm)


def reference_score(loss: PerItem, reference: PerItem) -> PerItem:
    """Loss minus the reference model's loss on the same answers, in nats a token; low for members."""
    return replace(loss, values=loss.values - _aligned(loss, [reference])[:, 0])


def auc(members: PerItem, others: PerItem) -> float:
    """Probability that a member (forget) scores below a non-member (holdout), ties counted half; 1: fully exposed."""
    inside, outside = members.values[members.defined], others.values[others.defined]
    if not len(inside) or not len(outside):
        return math.nan
    return float(weighted_auc(inside, outside)(np.ones((1, len(inside))), np.ones((1, len(outside))))[0])


def privleak(score: float, reference: float, epsilon: float = 0.0) -> float:
    """((1 - s) - (1 - r)) / (1 - r) * 100 for min-k AUCs s of the model, r of the oracle; 0 is ideal, negative: leaks.

    NaN if the oracle's AUC is 1, which makes it undefined. `epsilon=1e-10` gives OpenUnlearning's numbers.
    """
    room = 1 - reference + epsilon
    return (reference - score) / room * 100 if room else math.nan


def rel_diff(score: float, reference: float, epsilon: float = 0.0) -> float:
    """(s - r) / r * 100; NaN if the reference is 0. `epsilon=1e-10` gives OpenUnlearning's numbers."""
    base = reference + epsilon
    return (score - reference) / base * 100 if base else math.nan


@dataclass(frozen=True)
class KS:
    """Two-sample Kolmogorov-Smirnov: the distance D, and the p-value of 'both come from one distribution'."""

    statistic: float
    p: float


def forget_quality(ratios: PerItem, reference: PerItem) -> KS:
    """How far the truth ratios of the model are from the oracle's. Report D as well as p: p lives on a grid of D."""
    mine, theirs = ratios.values[ratios.defined], reference.values[reference.defined]
    if not len(mine) or not len(theirs):
        return KS(math.nan, math.nan)
    return KS(ks_distance(mine, theirs), float(stats.ks_2samp(mine, theirs).pvalue))


def ks_p(statistic: float, n: int, m: int) -> float:
    """The two-sided p-value of a KS distance between samples of n and m items (asymptotic above 10,000, as scipy)."""
    ladder = np.arange(n, dtype=np.float64)
    shift = round(statistic * n)
    if n == m:
        return float(stats.ks_2samp(ladder, ladder + shift).pvalue)
    return float(stats.kstwo.sf(statistic, max(1, round(n * m / (n + m)))))


def harmonic_mean(values: Sequence[float]) -> float:
    """The harmonic mean; 0 if a value is 0, NaN if one is NaN. Model utility is that of nine numbers in [0, 1].

    >>> round(harmonic_mean([0.9, 0.8, 0.5]), 4)
    0.6879
    """
    array = np.asarray(values, dtype=np.float64)
    if not len(array) or np.isnan(array).any():
        return math.nan
    return 0.0 if (array <= 0).any() else float(len(array) / (1 / array).sum())


ROUGE_NAMES = ("rouge1_recall", "rougeL_f1", "rougeL_recall")


def rouge(table: pa.Table, strip_prompt: bool = False) -> dict[str, PerItem]:
    """ROUGE-1 recall, ROUGE-L F1 and recall of each generation against the right answer, with the Porter stemmer.

    Letters outside a-z do not count (the rouge-score library's tokenizer): an answer in another script scores 0.
    `strip_prompt=True` gives OpenUnlearning's numbers, which removes every occurrence of the prompt's text from the
    right answer first.
    """
    from rouge_score.rouge_scorer import RougeScorer

    check(table, GENERATIONS, "generation table")
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    values = np.zeros((table.num_rows, len(ROUGE_NAMES)))
    columns = (table.column(name).to_pylist() for name in ("prompt", "reference", "generation"))
    for index, (prompt, reference, generation) in enumerate(zip(*columns, strict=True)):
        truth = reference.replace(prompt, "").strip() if strip_prompt and prompt else reference
        scores = scorer.score(truth, generation)
        values[index] = scores["rouge1"].recall, scores["rougeL"].fmeasure, scores["rougeL"].recall
    ids, subjects = (tuple(table.column(name).to_pylist()) for name in ("id", "subject"))
    return {name: PerItem(ids, subjects, values[:, column]) for column, name in enumerate(ROUGE_NAMES)}


def rouge_f1(table: pa.Table) -> PerItem:
    """ROUGE-L F1 of each generation against the right answer, without a stemmer: MUSE's memorisation scores."""
    from rouge_score.rouge_scorer import RougeScorer

    check(table, GENERATIONS, "generation table")
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pairs = zip(table.column("reference").to_pylist(), table.column("generation").to_pylist(), strict=True)
    values = np.array([scorer.score(truth, text)["rougeL"].fmeasure for truth, text in pairs], dtype=np.float64)
    ids, subjects = (tuple(table.column(name).to_pylist()) for name in ("id", "subject"))
    return PerItem(ids, subjects, values)


def column(table: pa.Table, name: str) -> PerItem:
    """What a classifier said of each generation, as far as the table has it."""
    check(table, GENERATIONS, "generation table")
    ids, subjects = (tuple(table.column(key).to_pylist()) for key in ("id", "subject"))
    return PerItem(ids, subjects, np.array(table.column(name).to_pylist(), np.float64))


def repetition(table: pa.Table) -> PerItem:
    """`repeated` of each generation."""
    check(table, GENERATIONS, "generation table")
    ids, subjects = (tuple(table.column(name).to_pylist()) for name in ("id", "subject"))
    return PerItem(ids, subjects, np.array([repeated(text) for text in table.column("generation").to_pylist()]))


def repeated(text: str) -> float:
    """The share of a text's runs of four words that it has written before; NaN for fewer than five words.

    >>> repeated("a b c d a b c d"), repeated("a b c d e f g h"), repeated("a b c d")
    (0.2, 0.0, nan)
    """
    words = text.split()
    runs = [tuple(words[i : i + _RUN]) for i in range(len(words) - _RUN + 1)]
    return (len(runs) - len(set(runs))) / len(runs) if len(runs) >= 2 else math.nan


def perplexity(answers: Answers) -> Statistic:
    """The statistic exp(summed negative log-likelihood / tokens) of the items, the end tokens counted."""
    sums = np.array([-answers.logp[a:b].sum() for a, b in itertools.pairwise(answers.offsets.tolist())])

    def statistic(weights: FloatArray) -> FloatArray:
        tokens = weights @ answers.lengths
        losses = np.divide(weights @ sums, tokens, out=np.full(len(tokens), np.nan), where=tokens > 0)
        return np.asarray(np.exp(losses))

    return statistic


def over(item: PerItem, all_items: PerItem) -> PerItem:
    """`item` with a row for each of `all_items`, NaN where it has none: a set may mix questions with bare texts."""
    if item.ids == all_items.ids:
        return item
    terms = None if item.terms is None else _aligned(all_items, [PerItem(item.ids, item.subjects, item.terms)])[:, 0]
    return PerItem(all_items.ids, all_items.subjects, _aligned(all_items, [item])[:, 0], terms)


def _each(answers: Answers, value: Callable[[slice], float], empty: float = math.nan) -> PerItem:
    bounds = answers.offsets.tolist()
    values = [value(slice(start, stop)) if stop > start else empty for start, stop in itertools.pairwise(bounds)]
    return PerItem(answers.ids, answers.subjects, np.array(values, dtype=np.float64))


def _lowest(values: FloatArray, k: float) -> float:
    if not 0 < k <= 1:
        raise DataError(f"min-k: k must be a share of the tokens in (0, 1], found {k}")
    count = max(1, int(len(values) * k))
    return -float(np.partition(values, count - 1)[:count].mean())


def _aligned(items: PerItem, others: Sequence[PerItem]) -> FloatArray:
    """(n, len(others)) values of the same ids; NaN where one lacks the id."""
    columns = []
    for other in others:
        found = dict(zip(other.ids, other.values.tolist(), strict=True))
        columns.append([found.get(name, math.nan) for name in items.ids])
    matrix: FloatArray = np.array(columns, dtype=np.float64).reshape(len(others), len(items)).T
    return matrix


def _row_mean(values: FloatArray) -> FloatArray:
    count = (~np.isnan(values)).sum(1)
    mean: FloatArray = np.divide(np.nansum(values, axis=1), count, out=np.full(len(values), np.nan), where=count > 0)
    return mean
