"""What keeps the rest alone: likelihood, and closeness to the reference's distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from expunge.core import Couples, Denominator, Forward, Loss, Needs, Reduction, Weights, weighted, weighted_count
from expunge.errors import MethodError
from expunge.registry import Positive, Share, method


@method("objective", "nll")
@dataclass(frozen=True)
class NLL:
    """sum_i w_i (-log p_i) / denominator: plain fine-tuning on the weighted tokens.

    Reduction: as `ga`; the default is the token mean, which is Hugging Face's loss.

    Source: the retain term of GradDiff (TOFU, arXiv 2401.06121).
    Relations: `ga` with the sign turned; `kl` holds the whole distribution instead of one token.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5], [0.25, 0.75]], targets=[0, 0])
    >>> loss = NLL()(f, Weights.ones(f.mask))
    >>> round(float(loss.value / loss.count), 4)
    1.0397
    """

    couples: ClassVar[Couples] = "sequence"

    reduction: Reduction = "token"
    denominator: Denominator = "scored"

    @property
    def needs(self) -> Needs:
        return Needs()

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return weighted_count(weights, scored, self.reduction, self.denominator)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        return weighted(-forward.policy.logp, weights, forward.mask, self.reduction, self.denominator)


@dataclass(frozen=True)
class KLToReference:
    """KL(ref || policy) ('forward') or KL(policy || ref) ('reverse') of each token's distribution, in nats."""

    direction: Literal["forward", "reverse"]

    @property
    def key(self) -> str:
        return f"kl-{self.direction}"

    @property
    def reads_reference(self) -> bool:
        return True

    def __call__(self, logits: Tensor, reference: Tensor | None, targets: Tensor) -> Tensor:
        assert reference is not None
        policy = torch.log_softmax(logits, dim=-1)
        other = torch.log_softmax(reference.to(logits.dtype), dim=-1)
        p, q = (other, policy) if self.direction == "forward" else (policy, other)
        return (p.exp() * (p - q)).sum(-1)


@method("objective", "kl")
@dataclass(frozen=True)
class KL:
    """sum_i w_i KL_i / denominator between the reference's and the policy's distributions at each token, in nats.

    `direction='forward'` is KL(reference || policy), 'reverse' the other. `positions='all'` reads every position,
    prompt and padding too, and divides by B * T, as OpenUnlearning does; weights have no meaning there.
    `attention` above 1 takes the reference with the softmax of its attention at that temperature, in the first `layers`
    share of its layers: a teacher that mixes up what it attends to, for what is to be forgotten.

    Source: GradDiff with retain_loss_type KL; the teacher is that of ASU (arXiv 2603.01285), attention 2.0 to 2.8.
    Differs: OpenUnlearning's mean over prompt and padding makes the term depend on padding; ours is over the answer.
    Relations: `nll` needs no reference.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities(
    ...     [[0.25, 0.75]], targets=[0], reference=[[0.5, 0.5]], vocab=[KLToReference("forward")]
    ... )
    >>> round(float(KL()(f, Weights.ones(f.mask)).value), 4)  # 0.5 log 2 + 0.5 log (2/3)
    0.1438
    """

    direction: Literal["forward", "reverse"] = "forward"
    reduction: Reduction = "token"
    denominator: Denominator = "scored"
    positions: Literal["scored", "all"] = "scored"
    attention: Positive = 1.0
    layers: Share = 1.0

    def __post_init__(self) -> None:
        if self.positions == "all" and self.reduction != "token":
            raise MethodError(
                f"objective 'kl': positions=all is a mean over positions; found reduction={self.reduction}"
            )

    @property
    def couples(self) -> Couples:
        """Every position of the padded batch: how long the longest record is enters the mean."""
        return "sequence" if self.positions == "scored" else "batch"

    @property
    def unweighted(self) -> bool:
        return self.positions != "scored"

    @property
    def needs(self) -> Needs:
        vocab = frozenset({KLToReference(self.direction)})
        smoothing = frozenset({(self.attention, self.layers)} if self.attention != 1.0 else ())
        return Needs(vocab=vocab, everywhere=self.positions == "all", smoothing=smoothing)

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        if self.positions == "all":
            return weights.value.new_full((scored.shape[0],), float(scored.shape[1]))
        return weighted_count(weights, scored, self.reduction, self.denominator)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        divergence = forward.policy.vocab[KLToReference(self.direction).key]
        if self.positions == "all":
            return Loss(divergence.sum(-1), self.count(weights, forward.mask))
        return weighted(divergence, weights, forward.mask, self.reduction, self.denominator)
