"""Gradients of weighted records: by hand for a linear model, against explicit float64 autograd for a real one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from expunge.core import IGNORE, Batch
from expunge.errors import ModelError
from expunge.studies import gradients
from expunge.studies.gradients import Probe
from tests.fixtures.models import tiny


class Linear:
    """A 'model' whose log p of token t is x_t . theta: its gradient is x_t, whatever theta."""

    def __init__(self, rows: torch.Tensor, theta: torch.Tensor) -> None:
        self.rows, self.theta = rows, theta

    def __call__(self, batch: Batch, needs: Any) -> Any:
        class Stats:
            logp = torch.zeros(batch.targets.shape).masked_scatter(batch.mask, self.rows @ self.theta)

        return Stats


def one_row(length: int, scored: int, seed: int = 0) -> Batch:
    ids = torch.randint(3, 60, (1, length), generator=torch.Generator().manual_seed(seed))
    targets = torch.full_like(ids, IGNORE)
    targets[0, length - 1 - scored : length - 1] = ids[0, length - scored :]
    return Batch(ids, targets, torch.ones_like(ids, dtype=torch.bool), ("r",))


def test_by_hand_for_a_linear_model() -> None:
    """x = (1, 0), (0, 2), (3, 3); weights 1 0 1: g = -(4, 3) / 2; along d = (-1, 0): 2, squared length 6.25."""
    theta = torch.tensor([0.3, -0.2], requires_grad=True)
    probe: Any = Probe(Linear(torch.tensor([[1.0, 0], [0, 2], [3, 3]]), theta), {"theta": theta})  # type: ignore[arg-type]
    weights = [torch.tensor([1.0, 0, 1]), torch.ones(3), torch.tensor([0.0, 5, 0])]
    made = gradients.moments(probe.gradients(one_row(5, 3), weights), {"theta": torch.tensor([-1.0, 0])})
    assert made == [pytest.approx(pair) for pair in [(2.0, 6.25), (4 / 3, (16 + 25) / 9), (0.0, 4.0)]]


@pytest.mark.parametrize("family", ["llama-tied", "gpt2-tied-positions"])
def test_equals_explicit_autograd_in_float64(family: str) -> None:
    """The fused head in float32 against whole logits and one backward pass a token in float64."""
    model, twin = tiny(family), tiny(family).double()
    batch = one_row(9, 5)
    pattern = r"layers\.1|h\.1|wte|embed"
    chosen = list(gradients.choose(twin, pattern).values())
    logits = twin(input_ids=batch.input_ids, use_cache=False).logits
    logp = torch.log_softmax(logits, -1)[0].gather(1, batch.targets[0].clamp(min=0)[:, None])[:, 0][batch.mask[0]]
    single = [torch.cat([g.reshape(-1) for g in torch.autograd.grad(-one, chosen, retain_graph=True)]) for one in logp]
    generator = torch.Generator().manual_seed(1)
    d = torch.randn(len(single[0]), generator=generator, dtype=torch.float64)
    d /= d.norm()
    sizes = [p.numel() for p in chosen]
    names = list(gradients.choose(model, pattern))
    direction = {n: part.reshape(p.shape) for n, part, p in zip(names, d.split(sizes), chosen, strict=True)}
    weights = [torch.ones(5), torch.tensor([0.0, 1, 0, 0, 1]), torch.tensor([0.2, 0.1, 3, 0, 1])]
    found = gradients.moments(Probe.of(model, pattern).gradients(batch, weights), direction)
    for w, (along, square) in zip(weights, found, strict=True):
        g = sum(float(v) * s for v, s in zip(w, single, strict=True)) / float(w.sum())
        assert along == pytest.approx(float(g @ d), rel=1e-4, abs=1e-6)
        assert square == pytest.approx(float(g @ g), rel=1e-4)


def test_a_padded_or_shifted_target_would_be_found() -> None:
    """The twin breaks if the weights are moved by one token."""
    model = tiny("llama")
    weights = torch.tensor([0.0, 1, 0, 0, 1])
    probe = Probe.of(model)
    right, moved = probe.gradients(one_row(9, 5), [weights, weights.roll(1)])
    assert gradients.square(right) != pytest.approx(gradients.square(moved), rel=1e-2)


def test_the_direction_between_models_is_a_unit_vector() -> None:
    one, other = tiny("llama"), tiny("llama", seed=1)
    d = gradients.between(one, other, r"mlp")
    assert gradients.square(d) == pytest.approx(1.0, rel=1e-6)
    gap = {n: (p - dict(one.named_parameters())[n]).detach() for n, p in other.named_parameters() if "mlp" in n}
    assert gradients.dot(d, gap) == pytest.approx(math.sqrt(gradients.square(gap)), rel=1e-6)


def test_directions_that_there_are_not() -> None:
    one = tiny("llama")
    with pytest.raises(ModelError, match="length 0"):
        gradients.between(one, tiny("llama"), None)
    with pytest.raises(ModelError, match="other names or shapes"):
        gradients.between(one, tiny("qwen2"), None)
    with pytest.raises(ModelError, match="no parameter's name fits 'nothing'"):
        gradients.choose(one, "nothing")
