"""A token's gradient as two vectors: their product is the gradient that autograd gives, token by token."""

from __future__ import annotations

import pytest
import torch

from expunge.core import IGNORE, Batch, Needs
from expunge.errors import ModelError
from expunge.factors import factors, last_projection
from expunge.lm import Scored
from tests.fixtures.models import tiny

IDS = torch.tensor([[3, 4, 5, 6, 7, 8], [9, 8, 7, 6, 5, 4]])
TARGETS = torch.tensor([[IGNORE, 5, 6, IGNORE, 8, IGNORE], [8, 7, IGNORE, IGNORE, IGNORE, IGNORE]])
BATCH = Batch(IDS, TARGETS, torch.ones_like(IDS, dtype=torch.bool), ("a", "b"))


@pytest.mark.parametrize("family", ["llama", "gpt2-tied-positions", "phi-bias", "gemma2-softcap", "gpt-neox"])
def test_each_tokens_gradient_is_an_outer_product(family: str) -> None:
    model = tiny(family)
    module = Scored(model)
    deltas, inputs = factors(module, BATCH)
    assert not deltas.requires_grad
    assert all(p.grad is None for p in model.parameters())
    projection = last_projection(model)
    weight: torch.Tensor = projection.weight  # type: ignore[assignment]
    logp = module(BATCH, Needs()).logp
    for row, t in BATCH.mask.nonzero().tolist():
        (expected,) = torch.autograd.grad(-logp[row, t], weight, retain_graph=True)
        found = torch.outer(deltas[row, t], inputs[row, t])
        found = found.T if type(projection).__name__ == "Conv1D" else found
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert float(deltas[~BATCH.mask].abs().max()) == 0


def test_gradients_are_off_again_afterwards_where_they_were() -> None:
    with torch.no_grad():
        factors(Scored(tiny("llama")), BATCH)
        assert not torch.is_grad_enabled()


def test_a_layer_that_ends_in_experts_is_refused() -> None:
    with pytest.raises(ModelError, match="last feed-forward projection"):
        last_projection(tiny("mixtral"))
