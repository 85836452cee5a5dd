"""Logits brought to their mean: a prediction that says nothing, without naming what is said instead (PDU, PALU)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from expunge.core import Couples, Denominator, Forward, Loss, Needs, Reduction, Weights, weighted, weighted_count
from expunge.registry import method

Of = Literal["policy", "reference"]


@dataclass(frozen=True)
class TopToMean:
    """A `VocabMap`: mean_{k in top K} (z_k - mean_v z_v)^2, the top K by the logits of `of`; gradient through both."""

    top_k: int
    of: Of

    @property
    def key(self) -> str:
        return f"top {self.top_k} of {self.of} to mean"

    @property
    def reads_reference(self) -> bool:
        return self.of == "reference"

    def __call__(self, logits: Tensor, reference: Tensor | None, targets: Tensor) -> Tensor:
        ranked = logits.detach() if reference is None else reference
        top = ranked.topk(min(self.top_k, logits.shape[-1]), dim=-1).indices
        return (logits.gather(1, top) - logits.mean(-1, keepdim=True)).square().mean(-1)


@method("objective", "flatten")
@dataclass(frozen=True)
class Flatten:
    """sum_i w_i mean_{k in top K} (z_ik - mean_v z_iv)^2 / denominator: the highest logits brought to the mean of all.

    `of` says whose top it is, the policy's own at each step or the frozen reference's. Bounded below by 0, reached by a
    uniform prediction. `positions='own'` reads the logits at the weighted tokens themselves, those that predict the
    token after each.

    Source: the forget objective of PDU (arXiv 2506.05314), top_k=1; PALU (Zhai et al., ACL 2026, arXiv 2601.03190),
    of=reference, K 1 to 10000 in its scripts.
    Differs: OpenUnlearning's PDU does not shift its mask: positions=own is its number.
    Relations: `select: threshold:value=0 > onset:n=3` are the tokens PALU flattens.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.25, 0.25]], targets=[0], vocab=[TopToMean(1, "policy")])
    >>> round(float(Flatten()(f, Weights.ones(f.mask)).value), 4)  # (2/3 log 2)^2
    0.2135
    """

    couples: ClassVar[Couples] = "sequence"

    top_k: Annotated[int, Ge(1)] = 1
    of: Of = "policy"
    reduction: Reduction = "token"
    denominator: Denominator = "scored"
    positions: Literal["scored", "own"] = "scored"

    @property
    def needs(self) -> Needs:
        return Needs(vocab=frozenset({TopToMean(self.top_k, self.of)}), everywhere=self.positions == "own")

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return weighted_count(weights, scored, self.reduction, self.denominator)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        values = forward.policy.vocab[TopToMean(self.top_k, self.of).key]
        if self.positions == "own":
            values = F.pad(values[:, 1:], (0, 1))  # a token's own logits stand one place behind those that predict it
        return weighted(values, weights, forward.mask, self.reduction, self.denominator)
