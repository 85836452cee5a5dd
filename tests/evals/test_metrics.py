"""Each metric on numbers worked by hand, and against loops written from its definition."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
from scipy import stats as scipy_stats

from expunge.errors import DataError
from expunge.evals import metrics as m
from expunge.evals.metrics import PerItem
from tests.evals import tiny

HALF, QUARTER = math.log(0.5), math.log(0.25)


def item(*values: float) -> PerItem:
    return PerItem(tuple(map(str, range(len(values)))), ("",) * len(values), np.array(values, dtype=np.float64))


def test_probability_is_the_geometric_mean_with_the_end_token() -> None:
    view = tiny.answers([[HALF, HALF, QUARTER], [0.0]])
    loss = m.average_loss(view)
    assert loss.values == pytest.approx([-(2 * HALF + QUARTER) / 3, 0.0])
    assert m.probability(loss).values == pytest.approx([2 ** (-4 / 3), 1.0])
    assert m.average_loss(view, eos=False).values[0] == pytest.approx(-HALF)


def test_an_answer_without_a_token_is_undefined_and_left_out_of_the_mean() -> None:
    loss = m.average_loss(tiny.answers([[], [HALF, HALF]]))
    assert math.isnan(loss.values[0])
    assert loss.aggregate == pytest.approx(-HALF)
    assert math.isnan(m.average_loss(tiny.answers([[]])).aggregate)
    assert loss.defined.tolist() == [False, True]


def test_options_share_the_probability() -> None:
    share = m.probability_with_options(item(-HALF), [item(-QUARTER), item(-QUARTER)])
    assert share.values == pytest.approx([0.5])
    tiny_ones = m.probability_with_options(item(2000.0), [item(2001.0)])
    assert tiny_ones.values == pytest.approx([1 / (1 + math.exp(-1))])  # no underflow: losses, not probabilities
    assert m.probability_with_options(item(2000.0), [item(2001.0)], epsilon=1e-10).values == pytest.approx([0.0])


def test_an_item_with_fewer_options_uses_those_it_has() -> None:
    second = PerItem(("1",), ("",), np.array([-QUARTER]))
    shares = m.probability_with_options(item(-HALF, -HALF), [item(-QUARTER, -QUARTER), second])
    assert shares.values == pytest.approx([0.5 / 0.75, 0.5])
    ratios = m.truth_ratio(item(-HALF, -HALF), [item(-QUARTER, -QUARTER), second])
    assert ratios.values == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(
    ("form", "value", "aggregate"),
    [
        ("closer_to_1", 0.125 / 0.5, 0.25),  # geometric mean of 1/4 and 1/16 is 1/8
        ("true_better", 0.25, 0.75),
        ("prob_mean", 0.5 / (0.5 + 0.125), 0.8),
        ("tofu_forget", 4.0, 0.25),
        ("tofu_utility", (0.25 + 0.0625) / 2 / 0.5, 1 - 0.3125),  # arithmetic mean
    ],
)
def test_every_published_truth_ratio_by_name(form: str, value: float, aggregate: float) -> None:
    found = m.truth_ratio(item(-HALF), [item(-QUARTER), item(-2 * QUARTER)], form)
    assert found.values == pytest.approx([value])
    assert found.aggregate == pytest.approx(aggregate)


def test_truth_ratio_above_one_counts_by_its_inverse_or_not_at_all() -> None:
    likely_wrong = [item(-HALF)]
    assert m.truth_ratio(item(-QUARTER), likely_wrong, "closer_to_1").aggregate == pytest.approx(0.5)
    assert m.truth_ratio(item(-QUARTER), likely_wrong, "true_better").aggregate == 0.0


def test_the_peer_s_epsilon_matters_where_answers_are_unlikely() -> None:
    right, wrong = item(20.0), [item(19.0)]  # probabilities around 1e-9
    ours = m.truth_ratio(right, wrong).values[0]
    theirs = m.truth_ratio(right, wrong, epsilon=m.PEER_EPSILON).values[0]
    assert ours == pytest.approx(math.e)
    assert theirs == pytest.approx(math.exp(-19) / (math.exp(-20) + 1e-10))
    assert abs(ours - theirs) > 0.1


def test_an_unknown_form_is_refused_with_a_suggestion() -> None:
    with pytest.raises(DataError, match="Did you mean: closer_to_1"):
        m.truth_ratio(item(1.0), [item(1.0)], "closer_to1")


def test_exact_memorization_counts_arg_maxes_without_the_end_token() -> None:
    view = tiny.answers([[-1.0] * 4, [-1.0], []], top1=[[True, False, True, False], [True], []])
    found = m.exact_memorization(view)
    assert found.values[0] == pytest.approx(2 / 3)
    assert np.isnan(found.values[1:]).all()
    assert m.exact_memorization(view, eos=True).values[0] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("top1", "strength", "floored"),
    [
        ([True, True, True], 1.0, 1.0),
        ([False, True, True], 2 / 3, 2 / 3),
        ([True, False, True], 1 / 3, 1 / 3),
        ([True, True, False], 0.0, 1 / 3),  # the peer's loop never looks at the last token
        ([False, False, False], 0.0, 1 / 3),
    ],
)
def test_extraction_strength_is_the_longest_right_suffix(top1: list[bool], strength: float, floored: float) -> None:
    view = tiny.answers([[-1.0] * 4], top1=[[*top1, False]])
    assert m.extraction_strength(view).values[0] == pytest.approx(strength)
    assert m.extraction_strength(view, floor=True).values[0] == pytest.approx(floored)


def test_extraction_strength_of_nothing() -> None:
    view = tiny.answers([[], [-1.0]])
    assert np.isnan(m.extraction_strength(view).values).all()
    assert m.extraction_strength(view, floor=True).values.tolist() == [0.0, 0.0]


def test_min_k_averages_the_least_likely_tokens() -> None:
    view = tiny.answers([[-1.0, -5.0, -3.0, -2.0, -4.0, -99.0]])
    assert m.min_k(view, k=0.4).values[0] == pytest.approx(4.5)
    assert m.min_k(view, k=0.1).values[0] == pytest.approx(5.0)  # at least one token
    assert m.min_k(view, k=1.0).values[0] == pytest.approx(3.0)
    assert m.min_k(view, k=0.4, eos=True).values[0] == pytest.approx(52.0)
    with pytest.raises(DataError, match=r"found 40"):
        m.min_k(view, k=40)


def test_min_k_of_nothing_is_undefined_here_and_zero_in_the_peer() -> None:
    view = tiny.answers([[-1.0]])
    assert math.isnan(m.min_k(view).values[0])
    assert m.min_k(view, empty=0.0).values.tolist() == [0.0]
    assert m.min_k_plus_plus(view, empty=0.0).values.tolist() == [0.0]


def test_min_k_plus_plus_standardises_each_token() -> None:
    view = tiny.answers([[-3.0, -1.0, 0.0]], entropy=[[1.0, 1.0, 0.0]], second_moment=[[5.0, 1.0, 0.0]])
    # first token: (-3 + 1) / sqrt(5 - 1) = -1; second: 0 / sqrt(1e-6) = 0
    assert m.min_k_plus_plus(view, k=0.4).values[0] == pytest.approx(1.0)
    assert m.min_k_plus_plus(view, k=1.0).values[0] == pytest.approx(0.5)


def test_zlib_and_reference_scores() -> None:
    text = "abc" * 20
    assert m.zlib_score(item(2.0), [text]).values[0] == pytest.approx(2.0 / len(zlib.compress(text.encode())))
    shuffled = PerItem(("1", "0"), ("", ""), np.array([5.0, 7.0]))
    assert m.reference_score(item(1.0, 2.0), shuffled).values.tolist() == [-6.0, -3.0]
    assert math.isnan(m.reference_score(item(1.0, 2.0), item(1.0)).values[1])


def test_auc_is_one_for_exposed_members_and_counts_ties_half() -> None:
    assert m.auc(item(1.0, 2.0), item(3.0, 4.0)) == 1.0
    assert m.auc(item(3.0, 4.0), item(1.0, 2.0)) == 0.0
    assert m.auc(item(1.0, 3.0), item(1.0, 2.0)) == pytest.approx((0.5 + 1 + 0 + 0) / 4)
    assert m.auc(item(math.nan, 1.0), item(2.0)) == 1.0
    assert math.isnan(m.auc(item(math.nan), item(2.0)))


def test_privleak_and_rel_diff() -> None:
    assert m.privleak(0.72, 0.51) == pytest.approx((0.51 - 0.72) / 0.49 * 100)
    assert m.privleak(0.5, 0.5) == 0.0
    assert math.isnan(m.privleak(0.5, 1.0))
    assert m.rel_diff(0.3, 0.6) == pytest.approx(-50.0)
    assert math.isnan(m.rel_diff(0.3, 0.0))


def test_forget_quality_is_a_two_sample_test() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.random(30), rng.random(40) + 0.2
    expected = scipy_stats.ks_2samp(one, two)
    found = m.forget_quality(item(*one), item(*two, math.nan))
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue)


@pytest.mark.parametrize(("d", "n", "p"), [(0.0675, 400, 0.322), (0.085, 400, 0.111), (0.1, 40, 0.990), (0.0, 40, 1.0)])
def test_the_p_value_of_a_distance(d: float, n: int, p: float) -> None:
    assert m.ks_p(d, n, n) == pytest.approx(p, abs=6e-4)


def test_the_p_value_of_unequal_samples_is_close_to_scipy_s() -> None:
    rng = np.random.default_rng(1)
    one, two = rng.random(300), rng.random(200)
    expected = scipy_stats.ks_2samp(one, two)
    assert m.ks_p(expected.statistic, 300, 200) == pytest.approx(expected.pvalue, rel=0.1)


def test_harmonic_mean() -> None:
    assert m.harmonic_mean([1.0, 0.5]) == pytest.approx(2 / 3)
    assert m.harmonic_mean([0.5, 0.0, 0.9]) == 0.0
    assert math.isnan(m.harmonic_mean([0.5, math.nan]))
    assert math.isnan(m.harmonic_mean([]))


def test_rouge_by_hand() -> None:
    table = tiny.generations(
        [("a", "one two three four five six", "six five four three two one"), ("b", "the running dogs", "the dog runs")]
    )
    found = m.rouge(table)
    assert found["rouge1_recall"].values == pytest.approx([1.0, 1.0])  # stems: run, dog
    assert found["rougeL_recall"].values == pytest.approx([1 / 6, 2 / 3])
    assert found["rougeL_f1"].values == pytest.approx([1 / 6, 2 / 3])


def test_rouge_keeps_the_prompt_s_words_in_the_answer_unless_asked() -> None:
    table = tiny.generations([("a", "question a is easy", "easy")])
    assert m.rouge(table)["rougeL_recall"].values[0] == pytest.approx(0.25)
    assert m.rouge(table, strip_prompt=True)["rougeL_recall"].values[0] == pytest.approx(0.5)


def naive_strength(right: list[bool]) -> float:
    return 1 - next(k for k in range(len(right) + 1) if all(right[k:])) / len(right)


def test_the_table_lm_re_derived_with_plain_loops() -> None:
    lm = tiny.TableLM.random(3)
    rng = np.random.default_rng(4)
    items = []
    for _ in range(12):
        length = int(rng.integers(3, 11))
        ids = [1, *rng.integers(3, 16, length - 1).tolist(), 2]
        start = int(rng.integers(1, length - 1))
        items.append({"input_ids": ids, "labels": [-100] * start + ids[start:]})
    view = lm.answers(items)
    found = {
        "prob": m.probability(m.average_loss(view)).values,
        "em": m.exact_memorization(view).values,
        "es": m.extraction_strength(view).values,
        "min_k": m.min_k(view, 0.4).values,
        "plus": m.min_k_plus_plus(view, 0.4).values,
    }
    for index, entry in enumerate(items):
        rows = lm.rows(entry["input_ids"], entry["labels"])
        logp = [float(row[label]) for row, label in rows]
        assert found["prob"][index] == pytest.approx(math.exp(math.fsum(logp) / len(logp)), rel=1e-12)
        right = [int(row.argmax()) == label for row, label in rows[:-1]]
        assert found["em"][index] == pytest.approx(sum(right) / len(right), rel=1e-12)
        assert found["es"][index] == pytest.approx(naive_strength(right), rel=1e-12, abs=1e-15)
        count = max(1, int(len(right) * 0.4))
        assert found["min_k"][index] == pytest.approx(-math.fsum(sorted(logp[:-1])[:count]) / count, rel=1e-12)
        standard = []
        for row, label in rows[:-1]:
            mean = math.fsum(np.exp(row) * row)
            deviation = math.sqrt(math.fsum(np.exp(row) * (row - mean) ** 2))
            standard.append((float(row[label]) - mean) / deviation)
        assert found["plus"][index] == pytest.approx(-math.fsum(sorted(standard)[:count]) / count, rel=1e-9)


def test_a_set_may_mix_questions_with_bare_texts() -> None:
    everything = PerItem(("q", "t"), ("s", "s"), np.array([0.5, 0.25]))
    only_q = PerItem(("q",), ("s",), np.array([2.0]), np.array([0.5]))
    spread = m.over(only_q, everything)
    assert spread.ids == ("q", "t")
    np.testing.assert_array_equal(spread.values, [2.0, np.nan])
    np.testing.assert_array_equal(spread.averaged, [0.5, np.nan])
    assert spread.aggregate == 0.5
    assert m.over(everything, everything) is everything


def test_repetition_is_the_share_of_runs_written_before() -> None:
    table = tiny.generations([("a", "", "x y z w x y z w x"), ("b", "", "one two three four five"), ("c", "", "no no")])
    found = m.repetition(table)  # runs xyzw yzwx zwxy wxyz xyzw yzwx: two of six
    assert found.values == pytest.approx([1 / 3, 0.0, math.nan], nan_ok=True)
    assert found.aggregate == pytest.approx(1 / 6)


def test_perplexity_weighs_tokens_not_items() -> None:
    statistic = m.perplexity(tiny.answers([[HALF, HALF, HALF], [math.log(1 / 32)], []]))
    assert statistic(np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0], [0.0, 0.0, 1.0]])) == pytest.approx(
        [4.0, 32.0, math.nan], nan_ok=True
    )
