"""Another answer taught in place of the forget answer: likelihood of it alone, or preferred over the old one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core import AlternativeSource, Couples, Forward, Loss, Needs, Weights, row_sum
from expunge.registry import Positive, method


@method("objective", "dpo")
@dataclass(frozen=True)
class DPO:
    """-(2/beta) log sigmoid(beta * (rise' - sum_i w_i (log p_i - log p_ref,i))) a sequence; averaged over sequences.

    rise' is the sum of log p - log p_ref over the tokens of another answer to the same question. `alternatives` says
    which: 'refusals' from a list, or the record's 'own', which the model writes itself where the record brings none;
    one is drawn for each record and epoch. Weights enter the old answer only; a sequence without weight is left out.

    Source: DPO (Rafailov et al., arXiv 2305.18290) as OpenUnlearning uses it, with 2 / beta in front: IdkDPO (TOFU,
    arXiv 2401.06121) with refusals, AltPO (arXiv 2409.13474) with the model's own; beta 0.1.
    Relations: `npo` is this without the other answer.

    >>> from expunge.testing import forward_from_probabilities, with_alternative
    >>> f = forward_from_probabilities([[0.5, 0.5]], targets=[0], reference=[[0.5, 0.5]])
    >>> f = with_alternative(f, forward_from_probabilities([[0.5, 0.5]], targets=[1], reference=[[0.75, 0.25]]))
    >>> round(float(DPO(beta=1.0)(f, Weights.ones(f.mask)).value), 4)  # -2 log sigmoid(log 2) = 2 log 1.5
    0.8109
    """

    couples: ClassVar[Couples] = "sequence"

    beta: Positive = 0.1
    alternatives: AlternativeSource = "refusals"

    @property
    def needs(self) -> Needs:
        return Needs(reference=True, alternative=frozenset({self.alternatives}))

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return _read(weights)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        other = forward.alternative
        assert other is not None
        assert other.reference is not None
        assert forward.reference is not None
        old = row_sum(forward.policy.logp - forward.reference.logp, weights.value)
        new = (other.policy.logp - other.reference.logp).sum(-1)
        count = self.count(weights, forward.mask)
        return Loss(torch.where(count > 0, -2 / self.beta * F.logsigmoid(self.beta * (new - old)), 0.0), count)


@method("objective", "alternative")
@dataclass(frozen=True)
class AlternativeNLL:
    """The negative log-likelihood of another answer to the same question, in nats; the mean over sequences.

    `alternatives` as in `dpo`. The old answer is not read: its weights only say whether the sequence takes part.
    `reduction='sequence'` is the mean over each answer's tokens, 'sum' their sum.

    Source: IdkNLL of OpenUnlearning (the "I don't know" baseline of TOFU, arXiv 2401.06121).
    Differs: OpenUnlearning takes one mean over all tokens of a micro-batch, so that long answers count for more.
    Relations: `dpo` also pushes the old answer down.

    >>> from expunge.testing import forward_from_probabilities, with_alternative
    >>> f = forward_from_probabilities([[0.5, 0.5]], targets=[0])
    >>> f = with_alternative(f, forward_from_probabilities([[0.5, 0.5], [0.25, 0.75]], targets=[0, 0]))
    >>> round(float(AlternativeNLL()(f, Weights.ones(f.mask)).value), 4)  # -(log 0.5 + log 0.25) / 2
    1.0397
    """

    couples: ClassVar[Couples] = "sequence"

    alternatives: AlternativeSource = "refusals"
    reduction: Literal["sequence", "sum"] = "sequence"

    @property
    def needs(self) -> Needs:
        return Needs(alternative=frozenset({self.alternatives}))

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return _read(weights)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        assert forward.alternative is not None
        value = -forward.alternative.policy.logp.sum(-1)
        if self.reduction == "sequence":
            value = value / forward.alternative.mask.sum(-1).clamp(min=1)
        count = self.count(weights, forward.mask)
        return Loss(torch.where(count > 0, value, 0.0), count)


def _read(weights: Weights) -> Tensor:
    return (weights.value.sum(-1) > 0).to(weights.value.dtype)
