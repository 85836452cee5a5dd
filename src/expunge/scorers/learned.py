"""A score that is trained beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from expunge.context import Parameters, known_of
from expunge.core import At, Forward, Needs, State
from expunge.registry import NonNegative, Positive, Share, method

_LAST: tuple[int, At] = (-1, "own")


@method("scorer", "learned")
@dataclass(frozen=True)
class Learned:
    """sigmoid(<a, h> + b), h the last hidden state at the token itself; a and b are trained beside the model.

    In (0, 1), 0.5 everywhere before the first move. After every `every` updates of the model one step of SGD (momentum,
    weight decay, gradient norm at most 1, step size falling linearly to 0) on

        mean[(1 - g) l] + entropy_coef * mean H(g) + budget_coef * mean_seq (share - budget)^2 + norm_coef * ||a||^2

    l the token's loss and `share` the part of a sequence with g > 0.5, whose gradient is that of g. Tokens whose loss
    stays high are those whose forgetting retaining does not undo. `fits='objective'` puts mean[-g l exp(-beta g l)],
    what the model minimises, in place of the first part; the exponent carries no gradient.

    The update's records pass through the model once more for a move, without gradient or dropout.

    Source: ATWU (Yuce, Nikolaou, Flammarion, arXiv 2606.06320), the code: the values of its scripts for Llama-3.2-1B.
    Relations: `saturated` is the loss it goes with; without that, scores alone were not enough.

    >>> from expunge.testing import forward_from_states
    >>> f = forward_from_states((-1, "own"), [[1.0, 0.0], [0.0, 2.0]])
    >>> known = {"weight": torch.tensor([0.0, 1.0]), "bias": torch.tensor(-1.0)}
    >>> [round(x, 4) for x in Learned()(f, {"learned": known})[0].tolist()]  # sigmoid(-1), sigmoid(1)
    [0.2689, 0.7311, 0.0]
    """

    fits: Literal["loss", "objective"] = "loss"
    budget: Share = 0.2
    entropy_coef: NonNegative = 1.0
    budget_coef: NonNegative = 10.0
    norm_coef: NonNegative = 1.0
    beta: NonNegative = 5.0
    every: Annotated[int, Ge(1)] = 5
    learning_rate: Positive = 5e-2
    momentum: Share = 0.9
    weight_decay: NonNegative = 1e-4

    @property
    def needs(self) -> Needs:
        return Needs(hidden=frozenset({_LAST}))

    def __call__(self, forward: Forward, state: State) -> Tensor:
        known = known_of(self, state) or self.begin(forward.policy.hidden[_LAST].shape[-1])
        return torch.where(forward.mask, torch.sigmoid(_logits(forward, known)), 0.0)

    def begin(self, width: int) -> Parameters:
        start = {"weight": torch.zeros(width), "bias": torch.zeros(())}
        return start | {f"{name} momentum": torch.zeros_like(value) for name, value in start.items()}

    def learn(
        self, forwards: Sequence[Forward], parameters: Parameters, left: float
    ) -> tuple[Parameters, dict[str, float]]:
        if not any(bool(f.mask.any()) for f in forwards):
            return parameters, {}
        with torch.enable_grad():
            tried = {name: parameters[name].clone().requires_grad_() for name in ("weight", "bias")}
            loss, share = self.loss(forwards, tried)
            gradients = torch.autograd.grad(loss, list(tried.values()))
        norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
        out: dict[str, Tensor] = {}
        for name, gradient in zip(tried, gradients, strict=True):
            old = parameters[name]
            step = gradient * (1 / (norm + 1e-6)).clamp(max=1) + self.weight_decay * old
            out[f"{name} momentum"] = self.momentum * parameters[f"{name} momentum"] + step
            out[name] = old - left * self.learning_rate * out[f"{name} momentum"]
        return out, {"loss": float(loss.detach()), "share": float(share)}

    def loss(self, forwards: Sequence[Forward], parameters: Parameters) -> tuple[Tensor, Tensor]:
        """What the scorer minimises on these micro-batches, and the mean share of a sequence with g > 0.5."""
        rows = [(_logits(f, parameters), -f.policy.logp.detach(), f.mask) for f in forwards]
        z, nll = (torch.cat([row[k][row[2]] for row in rows]) for k in (0, 1))
        g = torch.sigmoid(z)
        shares = torch.cat([_shares(logits, mask) for logits, _, mask in rows])
        entropy = -(g * F.logsigmoid(z) + (1 - g) * F.logsigmoid(-z))
        if self.fits == "loss":
            fit = (1 - g) * nll
        else:
            fit = -g * nll * torch.exp(-self.beta * g * nll).detach()
        return (
            fit.mean()
            + self.entropy_coef * entropy.mean()
            + self.budget_coef * (shares - self.budget).square().mean()
            + self.norm_coef * parameters["weight"].square().sum()
        ), shares.detach().mean()


def _logits(forward: Forward, parameters: Parameters) -> Tensor:
    """(B, T) <a, h> + b."""
    hidden = forward.policy.hidden[_LAST].detach().float()
    return hidden @ parameters["weight"].to(hidden.device) + parameters["bias"].to(hidden.device)


def _shares(logits: Tensor, mask: Tensor) -> Tensor:
    """(B',) the part of each sequence with a scored token whose g is above 0.5; its gradient is that of the mean g."""
    some = mask.any(-1)
    g = torch.sigmoid(logits)
    straight = (g > 0.5).float() - g.detach() + g
    return torch.where(mask, straight, 0.0).sum(-1)[some] / mask.sum(-1)[some]
