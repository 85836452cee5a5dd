"""Preference losses with no preferred answer: bounded forms of ascent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core import Couples, Forward, Loss, Needs, Weights, row_sum
from expunge.registry import Positive, method


@method("objective", "npo")
@dataclass(frozen=True)
class NPO:
    """-(2/beta) log sigmoid(beta * sum_i w_i (log p_ref,i - log p_i)) a sequence, averaged over sequences.

    (log p_ref - log p is the rise of the loss over the reference's.) Not length-normalised; bounded below by 0; its
    gradient is ascent times 2 sigmoid(...) and fades as the answer becomes less likely than under the reference.

    Source: NPO (Zhang et al., arXiv 2404.05868) as OpenUnlearning computes it; beta 0.1 from there.
    Differs: weights w scale each token's part inside the sigmoid; w = 1 is the published form.
    Relations: `simnpo` takes a mean over tokens and needs no reference.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]], targets=[0], reference=[[0.5, 0.5]])
    >>> round(float(NPO(beta=2.0)(f, Weights.ones(f.mask)).value), 4)  # -(2/2) log sigmoid(0) = log 2
    0.6931
    """

    couples: ClassVar[Couples] = "sequence"

    beta: Positive = 0.1

    @property
    def needs(self) -> Needs:
        return Needs(reference=True)

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return weights.mask.any(-1).to(weights.value.dtype)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        assert forward.reference is not None
        rise = row_sum(forward.reference.logp - forward.policy.logp, weights.value)
        return _log_sigmoid_loss(self.beta, rise, self.count(weights, forward.mask))


@method("objective", "simnpo")
@dataclass(frozen=True)
class SimNPO:
    """-(2/beta) log sigmoid(beta * (mean_i -log p_i - delta)) a sequence, the mean weighted by w, over sequences.

    Source: SimNPO (Fan et al., arXiv 2410.07163); beta 4.5, delta 0 as in OpenUnlearning.
    Relations: `npo` compares with a reference instead of a margin.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5], [0.125, 0.875]], targets=[0, 0])
    >>> round(float(SimNPO(beta=1.0)(f, Weights.ones(f.mask)).value), 4)  # -2 log sigmoid(2 log 2) = 2 log 1.25
    0.4463
    """

    couples: ClassVar[Couples] = "sequence"

    beta: Positive = 4.5
    delta: float = 0.0

    @property
    def needs(self) -> Needs:
        return Needs()

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return weights.mask.any(-1).to(weights.value.dtype)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        total = weights.value.sum(-1)
        mean_loss = row_sum(-forward.policy.logp, weights.value) / torch.where(total > 0, total, 1.0)
        return _log_sigmoid_loss(self.beta, mean_loss - self.delta, self.count(weights, forward.mask))


def _log_sigmoid_loss(beta: float, margin: Tensor, count: Tensor) -> Loss:
    return Loss(torch.where(count > 0, -2 / beta * F.logsigmoid(beta * margin), 0.0), count)
