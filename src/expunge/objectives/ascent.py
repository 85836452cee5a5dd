"""Gradient ascent on the answer's tokens: GA, and with other weights GradDiff, WGA, SatImp and ETW."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from expunge.core import Couples, Denominator, Forward, Loss, Needs, Reduction, Weights, weighted, weighted_count
from expunge.registry import method


@method("objective", "ga")
@dataclass(frozen=True)
class GradientAscent:
    """sum_i w_i log p_i / denominator, to be minimised: the weighted tokens become less likely. Unbounded below.

    Reduction: 'token' (default) is the mean over the scored tokens of the global batch, as in OpenUnlearning's
    GradAscent, WGA and SatImp; 'sequence' the mean of sequence means; 'sum' the mean of sequence sums.
    `denominator='selected'` divides by the sum of the weights instead.

    Source: GA and GradDiff as in TOFU (arXiv 2401.06121); weights as in WGA (2502.19301), SatImp (2505.11953) and
    ETW (2604.17785).
    Relations: `npo` bounds it from below.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5], [0.25, 0.75]], targets=[0, 0])
    >>> loss = GradientAscent()(f, Weights.ones(f.mask))
    >>> round(float(loss.value / loss.count), 4)  # (log 0.5 + log 0.25) / 2
    -1.0397
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
        return weighted(forward.policy.logp, weights, forward.mask, self.reduction, self.denominator)
