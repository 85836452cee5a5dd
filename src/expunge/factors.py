"""The gradient of each token's loss by itself, on the last feed-forward projection: two vectors a token.

Behind the last layer's attention every position is on its own. So the gradient of token t's loss on a projection there
is the outer product of delta_t, the gradient of its output at t, and of its input at t; and one backward pass from the
sum of all losses to that output, which is short, gives them all.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from expunge.core import Batch, Needs
from expunge.errors import ModelError
from expunge.lm import Scored, backbone_of

_LAYER = re.compile(r"\b(?:layers|h|blocks)\.(\d+)\.(.+)")


def factors(module: Scored, batch: Batch) -> tuple[Tensor, Tensor]:
    """delta (B, T, O) and input (B, T, I) of the last projection: sum_t delta_t input_t^T is the gradient of the loss.

    The loss is -sum log p over the batch's scored tokens. Weights are left without a gradient.
    """
    seen: list[Tensor] = []

    def begin(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        fresh = output.detach().requires_grad_()
        seen.extend((inputs[0].detach(), fresh))
        torch.set_grad_enabled(True)  # what came before needs no graph; no_grad ends below
        return fresh

    hook = last_projection(module.model).register_forward_hook(begin)
    try:
        with torch.no_grad():
            loss = -module(batch, Needs()).logp.sum()
            (delta,) = torch.autograd.grad(loss, seen[1])
    finally:
        hook.remove()
    return delta.float(), seen[0].float()


def last_projection(model: PreTrainedModel) -> nn.Module:
    """The last matrix of the last layer; ModelError where that is not behind its attention."""
    found: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in backbone_of(model).named_modules():
        weight, place = getattr(module, "weight", None), _LAYER.search(name)
        if place and isinstance(weight, Tensor) and weight.ndim == 2:
            found.setdefault(int(place[1]), []).append((place[2], module))
    name, module = found[max(found)][-1] if found else ("nothing", model)
    if not found or "att" in name or "expert" in name or "gate" in name or "router" in name:
        raise ModelError(
            f"influence reads the last feed-forward projection of the last layer, and found {name} in "
            f"{type(model).__name__}. Use learned, which needs no gradient of a token"
        )
    return module
