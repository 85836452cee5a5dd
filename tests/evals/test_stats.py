"""Intervals on hand-worked and simulated data: they must cover what they claim to cover."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as scipy_stats

from expunge.evals import stats
from expunge.evals.stats import FloatArray, Interval, Sample

Draw = Callable[[np.random.Generator], tuple[Interval, float]]
"""One simulated experiment: the interval and the truth."""


def alone(count: int) -> Sample:
    return Sample.of([""] * count)


def coverage(draw: Draw, draws: int) -> float:
    hits = 0
    for index in range(draws):
        interval, truth = draw(np.random.default_rng([11, index]))
        hits += interval.low - 1e-12 <= truth <= interval.high + 1e-12
    return hits / draws


def assert_calibrated(share: float, draws: int, low: float = 0.93, high: float = 0.97) -> None:
    """The share lies in the range, give or take 3 standard errors of few draws (none are allowed from 1,000 on)."""
    slack = 0.0 if draws >= 1000 else 3 * math.sqrt(0.95 * 0.05 / draws)
    assert low - slack <= share <= high + slack, share


def test_units_are_subjects_from_eight_on_and_items_below() -> None:
    many = Sample.of([f"s{i // 5}" for i in range(40)])
    assert (many.unit, many.count, many.optimistic, len(many)) == ("clusters", 8, False, 40)
    few = Sample.of([f"s{i // 5}" for i in range(35)])
    assert (few.unit, few.count, few.optimistic) == ("items", 35, True)
    none = Sample.of([""] * 35)
    assert (none.unit, none.count, none.optimistic) == ("items", 35, False)
    own = Sample.of([f"s{i}" for i in range(35)])
    assert (own.unit, own.optimistic) == ("items", False)
    mixed = Sample.of(["a", "a", "", ""], minimum=3)
    assert mixed.units.tolist() == [0, 0, 1, 2]


def test_a_cluster_is_drawn_as_a_whole() -> None:
    sample = Sample.of([f"s{i // 5}" for i in range(40)])
    weights = sample.resampled(50, np.random.default_rng(0))
    assert weights.shape == (50, 40)
    assert (weights.reshape(50, 8, 5) == weights.reshape(50, 8, 5)[:, :, :1]).all()
    assert (weights.sum(1) == 40).all()
    assert sample.leave_one_out().sum(1).tolist() == [35.0] * 8


def test_the_standard_error_of_a_mean_is_the_textbook_s() -> None:
    half = np.random.default_rng(1).normal(size=15)
    values = np.concatenate([half, -half])  # no skew: the interval is Student's
    interval = stats.bootstrap(stats.weighted_mean(values), [alone(30)], resamples=20000)
    assert interval.value == pytest.approx(values.mean(), abs=1e-12)
    assert interval.stderr == pytest.approx(values.std(ddof=1) / math.sqrt(30), rel=0.02)
    low, high = scipy_stats.t.interval(0.95, 29, values.mean(), values.std(ddof=1) / math.sqrt(30))
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.03)
    assert (interval.n, interval.clusters) == (30, 30)


def test_the_seed_decides() -> None:
    values = np.random.default_rng(1).random(20)
    first, again, other = (stats.bootstrap(stats.weighted_mean(values), [alone(20)], seed=s) for s in (0, 0, 1))
    assert first == again
    assert first != other
    assert first.low == pytest.approx(other.low, abs=0.05)


def test_many_small_chunks_are_one_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random(20)
    whole = stats.bootstrap(stats.weighted_mean(values), [alone(20)], resamples=500)
    monkeypatch.setattr(stats, "_CELLS", 64)
    again = stats.bootstrap(stats.weighted_mean(values), [alone(20)], resamples=500)
    assert (again.low, again.high, again.stderr) == pytest.approx((whole.low, whole.high, whole.stderr), rel=1e-12)


def test_no_variation_gives_the_exact_bound_not_a_point() -> None:
    ones = stats.bootstrap(stats.weighted_mean(np.ones(20)), [alone(20)], bounds=(0, 1))
    assert (ones.value, ones.high) == (1.0, 1.0)
    assert ones.low == pytest.approx(0.025 ** (1 / 20))  # Clopper-Pearson for 20 of 20
    half = stats.bootstrap(stats.weighted_mean(np.full(20, 0.5)), [alone(20)], bounds=(0, 1))
    assert half.low == pytest.approx(0.5 * 0.025 ** (1 / 20))
    assert half.high == pytest.approx(1 - half.low)
    unbounded = stats.bootstrap(stats.weighted_mean(np.ones(20)), [alone(20)])
    assert (unbounded.low, unbounded.high) == (1.0, 1.0)


def test_one_item_has_no_interval() -> None:
    interval = stats.bootstrap(stats.weighted_mean(np.array([0.3])), [alone(1)], bounds=(0, 1))
    assert interval.value == pytest.approx(0.3)
    assert math.isnan(interval.low)
    assert math.isnan(interval.stderr)


def test_nan_items_do_not_count() -> None:
    values = np.array([0.2, math.nan, 0.4, 0.6])
    assert stats.weighted_mean(values)(np.array([[1.0, 5.0, 1.0, 2.0]]))[0] == pytest.approx(0.45)


def test_weighted_auc_equals_counting_pairs() -> None:
    rng = np.random.default_rng(2)
    members, others = rng.integers(0, 6, 9).astype(float), rng.integers(2, 8, 7).astype(float)
    weights = rng.integers(0, 4, (5, 9)).astype(float), rng.integers(0, 4, (5, 7)).astype(float)
    found = stats.weighted_auc(members, others)(*weights)
    wins = (members[:, None] < others) + 0.5 * (members[:, None] == others)
    expected = np.einsum("ri,ij,rj->r", weights[0], wins, weights[1]) / (weights[0].sum(1) * weights[1].sum(1))
    assert found == pytest.approx(expected)


def test_ks_distance_equals_scipy_s() -> None:
    rng = np.random.default_rng(3)
    one, two = rng.integers(0, 9, 30).astype(float), rng.integers(2, 12, 50).astype(float)
    assert stats.ks_distance(one, two) == pytest.approx(scipy_stats.ks_2samp(one, two).statistic)
    interval = stats.ks_interval(one, two, [alone(30), alone(50)], resamples=500)
    assert interval.low < interval.value < interval.high


def test_identical_distributions_keep_zero_in_the_interval() -> None:
    values = np.random.default_rng(4).random(40)
    interval = stats.ks_interval(values, values.copy(), [alone(40)], resamples=200)
    assert (interval.value, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_paired_test_is_exact_for_few_units() -> None:
    assert stats.paired_test(np.array([1.0, 2.0, 3.0, 4.0]), [""] * 4) == pytest.approx(2 / 16)
    assert stats.paired_test(np.array([1.0, -1.0]), ["", ""]) == 1.0
    assert math.isnan(stats.paired_test(np.array([]), []))
    clustered = stats.paired_test(np.ones(40), [f"s{i // 5}" for i in range(40)])
    assert clustered == pytest.approx(2 / 2**8)  # eight people say so, not forty items


def test_paired_test_by_sampling_agrees_with_the_exact_one() -> None:
    values = np.random.default_rng(5).normal(0.4, 1.0, 13)
    exact = stats.paired_test(values, [""] * 13)
    more = np.concatenate([values, [0.0]])  # a fourteenth unit that says nothing
    assert stats.paired_test(more, [""] * 14) == pytest.approx(exact, abs=0.02)
    assert stats.paired_test(more, [""] * 14, seed=1) == stats.paired_test(more, [""] * 14, seed=1)


def test_holm_by_hand() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert stats.holm([]) == []
    assert stats.holm([0.9, 0.9]) == [1.0, 1.0]


def clustered_mean(clusters: int, size: int) -> Draw:
    """The mean of bounded, skewed items that share a cluster's level: a logistic of normals, truth by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    truth = float((weights / (1 + np.exp(-(math.sqrt(2) * nodes + 1)))).sum() / math.sqrt(2 * math.pi))

    def draw(rng: np.random.Generator) -> tuple[Interval, float]:
        level = np.repeat(rng.normal(size=clusters), size) + rng.normal(size=clusters * size) + 1
        subjects = [f"s{i // size}" for i in range(clusters * size)]
        statistic = stats.weighted_mean(1 / (1 + np.exp(-level)))
        return stats.bootstrap(statistic, [Sample.of(subjects)], resamples=800, bounds=(0, 1)), truth

    return draw


def paired_difference(clusters: int, size: int) -> Draw:
    """Two models on the same items, the second better by 0.1, people differ in how much."""

    def draw(rng: np.random.Generator) -> tuple[Interval, float]:
        item = rng.normal(size=clusters * size)
        gain = 0.1 + np.repeat(rng.normal(0, 0.2, clusters), size) + rng.normal(0, 0.3, clusters * size)
        subjects = [f"s{i // size}" for i in range(clusters * size)]
        return stats.bootstrap(stats.weighted_mean((item + gain) - item), [Sample.of(subjects)], resamples=800), 0.1

    return draw


def items_mean(count: int) -> Draw:
    """Probabilities of answers, most of them near one end: beta(1, 4)."""

    def draw(rng: np.random.Generator) -> tuple[Interval, float]:
        values = rng.beta(1, 4, count)
        return stats.bootstrap(stats.weighted_mean(values), [alone(count)], resamples=800, bounds=(0, 1)), 0.2

    return draw


def membership(count: int) -> Draw:
    """The AUC of normal scores one standard deviation apart."""

    def draw(rng: np.random.Generator) -> tuple[Interval, float]:
        statistic = stats.weighted_auc(rng.normal(size=count), rng.normal(1.0, 1.0, count))
        interval = stats.bootstrap(statistic, [alone(count), alone(count)], resamples=800, bounds=(0, 1))
        return interval, float(scipy_stats.norm.cdf(1 / math.sqrt(2)))

    return draw


def harmonic(count: int) -> Draw:
    """The harmonic mean of the means of two independent sets."""

    def statistic_of(one: FloatArray, two: FloatArray) -> stats.Statistic:
        means = stats.weighted_mean(one), stats.weighted_mean(two)

        def statistic(first: FloatArray, second: FloatArray) -> FloatArray:
            return np.asarray(2 / (1 / means[0](first) + 1 / means[1](second)))

        return statistic

    def draw(rng: np.random.Generator) -> tuple[Interval, float]:
        statistic = statistic_of(rng.beta(4, 4, count), rng.beta(2, 6, 2 * count))
        interval = stats.bootstrap(statistic, [alone(count), alone(2 * count)], resamples=800, bounds=(0, 1))
        return interval, 2 / (1 / 0.5 + 1 / 0.25)

    return draw


CALIBRATED = {
    "8 clusters": clustered_mean(8, 20),
    "20 clusters": clustered_mean(20, 20),
    "paired, 10 clusters": paired_difference(10, 20),
    "40 items": items_mean(40),
    "auc, 60 each": membership(60),
    "harmonic mean": harmonic(40),
}


@pytest.mark.parametrize("name", CALIBRATED)
def test_intervals_cover_what_they_claim(name: str) -> None:
    assert_calibrated(coverage(CALIBRATED[name], 150), 150)


@pytest.mark.slow
@pytest.mark.parametrize("name", CALIBRATED)
def test_intervals_cover_what_they_claim_over_a_thousand_draws(name: str) -> None:
    assert_calibrated(coverage(CALIBRATED[name], 1000), 1000)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "shift"), [(40, 0.0), (40, 0.5), (200, 0.2)])
def test_ks_intervals_cover_at_least_what_they_claim(count: int, shift: float) -> None:
    def draw(rng: np.random.Generator) -> tuple[Interval, float]:
        one, two = rng.normal(size=count), rng.normal(shift, 1.0, count)
        truth = 2 * float(scipy_stats.norm.cdf(shift / 2)) - 1
        return stats.ks_interval(one, two, [alone(count)], resamples=400), truth

    assert coverage(draw, 400) >= 0.93


@pytest.mark.slow
def test_items_of_few_people_taken_as_independent_are_indeed_optimistic() -> None:
    assert coverage(clustered_mean(4, 20), 300) < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [8, 20])
def test_equal_models_are_told_apart_as_rarely_as_promised(clusters: int) -> None:
    rejected = 0
    subjects = [f"s{i // 10}" for i in range(10 * clusters)]
    for index in range(1000):
        rng = np.random.default_rng([13, index])
        differences = np.repeat(rng.normal(size=clusters), 10) + rng.normal(size=10 * clusters)
        rejected += stats.paired_test(differences, subjects, resamples=1000) <= 0.05
    assert 30 <= rejected <= 70


def rejected(draws: int, shift: float, count: int = 40) -> float:
    """The share of simulated comparisons of models that differ by `shift` in which they are told apart."""
    hits = 0
    for index in range(draws):
        differences = shift + np.random.default_rng([17, index]).normal(size=count)
        hits += stats.paired_test(differences, [""] * count, resamples=400) <= 0.05
    return hits / draws


def test_equal_models_are_told_apart_in_one_case_of_twenty() -> None:
    assert_calibrated(1 - rejected(200, 0.0), 200)


def test_the_detectable_difference_by_hand() -> None:
    # 8 units of variance 2 in all: Student's quantiles of 7 degrees of freedom are 2.3646 and 0.8960
    assert stats.minimum_detectable([(2.0, 7)]) == pytest.approx((2.3646 + 0.8960) * math.sqrt(2), rel=1e-4)
    assert math.isnan(stats.minimum_detectable([]))
    differences = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert stats.difference_parts(differences, [""] * 4) == [(pytest.approx(5 / 3 / 4), 3.0)]
    assert stats.difference_parts(differences[:, :1], [""]) == []


def test_a_difference_of_the_detectable_size_is_found_four_times_out_of_five() -> None:
    shift = stats.minimum_detectable([(1 / 40, 39)])
    share = rejected(200, shift)
    assert 0.8 - 3 * math.sqrt(0.16 / 200) <= share <= 0.8 + 3 * math.sqrt(0.16 / 200)


@pytest.mark.slow
def test_the_power_over_a_thousand_draws() -> None:
    shift = stats.minimum_detectable([(1 / 40, 39)])
    assert 0.76 <= rejected(1000, shift) <= 0.84
    assert 0.03 <= rejected(1000, 0.0) <= 0.07
