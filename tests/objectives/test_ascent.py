"""Gradient ascent by hand: values, denominators, and that descent on it lowers the probability."""

from __future__ import annotations

import math

import pytest
import torch

from expunge.core import Denominator, Reduction, Weights
from expunge.objectives.ascent import GradientAscent
from expunge.objectives.retain import NLL
from expunge.testing import forward_from_probabilities
from tests.contract import harness as h

FORWARD = forward_from_probabilities([[0.5, 0.5], [0.25, 0.75], [0.8, 0.2]], targets=[0, 0, 0])
LOGP = [math.log(0.5), math.log(0.25), math.log(0.8)]
WEIGHTS = Weights(torch.tensor([[2.0, 0.5, 0.0, 0.0]]), torch.tensor([[True, True, False, False]]))
TOTAL = 2 * LOGP[0] + 0.5 * LOGP[1]


@pytest.mark.parametrize(
    ("reduction", "denominator", "expected"),
    [
        ("token", "scored", TOTAL / 3),
        ("token", "selected", TOTAL / 2.5),
        ("sequence", "scored", TOTAL / 3),
        ("sequence", "selected", TOTAL / 2.5),
        ("sum", "scored", TOTAL),
    ],
)
def test_value_over_count(reduction: Reduction, denominator: Denominator, expected: float) -> None:
    for cls, sign in ((GradientAscent, 1), (NLL, -1)):
        loss = cls(reduction, denominator)(FORWARD, WEIGHTS)
        assert float(loss.value / loss.count) == pytest.approx(sign * expected, rel=1e-5)


def test_the_gradient_of_ascent_is_minus_that_of_likelihood() -> None:
    records = h.items(3)
    up, down = (
        h.gradients([h.term(o)], h.Leaves(records), [h.batch_of(records)], None) for o in (GradientAscent(), NLL())
    )
    assert up[1] == [-down[1][0]]
    h.close(up[0], {name: -g for name, g in down[0].items()}, rtol=0.0)


def test_a_token_mean_weighs_tokens_and_a_sequence_mean_sequences() -> None:
    short, long = h.items(2, seed=4)
    model = h.Leaves([short, long])
    means = [h.gradients([h.term(GradientAscent())], model, [h.batch_of([i])], None)[1][0] for i in (short, long)]
    assert short.scored != long.scored
    (token,), (sequence,) = (
        h.gradients([h.term(GradientAscent(r))], model, [h.batch_of([short, long])], None)[1]  # type: ignore[arg-type]
        for r in ("token", "sequence")
    )
    assert sequence == pytest.approx(sum(means) / 2)
    total = means[0] * short.scored + means[1] * long.scored
    assert token == pytest.approx(total / (short.scored + long.scored))
