"""KL to the reference by hand: directions, positions, and its zero."""

from __future__ import annotations

import math

import pytest
import torch

from expunge.core import Weights
from expunge.errors import MethodError
from expunge.objectives.retain import KL, KLToReference
from expunge.testing import forward_from_probabilities
from tests.contract import harness as h

P, Q = [0.7, 0.2, 0.1], [0.25, 0.5, 0.25]
MAPS = [KLToReference("forward"), KLToReference("reverse")]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))


def test_forward_is_reference_to_policy_and_reverse_the_other_way() -> None:
    forward = forward_from_probabilities([Q], targets=[1], reference=[P], vocab=MAPS)
    ones = Weights.ones(forward.mask)
    assert float(KL()(forward, ones).value) == pytest.approx(divergence(P, Q), rel=1e-5)
    assert float(KL(direction="reverse")(forward, ones).value) == pytest.approx(divergence(Q, P), rel=1e-5)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_an_untouched_model_has_no_divergence_and_no_gradient(direction: str) -> None:
    records = h.items(3)
    model = h.Leaves(records, seed=77)  # as the reference
    made = h.term(KL(direction=direction))  # type: ignore[arg-type]
    found, (mean,) = h.gradients([made], model, [h.batch_of(records)], h.reference_of(records))
    assert mean == pytest.approx(0.0, abs=1e-12)
    assert all(g.abs().max() < 1e-12 for g in found.values())


def test_small_divergences_keep_their_digits_in_float32() -> None:
    """Near the reference p - q cancels; in float32 the gradient must still be right to a per cent."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(1, 500, generator=g) * 2
    other = z + 1e-3 * torch.randn(1, 500, generator=g)
    kl, targets = KLToReference("forward"), torch.zeros(1, dtype=torch.int64)
    grads = []
    for dtype in (torch.float32, torch.float64):
        leaf = other.to(dtype).requires_grad_()
        grads.append(torch.autograd.grad(kl(leaf, z.to(dtype), targets).sum(), leaf)[0].double())
    assert float((grads[0] - grads[1]).norm() / grads[1].norm()) < 0.01


def test_positions_all_reads_prompt_and_padding_and_divides_by_all_of_them() -> None:
    records = h.items(3)
    model, reference = h.Leaves(records), h.reference_of(records)
    means = [
        h.gradients([h.term(KL(positions="all"))], model, [h.batch_of(records, pad_to=width)], reference)[1][0]
        for width in (11, 22)
    ]
    # the leaves stand at the same value in policy and reference at padding: it adds nothing but positions
    assert means[0] == pytest.approx(2 * means[1], rel=1e-9)


def test_positions_all_has_one_reduction() -> None:
    with pytest.raises(MethodError, match="positions=all is a mean over positions; found reduction=sum"):
        KL(positions="all", reduction="sum")
    assert KL(positions="all").needs.everywhere
    assert not KL().needs.everywhere
