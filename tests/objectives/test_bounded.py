"""`saturated`: its value and its push, from the equation, with weights inside the power."""

from __future__ import annotations

import math

import pytest
import torch

from expunge.core import Weights
from expunge.objectives.bounded import SaturatedAscent
from expunge.testing import forward_from_probabilities
from tests.objectives.test_targeted import example


def test_weights_stand_inside_the_power_and_the_power_carries_no_gradient() -> None:
    forward, logits, _ = example()
    weights = Weights(torch.where(forward.mask, torch.rand(forward.mask.shape).clamp(min=0.2), 0.0), forward.mask)
    loss = SaturatedAscent(beta=3.0)(forward, weights)
    (found,) = torch.autograd.grad((loss.value.sum() / loss.count.sum()), logits)
    total, expected = 0.0, torch.zeros_like(logits)
    n = int(forward.mask.sum())
    for row, t in forward.mask.nonzero().tolist():
        y, w = int(forward.batch.targets[row, t]), float(weights.value[row, t])
        logp = torch.log_softmax(logits[row, t].detach(), -1)
        nll = -float(logp[y])
        total -= w * nll * math.exp(-3 * w * nll)
        push = -logp.exp()
        push[y] += 1
        expected[row, t] = w * math.exp(-3 * w * nll) * push / n
    assert float((loss.value.sum() / loss.count.sum()).detach()) == pytest.approx(total / n, rel=1e-6)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_it_is_lowest_at_a_loss_of_one_over_beta_times_the_weight(weight: float) -> None:
    found = []
    for scale in (0.5, 1.0, 2.0):
        p = math.exp(-scale / (5 * weight))
        forward = forward_from_probabilities([[p, 1 - p]], targets=[0])
        weights = Weights(weight * forward.mask.float(), forward.mask)
        found.append(float(SaturatedAscent()(forward, weights).value))
    assert found[1] < min(found[0], found[2]) < 0
