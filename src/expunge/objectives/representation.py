"""Losses on hidden states: forget tokens steered to one random direction (RMU), kept tokens held where they were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from expunge.core import At, Couples, Forward, Loss, Needs, Weights, row_sum, weighted, weighted_count
from expunge.errors import MethodError
from expunge.registry import Positive, Share, method

Mean = Literal["sequence", "broadcast"]
Place = tuple[int | float, At]


@method("objective", "rmu")
@dataclass(frozen=True)
class RMU:
    """sum_i w_i ||h_i - c u||^2 / (D sum_i w_i), the mean over sequences; h_i (D,) a hidden state, u one random vector.

    `layer` counts the L + 1 hidden states: 0 the embeddings, k what block k - 1 gives, L the last, after the final
    norm. Where it is not set, `depth` names one as a share of L. `at='own'` reads the state that has read the token,
    'before' the one that predicts it. u: uniform in [0, 1), scaled to length 1, drawn from `seed` alone;
    c is `steering_coeff`. `mean='broadcast'` is mean_b S_b * mean_b 1/n_b, S_b the sums and n_b the weights of the
    sequences: they are coupled then, and accumulation changes the result.

    Source: RMU (WMDP, arXiv 2403.03218) as OpenUnlearning has it for TOFU: c = 2, answer tokens, the state of their
    own position. Its `model.layers.7` is layer=8 here.
    Differs: the peer's layer is fixed at 7; on its 1B model layer 5 is best, which is our depth. Its code divides every
    sequence's sum by every sequence's length: mean=broadcast.
    Relations: `activation` is the same distance from the reference's states: what holds the retain set beside it.

    >>> from expunge.testing import forward_from_states
    >>> f = forward_from_states(RMU().place, [[0.0, 0.0], [0.0, 0.0]])
    >>> round(float(RMU(steering_coeff=3.0)(f, Weights.ones(f.mask)).value), 4)  # ||c u||^2 / D = 9 / 2, at every token
    4.5
    """

    steering_coeff: Positive = 2.0
    depth: Share = 0.375
    layer: int | None = None
    at: At = "own"
    seed: Annotated[int, Ge(0)] = 0
    mean: Mean = "sequence"

    @property
    def couples(self) -> Couples:
        return _couples(self.mean)

    @property
    def place(self) -> Place:
        """Which hidden state is read."""
        return _place(self.layer, self.depth, self.at)

    @property
    def needs(self) -> Needs:
        return Needs(hidden=frozenset({self.place}))

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return weighted_count(weights, scored, "sequence", "selected")

    def target(self, width: int) -> Tensor:
        """(width,) float32: c u."""
        direction = torch.rand(width, generator=torch.Generator().manual_seed(self.seed))
        return torch.nn.functional.normalize(direction, dim=0) * self.steering_coeff

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        states = forward.policy.hidden[self.place]
        return _distance(states, self.target(states.shape[-1]).to(states.device), weights, forward.mask, self.mean)


@method("objective", "activation")
@dataclass(frozen=True)
class ActivationDistance:
    """sum_i w_i ||h_i - h_ref,i||^2 / (D sum_i w_i), the mean over sequences; h_i, h_ref,i (D,) the hidden states.

    How far the policy's states have left the reference's. Settings as in `rmu`. The reference's states are remembered,
    or a second model gives them, whichever takes less memory.

    Source: the retain term of RMU (WMDP, arXiv 2403.03218); OpenUnlearning's retain_loss_type EMBED_DIFF.
    Differs: as `rmu`; mean=broadcast is the peer's number.
    Relations: `kl` holds what the model predicts instead of what it computes on the way.

    >>> from expunge.testing import forward_from_states
    >>> f = forward_from_states(ActivationDistance().place, [[1.0, 2.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]])
    >>> round(float(ActivationDistance()(f, Weights.ones(f.mask)).value), 4)  # (2^2 / 2 + 0) / 2 tokens
    1.0
    """

    depth: Share = 0.375
    layer: int | None = None
    at: At = "own"
    mean: Mean = "sequence"

    @property
    def couples(self) -> Couples:
        return _couples(self.mean)

    @property
    def place(self) -> Place:
        """Which hidden state is read."""
        return _place(self.layer, self.depth, self.at)

    @property
    def needs(self) -> Needs:
        return Needs(hidden=frozenset({self.place}), reference_hidden=frozenset({self.place}))

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return weighted_count(weights, scored, "sequence", "selected")

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        assert forward.reference is not None
        states, held = forward.policy.hidden[self.place], forward.reference.hidden[self.place]
        if states.shape != held.shape:
            raise MethodError(
                f"objective 'activation' compares hidden states; the model's are {states.shape[-1]} wide, the "
                f"reference's {held.shape[-1]}. Set reference to a model of the same shape, or use nll or kl"
            )
        return _distance(states, held, weights, forward.mask, self.mean)


def _distance(states: Tensor, target: Tensor, weights: Weights, scored: Tensor, mean: Mean) -> Loss:
    """The weighted mean over tokens of ||states - target||^2 / D of each sequence, states (B, T, D), in float32."""
    dtype = torch.promote_types(states.dtype, torch.float32)
    values = (states.to(dtype) - target.to(dtype)).square().mean(-1)
    if mean == "sequence":
        return weighted(values, weights, scored, "sequence", "selected")
    count = weighted_count(weights, scored, "sequence", "selected")
    tokens = weights.value.sum(-1)
    inverse = torch.where(tokens > 0, 1 / torch.where(tokens > 0, tokens, 1.0), 0.0)
    return Loss(row_sum(values, weights.value) * inverse.sum() / count.sum().clamp(min=1), count)


def _place(layer: int | None, depth: float, at: At) -> Place:
    # depth 1.0 would be the same key as layer 1, which is another state
    return (layer if layer is not None else -1 if depth == 1.0 else depth), at


def _couples(mean: Mean) -> Couples:
    return "batch" if mean == "broadcast" else "sequence"
