"""Targeted preference optimisation: push down the unwanted words of an answer, hold the general ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core import (
    Couples,
    Denominator,
    Forward,
    Loss,
    Needs,
    Reduction,
    TokenStats,
    Weights,
    row_sum,
    weighted,
    weighted_count,
)
from expunge.registry import Positive, method

Space = Literal["logit", "logprob", "probability"]


@method("objective", "lpl")
@dataclass(frozen=True)
class LogitPreference:
    """-(2/beta) log sigmoid(beta * d) a sequence; d = sum_i w_i (z_ref,i - z_i) / sum_i w_i, z the target's raw logit.

    d is how far the mean logit of the weighted tokens has fallen below the reference's: 0 at the start, where the
    gradient is that of -d; it fades as 2 sigmoid(-beta d), and the loss never falls below 0. Averaged over the
    sequences with weight on a token; one without contributes nothing. `sigmoid='batch'` puts the mean of d over those
    sequences inside the sigmoid. Then sequences are coupled, and accumulation changes the result. `space` compares
    log-probabilities or probabilities instead of logits.

    Source: LPL of TIF (Zhou et al., arXiv 2506.03142), the paper's form; beta 0.1 to 0.5 there, 0.25 in its sweep of
    the preservation weight.
    Differs: the authors' code is sigmoid=batch, and NaN as soon as one sequence has no unwanted token.
    Relations: `npo` sums log-probabilities where this averages logits. A logit falls without the other logits of its
    row; a log-probability also falls if all others rise.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.25, 0.75]], targets=[0], reference=[[0.5, 0.5]])
    >>> loss = LogitPreference(beta=1.0)(f, Weights.ones(f.mask))
    >>> round(float(loss.value), 4)  # logits are log-probabilities here: d = log 2, -2 log sigmoid(log 2) = 2 log 1.5
    0.8109
    """

    beta: Positive = 0.25
    space: Space = "logit"
    sigmoid: Literal["sequence", "batch"] = "sequence"

    @property
    def couples(self) -> Couples:
        return "batch" if self.sigmoid == "batch" else "sequence"

    @property
    def needs(self) -> Needs:
        return Needs(reference=True)

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return (weights.value.sum(-1) > 0).to(weights.value.dtype)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        assert forward.reference is not None
        fall = _compared(forward.reference, self.space) - _compared(forward.policy, self.space)
        total = weights.value.sum(-1)
        margin = row_sum(fall, weights.value) / torch.where(total > 0, total, 1.0)
        count = self.count(weights, forward.mask)
        if self.sigmoid == "batch":
            margin = (margin.sum() / count.sum().clamp(min=1)).expand_as(count)
        return Loss(torch.where(count > 0, -2 / self.beta * F.logsigmoid(self.beta * margin), 0.0), count)


@method("objective", "preserve")
@dataclass(frozen=True)
class Preserve:
    """sum_i w_i (-log p_i) of the general tokens: cross-entropy on what stands beside the unwanted words.

    Reduction: 'sum' (default) is the mean over sequences of their sums, 'sequence' of their means, 'token' the mean
    over all general tokens of the global batch.

    Source: PL of TIF (Zhou et al., arXiv 2506.03142), the sum as in its code; the weight is the term's coefficient,
    0 to 0.01 in the paper and 1 in the code for TOFU.
    Differs: a sequence without a general token is left out of the mean; with the end token scored there is none.
    Relations: `nll:reduction=sum` is the same number; this one's token mean divides by the tokens it reads.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5], [0.25, 0.75]], targets=[0, 0])
    >>> loss = Preserve()(f, Weights.ones(f.mask))
    >>> round(float(loss.value / loss.count), 4)  # -(log 0.5 + log 0.25)
    2.0794
    """

    couples: ClassVar[Couples] = "sequence"

    reduction: Reduction = "sum"
    denominator: Denominator = "selected"

    @property
    def needs(self) -> Needs:
        return Needs()

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return weighted_count(weights, scored, self.reduction, self.denominator)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        return weighted(-forward.policy.logp, weights, forward.mask, self.reduction, self.denominator)


def _compared(stats: TokenStats, space: Space) -> Tensor:
    """(B, T) what `space` names of each target."""
    if space == "logit":
        return stats.label_logit
    return stats.logp if space == "logprob" else stats.logp.exp()
