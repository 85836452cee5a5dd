"""Cross-entropy to soft targets: a teacher without the answer (UNDIAL, CE-U), or a neighbourhood to be left (BS-T)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from expunge.core import (
    IGNORE,
    Couples,
    Denominator,
    Forward,
    Loss,
    Needs,
    Reduction,
    Weights,
    weighted,
    weighted_count,
)
from expunge.errors import MethodError
from expunge.registry import Positive, Share, method


@dataclass(frozen=True)
class ToReduced:
    """A `VocabMap`: CE of the policy to softmax(z_ref - beta * onehot(y)), in nats; y the target, or `entry`."""

    beta: float
    entry: int | None = None

    @property
    def key(self) -> str:
        return f"reduced beta={self.beta} entry={self.entry}"

    @property
    def reads_reference(self) -> bool:
        return True

    def __call__(self, logits: Tensor, reference: Tensor | None, targets: Tensor) -> Tensor:
        assert reference is not None
        at = targets if self.entry is None else torch.full_like(targets, self.entry % logits.shape[-1])
        less = torch.full(targets.shape, -self.beta, dtype=logits.dtype, device=logits.device)
        lowered = reference.to(logits.dtype).scatter_add(1, at[:, None], less[:, None])
        return _cross_entropy(torch.softmax(lowered, dim=-1), logits)


@method("objective", "undial")
@dataclass(frozen=True)
class Undial:
    """sum_i w_i CE(softmax(z_ref - beta * onehot(y)), p) / denominator, in nats: the reference less sure of the answer.

    Bounded below by the teacher's entropy. `positions='predicting'` reads every position but the last of the padded
    rectangle, and divides by B * (T - 1); where nothing is scored it lowers the entry V - 100 of the vocabulary, as
    OpenUnlearning does. Weights have no meaning there.

    Source: UNDIAL (Dong et al., arXiv 2402.10052); beta 10 as in OpenUnlearning.
    Differs: OpenUnlearning averages over prompt and padding, where the label -100 is read as an index:
    positions=predicting is its number.
    Relations: `ceu` takes the policy itself as the teacher and the answer out of it altogether.

    >>> from expunge.testing import forward_from_probabilities
    >>> from math import log
    >>> f = forward_from_probabilities(
    ...     [[0.5, 0.5]], targets=[0], reference=[[0.75, 0.25]], vocab=[ToReduced(log(3.0))]
    ... )
    >>> loss = Undial(beta=log(3.0))(f, Weights.ones(f.mask))  # the teacher is [.25, .25] / .5 = [.5, .5]
    >>> round(float(loss.value), 4)
    0.6931
    """

    beta: Positive = 10.0
    reduction: Reduction = "token"
    denominator: Denominator = "scored"
    positions: Literal["scored", "predicting"] = "scored"

    def __post_init__(self) -> None:
        if self.positions == "predicting" and self.reduction != "token":
            raise MethodError(
                f"objective 'undial': positions=predicting is a mean over positions; found reduction={self.reduction}"
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
        if self.positions == "scored":
            return Needs(vocab=frozenset({ToReduced(self.beta)}))
        return Needs(vocab=frozenset({ToReduced(self.beta), ToReduced(self.beta, IGNORE)}), everywhere=True)

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        if self.positions == "predicting":
            return weights.value.new_full((scored.shape[0],), float(scored.shape[1] - 1))
        return weighted_count(weights, scored, self.reduction, self.denominator)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        values = forward.policy.vocab[ToReduced(self.beta).key]
        if self.positions == "scored":
            return weighted(values, weights, forward.mask, self.reduction, self.denominator)
        values = torch.where(forward.mask, values, forward.policy.vocab[ToReduced(self.beta, IGNORE).key])
        return Loss(values[:, :-1].sum(-1), self.count(weights, forward.mask))


@dataclass(frozen=True)
class ToOthers:
    """A `VocabMap`: CE of the policy to its own distribution without the target, which is held fixed; in nats."""

    @property
    def key(self) -> str:
        return "others"

    @property
    def reads_reference(self) -> bool:
        return False

    def __call__(self, logits: Tensor, reference: Tensor | None, targets: Tensor) -> Tensor:
        others = logits.detach().scatter(1, targets[:, None], -torch.inf)
        return _cross_entropy(torch.softmax(others, dim=-1), logits)


@method("objective", "ceu")
@dataclass(frozen=True)
class CEU:
    """sum_i w_i CE(q, p) / denominator, in nats; q = softmax(z) without the target's entry, without gradient.

    Its gradient is p - q: the target's probability goes to the other tokens, each in proportion to its own, and the
    push fades as the target's probability does.

    Source: CE-U (Yang, arXiv 2503.01224), nothing retained; OpenUnlearning's form leaves out the first answer token
    and takes the mean over the rest: ceu:denominator=selected with select skip:n=1.
    Differs: which tokens are left out is the selector's matter here.
    Relations: `undial` holds the teacher at the reference.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.25, 0.25]], targets=[0], vocab=[ToOthers()])
    >>> round(float(CEU()(f, Weights.ones(f.mask)).value), 4)  # q = [0, 1/2, 1/2]: -log 0.25
    1.3863
    """

    couples: ClassVar[Couples] = "sequence"

    reduction: Reduction = "token"
    denominator: Denominator = "scored"

    @property
    def needs(self) -> Needs:
        return Needs(vocab=frozenset({ToOthers()}))

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return weighted_count(weights, scored, self.reduction, self.denominator)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        values = forward.policy.vocab[ToOthers().key]
        return weighted(values, weights, forward.mask, self.reduction, self.denominator)


@dataclass(frozen=True)
class NearTop:
    """A `VocabMap`: sum_v q_v log p_v, q the policy's `top_k` likeliest tokens, renormalised, without gradient."""

    top_k: int

    @property
    def key(self) -> str:
        return f"near-top {self.top_k}"

    @property
    def reads_reference(self) -> bool:
        return False

    def __call__(self, logits: Tensor, reference: Tensor | None, targets: Tensor) -> Tensor:
        logp = torch.log_softmax(logits, dim=-1)
        held, at = logits.detach().topk(min(self.top_k, logits.shape[-1]), dim=-1)
        return (torch.softmax(held, dim=-1) * logp.gather(1, at)).sum(-1)


@method("objective", "bst")
@dataclass(frozen=True)
class BootstrappedTarget:
    """sum_i w_i <t_i, log p> / denominator, to be minimised; t_i = lam * q_i + (1 - lam) * onehot(y_i).

    q_i: the policy's own `top_k` likeliest tokens, renormalised, without gradient. What ascent would push the answer's
    mass onto, its near-synonyms, is pushed down with it. Unbounded below.

    Source: BS-T (Li et al., ICLR 2026, arXiv 2510.19422).
    Differs: k and lam were not found; 10 and 0.3 are our defaults, and so is that q sums to 1.
    Relations: lam=0 is `ga`. BS-S, over answers that the model samples, is
    `alternative:alternatives=own` with a factor below 0.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.25, 0.25]], targets=[1], vocab=[NearTop(1)])
    >>> loss = BootstrappedTarget(lam=0.5, top_k=1)(f, Weights.ones(f.mask))
    >>> round(float(loss.value), 4)  # (log 0.5 + log 0.25) / 2
    -1.0397
    """

    couples: ClassVar[Couples] = "sequence"

    lam: Share = 0.3
    top_k: Annotated[int, Ge(1)] = 10
    reduction: Reduction = "token"
    denominator: Denominator = "scored"

    @property
    def needs(self) -> Needs:
        return Needs(vocab=frozenset({NearTop(self.top_k)}))

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return weighted_count(weights, scored, self.reduction, self.denominator)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        near = forward.policy.vocab[NearTop(self.top_k).key]
        values = self.lam * near + (1 - self.lam) * forward.policy.logp
        return weighted(values, weights, forward.mask, self.reduction, self.denominator)


def _cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    return -(target * torch.log_softmax(logits, dim=-1)).sum(-1)
