"""Rankings of units against labels: hand-worked values, an independent twin, coverage of the intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from expunge.evals import ranking
from expunge.evals.ranking import Counts, Reliability, Units
from expunge.evals.stats import FloatArray, Sample, Statistic, bootstrap


def units(scores: list[list[float]], marks: list[str], weights: list[list[float]] | None = None) -> Units:
    """Units from scores and '1'/'0' marks, a list a record."""
    record = [i for i, row in enumerate(scores) for _ in row]
    return Units(
        np.array(record, np.int64),
        np.array([mark == "1" for row in marks for mark in row]),
        np.array([s for row in scores for s in row]),
        np.array([w for row in weights or scores for w in row]),
        tuple(f"s{i}" for i in range(len(scores))),
    )


def value(statistic: Statistic, records: int) -> float:
    return float(statistic(np.ones((1, records)))[0])


def naive_auc(found: Units) -> float:
    inside, outside = found.score[found.informative], found.score[~found.informative]
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in inside for b in outside]
    return sum(wins) / len(wins)


def naive_precision(found: Units) -> float:
    """Threshold by threshold, as the definition has it."""
    total, before, out = found.informative.sum(), 0.0, 0.0
    for threshold in sorted(set(found.score), reverse=True):
        taken = found.score >= threshold
        recall = found.informative[taken].sum() / total
        out += (recall - before) * found.informative[taken].mean()
        before = recall
    return out


def test_auc_and_precision_by_hand() -> None:
    """Scores 4+ 3- 2+ | 2- 1-: pairs won 3 + 2 + 0.5 of 6; precision 1 at the first, 2/4 where 2+ and 2- tie."""
    found = units([[4, 3, 2], [2, 1]], ["101", "00"])
    counts = Counts.of(found)
    assert value(ranking.auc(counts), 2) == pytest.approx((3 + 1 + 0.5) / 6)
    assert value(ranking.average_precision(counts), 2) == pytest.approx((1 + 2 / 4) / 2)
    assert ranking.auc_by_record(found)[0] == pytest.approx(0.5)
    assert math.isnan(ranking.auc_by_record(found)[1])


def test_agrees_with_the_definition_on_random_units() -> None:
    rng = np.random.default_rng(0)
    scores = [rng.integers(0, 6, 9).astype(float).tolist() for _ in range(7)]
    marks = ["".join(rng.choice(["0", "1"], 9)) for _ in range(7)]
    found = units(scores, marks)
    counts = Counts.of(found)
    assert value(ranking.auc(counts), 7) == pytest.approx(naive_auc(found))
    assert value(ranking.average_precision(counts), 7) == pytest.approx(naive_precision(found))
    assert value(ranking.auc(Counts.of(units(scores, ["".join("10"[int(m)] for m in row) for row in marks]))), 7) == (
        pytest.approx(1 - naive_auc(found))
    )


def test_a_resample_is_the_statistic_of_the_records_drawn() -> None:
    """Weight 2 on a record is that record twice; weight 0 leaves it out."""
    found = units([[4, 3, 2], [2, 5], [1, 1.5]], ["101", "01", "10"])
    twice = units([[4, 3, 2], [4, 3, 2], [1, 1.5]], ["101", "101", "10"])
    drawn = np.array([[2.0, 0.0, 1.0]])
    for make in (ranking.auc, ranking.average_precision):
        assert float(make(Counts.of(found))(drawn)[0]) == pytest.approx(value(make(Counts.of(twice)), 3))


def test_many_distinct_scores_are_grouped_with_little_loss() -> None:
    rng = np.random.default_rng(1)
    informative = rng.random(20_000) < 0.3
    score = rng.normal(size=20_000) + informative
    found = Units(np.repeat(np.arange(40), 500), informative, score, score, ("",) * 40)
    assert Counts.of(found).informative.shape[1] == ranking.LEVELS
    inside, outside = np.sort(score[informative]), score[~informative]
    exact = 1 - float(np.searchsorted(inside, outside).mean()) / len(inside)
    assert value(ranking.auc(Counts.of(found)), 40) == pytest.approx(exact, abs=1e-5)


def test_the_roc_curve_runs_from_corner_to_corner() -> None:
    false, true = ranking.roc(Counts.of(units([[3, 2, 1]], ["110"])))
    assert (false, true) == ([0, 0, 0, 1], [0, 0.5, 1, 1])


def test_reliability_by_hand() -> None:
    """Ten units, scores 0 to 9, the upper five informative: shares 0 0 0 0 0 1 1 1 1 1 at .05, .15, ... .95."""
    found = units([list(range(10))], ["0000011111"])
    made = Reliability.of(found)
    assert [value(made.share(place), 1) for place in range(10)] == [0] * 5 + [1] * 5
    assert float(made.error(np.ones((1, 1)))[0]) == pytest.approx(np.mean([0.05, 0.15, 0.25, 0.35, 0.45]))


def test_a_score_whose_quantile_is_the_probability_has_no_calibration_error() -> None:
    rng = np.random.default_rng(2)
    quantile = rng.random(40_000)
    found = Units(np.arange(40_000), rng.random(40_000) < quantile, quantile, quantile, ("",) * 40_000)
    assert float(Reliability.of(found).error(np.ones((1, 40_000)))[0]) < 0.01


def test_weight_share_by_hand() -> None:
    found = units([[1, 1], [1, 1]], ["10", "01"], [[3, 1], [0, 4]])
    assert value(ranking.weight_share(found), 2) == pytest.approx(7 / 8)
    assert found.base == 0.5


def test_correlations_by_hand() -> None:
    """x = 1 2 3 9, y = 1 3 2 4: rank correlation 1 - 6 * 2 / (4 * 15); a unit without a number is left out."""
    x, y = np.array([1.0, 2, 3, 9, 5]), np.array([1.0, 3, 2, 4, math.nan])
    record = np.array([0, 0, 1, 1, 1])
    assert value(ranking.correlation(x, y, record, 2, ranks=True), 2) == pytest.approx(0.8)
    assert value(ranking.correlation(x, y, record, 2), 2) == pytest.approx(float(np.corrcoef(x[:4], y[:4])[0, 1]))
    assert math.isnan(value(ranking.correlation(np.ones(5), y, record, 2), 2))


def test_histograms_are_shares_of_each_kind() -> None:
    found = units([[0, 0, 1, 1]], ["0111"])
    edges, inside, outside = ranking.histogram(found, found.score, bins=2)
    assert (edges, inside, outside) == ([0, 0.5, 1], [1 / 3, 2 / 3], [1, 0])


def test_clustered_intervals_cover_where_item_intervals_would_not() -> None:
    """Subjects differ in how far the score tells; the interval over subjects holds the mean of many draws."""

    def drawn(rng: np.random.Generator) -> tuple[Units, list[str]]:
        rows = 60
        shift = np.repeat(rng.normal(0.5, 0.8, 15), 4)
        informative = np.tile(np.arange(10) < 4, rows)
        score = rng.normal(size=rows * 10) + informative * np.repeat(shift, 10)
        subjects = [f"p{i // 4}" for i in range(rows)]
        return Units(np.repeat(np.arange(rows), 10), informative, score, score, tuple(subjects)), subjects

    def auc(found: Units) -> FloatArray:
        return ranking.auc(Counts.of(found))(np.ones((1, 60)))

    truth = np.mean([auc(drawn(np.random.default_rng(1000 + i))[0])[0] for i in range(200)])
    inside = 0
    for seed in range(60):
        found, subjects = drawn(np.random.default_rng(seed))
        one = bootstrap(ranking.auc(Counts.of(found)), [Sample.of(subjects)], resamples=300, bounds=(0.0, 1.0))
        assert one.unit == "clusters"
        inside += one.low <= truth <= one.high
    assert inside >= 51, inside  # 95% of 60 is 57; below 51 with probability 0.3%
