"""Entropy, confidence and SatImp on distributions written out by hand, and where p is near 0 and 1."""

from __future__ import annotations

import math

import pytest
import torch

from expunge.core import Forward, Needs
from expunge.registry import build
from expunge.scorers.uncertainty import Confidence, Entropy, SatImp
from expunge.testing import forward_from_probabilities

ROWS = [[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [1 / 3, 1 / 3, 1 / 3]]
FORWARD = forward_from_probabilities(ROWS, targets=[0, 2, 1])
P = [0.5, 0.1, 1 / 3]


def test_entropy_is_in_nats_and_zero_where_nothing_is_scored() -> None:
    expected = [-sum(p * math.log(p) for p in row) for row in ROWS]
    assert Entropy()(FORWARD, None)[0].tolist() == pytest.approx([*expected, 0.0])
    assert expected[2] == pytest.approx(math.log(3))


@pytest.mark.parametrize("temperature", [0.5, 2.0, 4.0])
def test_a_temperature_divides_the_logits_before_the_softmax(temperature: float) -> None:
    expected = []
    for row in ROWS:
        q = [p ** (1 / temperature) for p in row]
        expected.append(-sum(x / sum(q) * math.log(x / sum(q)) for x in q))
    assert Entropy(temperature)(FORWARD, None)[0, :3].tolist() == pytest.approx(expected, rel=1e-5)
    assert Entropy(temperature).needs == Needs(entropy=frozenset({temperature}))


def test_a_high_temperature_makes_entropies_alike() -> None:
    forward = forward_from_probabilities(ROWS, targets=[0, 2, 1], temperatures=(1e6,))
    scores = Entropy(1e6)(forward, None)[0, :3]
    assert float(scores.max() - scores.min()) < 1e-4
    assert float(scores.max()) == pytest.approx(math.log(3), rel=1e-5)


def test_entropy_of_equally_confident_tokens_lies_between_the_two_bounds() -> None:
    """The rest of the mass on one token, or spread over V - 1: (1 - p) log(V - 1) apart."""
    p, vocabulary = 0.7, 50
    least = [p, 1 - p] + [0.0] * (vocabulary - 2)
    most = [p] + [(1 - p) / (vocabulary - 1)] * (vocabulary - 1)
    low, high = Entropy()(forward_from_probabilities([least, most], targets=[0, 0]), None)[0, :2].tolist()
    assert low == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p), rel=1e-5)
    assert high - low == pytest.approx((1 - p) * math.log(vocabulary - 1), rel=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 5.0])
def test_confidence_is_a_power_of_the_probability(beta: float) -> None:
    assert Confidence(beta)(FORWARD, None)[0].tolist() == pytest.approx([*(p**beta for p in P), 0.0])


@pytest.mark.parametrize(("beta1", "beta2"), [(5.0, 0.1), (5.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_satimp_is_saturation_times_importance(beta1: float, beta2: float) -> None:
    expected = [p**beta1 * (1 - p) ** beta2 for p in P]
    assert SatImp(beta1, beta2)(FORWARD, None)[0].tolist() == pytest.approx([*expected, 0.0])


def test_satimp_without_importance_is_confidence() -> None:
    assert SatImp(3.0, 0.0)(FORWARD, None).allclose(Confidence(3.0)(FORWARD, None))


def _at(logp: float) -> Forward:
    forward = forward_from_probabilities([[0.5, 0.5]], targets=[0])
    forward.policy.logp[0, 0] = logp
    return forward


def test_importance_keeps_its_digits_near_certainty() -> None:
    """1 - p from log p: at log p = -1e-9, 1 - exp(log p) would be 0 in float32."""
    assert float(SatImp(5.0, 1.0)(_at(-1e-9), None)[0, 0]) == pytest.approx(1e-9, rel=1e-5)
    assert float(SatImp(5.0, 0.1)(_at(-1e-9), None)[0, 0]) == pytest.approx(1e-9**0.1, rel=1e-5)


@pytest.mark.parametrize("logp", [0.0, 1e-7, -1e-30, -80.0, -3e4])
def test_scores_stay_in_the_unit_interval_at_the_edges(logp: float) -> None:
    """1e-7: rounding may leave a probability a little above 1."""
    for scorer in (Confidence(), Confidence(0.3), SatImp(), SatImp(0.0, 1.0), SatImp(1.0, 0.0)):
        score = scorer(_at(logp), None)
        assert torch.isfinite(score).all()
        assert 0.0 <= float(score.max()) <= 1.0 + 1e-6


def test_entropy_of_the_likeliest_tokens_renormalised() -> None:
    scorers = [
        build("scorer", spec) for spec in ("entropy:top_k=2", "entropy:top_k=2,normalised=true", "entropy:top_k=1")
    ]
    forward = forward_from_probabilities(
        [[0.6, 0.2, 0.2], [1 / 3] * 3], targets=[0, 0], vocab=[m for s in scorers for m in s.needs.vocab]
    )
    top = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert scorers[0](forward, None)[0].tolist() == pytest.approx([top, math.log(2), 0.0])
    assert scorers[1](forward, None)[0].tolist() == pytest.approx([top / math.log(2), 1.0, 0.0])
    assert scorers[2](forward, None)[0].tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)


def test_normalised_entropy_is_a_share_of_log_v_at_its_temperature() -> None:
    made = build("scorer", "entropy:normalised=true,temperature=2")
    forward = forward_from_probabilities([[0.8, 0.1, 0.1]], targets=[0], vocab=list(made.needs.vocab))
    plain = build("scorer", "entropy:temperature=2")(forward, None)[0, 0]
    assert made(forward, None)[0, 0].item() == pytest.approx(float(plain) / math.log(3))


def test_variance_of_log_p_and_of_two_draws() -> None:
    collision = build("scorer", "variance:of=p")
    forward = forward_from_probabilities(
        [[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]], targets=[0, 0, 0], vocab=list(collision.needs.vocab)
    )
    expected = 0.9 * math.log(0.9) ** 2 + 0.1 * math.log(0.1) ** 2 - (0.9 * math.log(0.9) + 0.1 * math.log(0.1)) ** 2
    assert build("scorer", "variance")(forward, None)[0].tolist() == pytest.approx([expected, 0.0, 0.0, 0.0], abs=1e-5)
    assert collision(forward, None)[0].tolist() == pytest.approx([0.18, 0.5, 0.0, 0.0], abs=1e-6)
