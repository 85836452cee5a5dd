"""Jensen-Shannon divergences: to a refusal's tokens on what is forgotten, to the reference on what is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from expunge.core import Couples, Denominator, Forward, Loss, Needs, Reduction, Weights, weighted, weighted_count
from expunge.errors import MethodError
from expunge.registry import method

Mass = Literal["shared", "each"]


@dataclass(frozen=True)
class ToTokens:
    """A `VocabMap`: JS(p, q) in nats, q uniform over the tokens `ids`, or (mass='each') 1 at each of them."""

    ids: tuple[int, ...]
    mass: Mass

    @property
    def key(self) -> str:
        return f"js to {' '.join(map(str, self.ids))} {self.mass}"

    @property
    def reads_reference(self) -> bool:
        return False

    def __call__(self, logits: Tensor, reference: Tensor | None, targets: Tensor) -> Tensor:
        if not self.ids or max(self.ids) >= logits.shape[-1]:
            raise MethodError(
                f"objective 'jensun': the tokens of a refusal must be in the vocabulary, which has {logits.shape[-1]}; "
                f"found {list(self.ids)}. In a recipe, leave ids out: this model's tokenizer gives them"
            )
        logp = torch.log_softmax(logits, dim=-1)
        at = torch.tensor(self.ids, device=logits.device)
        log_q = 0.0 if self.mass == "each" else -math.log(len(self.ids))
        own = logp[:, at]
        middle = torch.logaddexp(own, torch.full_like(own, log_q)) - math.log(2)
        # where q is 0, log p - log m is log 2
        inside = (own.exp() * (own - middle - math.log(2))).sum(-1) + math.log(2)
        return 0.5 * inside + 0.5 * (math.exp(log_q) * (log_q - middle)).sum(-1)


@method("objective", "jensun")
@dataclass(frozen=True)
class JensUn:
    """sum_i w_i JS(p_i, q) / denominator, in nats: every weighted token becomes one of a refusal's.

    q is uniform over the different tokens of `refusal` by the model's tokenizer, or over `ids` (token ids with spaces
    between), where they are given. JS lies in [0, log 2], and its gradient stays bounded. `mass='each'` puts 1 on each
    of the tokens, which is no distribution then.

    Source: JensUn (arXiv 2509.02820), as re-implemented elsewhere: a refusal of two tokens, ids 2822 4623 for Llama-3
    and 1939 2969 for Phi; on the retain set `js`; both at 0.5.
    Differs: the released code does not normalise the two masses: mass=each.
    Relations: `undial` and `ceu` say what the answer is not; this one what it is instead.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]], targets=[1], vocab=[ToTokens((0,), "shared")])
    >>> round(float(JensUn(ids="0")(f, Weights.ones(f.mask)).value), 4)  # (log 4/3 + (log 2/3 + log 2) / 2) / 2
    0.2158
    """

    couples: ClassVar[Couples] = "sequence"

    refusal: str = "No idea"
    ids: str = ""
    mass: Mass = "shared"
    reduction: Reduction = "token"
    denominator: Denominator = "scored"

    def __post_init__(self) -> None:
        if not all(part.isdecimal() for part in self.ids.split()):
            raise MethodError(f"objective 'jensun': ids are token ids with spaces between (got '{self.ids}')")
        if not self.ids.strip() and not self.refusal.strip():
            raise MethodError("objective 'jensun' needs a refusal, or ids")

    @property
    def map(self) -> ToTokens:
        """What is computed from logits."""
        return ToTokens(tuple(sorted({int(part) for part in self.ids.split()})), self.mass)

    @property
    def needs(self) -> Needs:
        return Needs(vocab=frozenset({self.map}))

    def worded(self, ids_of: Callable[[str], list[int]]) -> JensUn:
        """The objective with the tokens of its refusal: `ids_of` is the model's tokenizer."""
        return self if self.ids.strip() else replace(self, ids=" ".join(map(str, ids_of(self.refusal))))

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return weighted_count(weights, scored, self.reduction, self.denominator)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        values = forward.policy.vocab[self.map.key]
        return weighted(values, weights, forward.mask, self.reduction, self.denominator)


@dataclass(frozen=True)
class JensenShannon:
    """A `VocabMap`: JS(p, p_ref) of each token's distributions, in nats."""

    @property
    def key(self) -> str:
        return "js"

    @property
    def reads_reference(self) -> bool:
        return True

    def __call__(self, logits: Tensor, reference: Tensor | None, targets: Tensor) -> Tensor:
        assert reference is not None
        one, two = torch.log_softmax(logits, dim=-1), torch.log_softmax(reference.to(logits.dtype), dim=-1)
        middle = torch.logaddexp(one, two) - math.log(2)
        return 0.5 * (one.exp() * (one - middle) + two.exp() * (two - middle)).sum(-1)


@method("objective", "js")
@dataclass(frozen=True)
class JSToReference:
    """sum_i w_i JS(p_i, p_ref,i) / denominator, in nats, in [0, log 2].

    Source: the retain term of JensUn (arXiv 2509.02820).
    Relations: `kl` is unbounded, and not symmetric.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[1.0, 0.0]], targets=[0], reference=[[0.5, 0.5]], vocab=[JensenShannon()])
    >>> round(float(JSToReference()(f, Weights.ones(f.mask)).value), 4)  # as in `jensun`
    0.2158
    """

    couples: ClassVar[Couples] = "sequence"

    reduction: Reduction = "token"
    denominator: Denominator = "scored"

    @property
    def needs(self) -> Needs:
        return Needs(vocab=frozenset({JensenShannon()}))

    def count(self, weights: Weights, scored: Tensor) -> Tensor:
        return weighted_count(weights, scored, self.reduction, self.denominator)

    def __call__(self, forward: Forward, weights: Weights) -> Loss:
        values = forward.policy.vocab[JensenShannon().key]
        return weighted(values, weights, forward.mask, self.reduction, self.denominator)
