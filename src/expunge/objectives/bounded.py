"""Ascent that cannot run away: against the strongest rival, to a level at which it stops, or fading on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.core import Couples, Denominator, Forward, Loss, Needs, Reduction, Weights, weighted, weighted_count
from expunge.registry import NonNegative, Positive, method


@dataclass(frozen=True)
class AboveRival:
    """A `VocabMap`: 1 + p(y) - max_{v != y} p(v), in [0, 2]."""

    @property
    def key(self) -> str:
        return "above-rival"

    @property
    def reads_reference(self) -> bool:
        return False

    def __call__(self, logits: Tensor, reference: Tensor | None, targets: Tensor) -> Tensor:
        p = torch.softmax(logits, dim=-1)
        own = p.gather(1, targets[:, None])[:, 0]
        return 1 + own - p.scatter(1, targets[:, None], 0.0).amax(-1)


@method("objective", "ihl")
@dataclass(frozen=True)
class InverseHinge:
    """sum_i w_i (1 + p_i(y) - max_{v != y} p_i(v)) / denominator: the answer gives way to its strongest rival.

    In [0, 2] a token; its gradient moves probability between the two and leaves the other tokens nearly alone.

    Source: the inverted hinge loss of LoKU (Cha et al., arXiv 2408.06621); ALTER (arXiv 2603.01792) uses it too.
    Differs: written from the equation; the published code was not compared.
    Relations: `ga` has no lower bound.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.375, 0.125]], targets=[0], vocab=[AboveRival()])
    >>> round(float(InverseHinge()(f, Weights.ones(f.mask)).value), 4)
    1.125
    """

    couples: ClassVar[Couples] = "sequence"

    reduction: Reduction = "token"
    denominator: Denominator = "scored"

    @property
    def needs(self) -> Needs:
        return Needs(vocab=frozenset({AboveRival()}))

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return weighted_count(weights, scored, self.reduction, self.denominator)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        values = forward.policy.vocab[AboveRival().key]
        return weighted(values, weights, forward.mask, self.reduction, self.denominator)


@method("objective", "bounded")
@dataclass(frozen=True)
class BoundedAscent:
    """sum_i w_i max(log p_i, -level) / denominator, to be minimised: ascent on a token until its loss is `level` nats.

    A token past the level has no gradient. log V is where a uniform prediction stands.

    Source: ours.
    Relations: `ga` is level at infinity; `npo` fades by the whole answer, relative to a reference.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5], [0.125, 0.875]], targets=[0, 0])
    >>> loss = BoundedAscent(level=1.0)(f, Weights.ones(f.mask))
    >>> round(float(loss.value / loss.count), 4)  # (log 0.5 - 1) / 2
    -0.8466
    """

    couples: ClassVar[Couples] = "sequence"

    level: Positive = 10.0
    reduction: Reduction = "token"
    denominator: Denominator = "scored"

    @property
    def needs(self) -> Needs:
        return Needs()

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return weighted_count(weights, scored, self.reduction, self.denominator)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        values = forward.policy.logp.clamp(min=-self.level)
        return weighted(values, weights, forward.mask, self.reduction, self.denominator)


@method("objective", "saturated")
@dataclass(frozen=True)
class SaturatedAscent:
    """sum_i w_i log p_i p_i^(beta w_i) / denominator, to be minimised; the power is held fixed: ascent that fades.

    The push on a token is w l exp(-beta w l) at the loss l: it vanishes as the token is forgotten, the sooner the
    larger its weight. Weights stand inside the power, so that a token of weight 2 is not the token twice.

    Source: ATWU (Yuce, Nikolaou, Flammarion, arXiv 2606.06320), the code; beta 5 is where its search starts.
    Relations: its "correct" variant, p^beta without the weight, is `ga` with `modulate: confidence:beta=5`, which is
    `wga` under uniform scores; `bounded` stops at a level instead.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5], [0.25, 0.75]], targets=[0, 0])
    >>> weights = Weights(torch.tensor([[1.0, 0.5, 0.0]]), f.mask)
    >>> loss = SaturatedAscent(beta=2.0)(f, weights)
    >>> round(float(loss.value / loss.count), 4)  # (log 0.5 * 0.5^2 + 0.5 * log 0.25 * 0.25^1) / 2
    -0.1733
    """

    couples: ClassVar[Couples] = "sequence"

    beta: NonNegative = 5.0
    reduction: Reduction = "token"
    denominator: Denominator = "scored"

    @property
    def needs(self) -> Needs:
        return Needs()

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return weighted_count(weights, scored, self.reduction, self.denominator)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        logp = forward.policy.logp
        held = torch.exp(self.beta * weights.value * logp.detach())
        return weighted(logp * held, weights, forward.mask, self.reduction, self.denominator)
