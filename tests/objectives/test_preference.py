"""NPO and SimNPO by hand: their value at the start, their gradient's saturation, what weights do inside the sigmoid."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from expunge.core import Forward, TokenStats, Weights
from expunge.objectives.ascent import GradientAscent
from expunge.objectives.preference import NPO, SimNPO
from expunge.testing import forward_from_probabilities

P, REF = [0.5, 0.25], [0.8, 0.5]
FORWARD = forward_from_probabilities([[p, 1 - p] for p in P], targets=[0, 0], reference=[[p, 1 - p] for p in REF])
ONES = Weights.ones(FORWARD.mask)


def logsigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def at(logp: Tensor) -> Forward:
    """FORWARD with these log-probabilities, which carry gradient."""
    zero = torch.zeros_like(logp)
    return Forward(FORWARD.batch, TokenStats(logp, zero, zero, zero.bool()), FORWARD.reference)


def slope(objective: NPO | SimNPO | GradientAscent, shift: float) -> Tensor:
    """d loss / d log p where every log p is the reference's plus `shift`."""
    assert FORWARD.reference is not None
    logp = (FORWARD.reference.logp + shift * FORWARD.mask).detach().requires_grad_()
    return torch.autograd.grad(objective(at(logp), ONES).value.sum(), logp)[0]


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.0])
def test_npo_sums_the_rise_of_the_loss_inside_the_sigmoid(beta: float) -> None:
    rise = sum(math.log(r) - math.log(p) for p, r in zip(P, REF, strict=True))
    loss = NPO(beta)(FORWARD, ONES)
    assert float(loss.value) == pytest.approx(-2 / beta * logsigmoid(beta * rise), rel=1e-5)
    assert loss.count.tolist() == [1.0]


def test_npo_starts_at_2_log_2_over_beta_with_the_gradient_of_ascent() -> None:
    assert FORWARD.reference is not None
    start = NPO(0.1)(at(FORWARD.reference.logp), ONES).value
    assert float(start) == pytest.approx(2 / 0.1 * math.log(2))
    torch.testing.assert_close(slope(NPO(0.1), 0.0), slope(GradientAscent(), 0.0))


def test_npo_fades_as_the_answer_becomes_less_likely_and_never_falls_below_zero() -> None:
    slopes = [float(slope(NPO(1.0), shift).sum()) for shift in (0.0, -1.0, -3.0, -10.0)]
    assert slopes == sorted(slopes, reverse=True)
    # two tokens, each at 2 sigmoid(-beta * 2 * 3) for a fall of 3 nats a token
    assert slopes[2] == pytest.approx(2 * 2 / (1 + math.exp(6.0)), rel=1e-4)
    assert float(NPO(1.0)(at(FORWARD.policy.logp - 50.0), ONES).value) >= 0.0


def test_npo_tends_to_ascent_as_beta_goes_to_zero() -> None:
    torch.testing.assert_close(slope(NPO(1e-4), -2.0), slope(GradientAscent(), -2.0), rtol=1e-3, atol=0)


def test_weights_scale_each_tokens_part_inside_the_sigmoid() -> None:
    weights = Weights(torch.tensor([[0.5, 2.0, 0.0]]), FORWARD.mask)
    rise = 0.5 * (math.log(REF[0]) - math.log(P[0])) + 2.0 * (math.log(REF[1]) - math.log(P[1]))
    assert float(NPO(1.0)(FORWARD, weights).value) == pytest.approx(-2 * logsigmoid(rise), rel=1e-5)
    mean = (-0.5 * math.log(P[0]) - 2.0 * math.log(P[1])) / 2.5
    expected = -2 / 3.0 * logsigmoid(3.0 * (mean - 0.4))
    assert float(SimNPO(3.0, 0.4)(FORWARD, weights).value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("beta", "delta"), [(4.5, 0.0), (2.5, 0.4), (1.0, -1.0)])
def test_simnpo_compares_the_mean_loss_with_a_margin(beta: float, delta: float) -> None:
    mean = -(math.log(P[0]) + math.log(P[1])) / 2
    loss = SimNPO(beta, delta)(FORWARD, ONES)
    assert float(loss.value) == pytest.approx(-2 / beta * logsigmoid(beta * (mean - delta)), rel=1e-5)
    assert not SimNPO().needs.any_reference
    assert NPO().needs.reference


def test_huge_margins_stay_finite() -> None:
    for shift in (-1e4, 1e4):
        logp = FORWARD.policy.logp + shift * FORWARD.mask
        for objective in (NPO(5.0), SimNPO(5.0)):
            assert math.isfinite(float(objective(at(logp), ONES).value))
