"""Scores read from the model's own predictive distribution in the same forward pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from expunge.core import Forward, Needs, State
from expunge.registry import NonNegative, Positive, method


@dataclass(frozen=True)
class EntropyOfTop:
    """A `VocabMap`: the entropy of the `top_k` likeliest tokens, renormalised (0: of all); or its share of log K."""

    temperature: float
    top_k: int
    normalised: bool

    @property
    def key(self) -> str:
        return f"entropy temperature={self.temperature} top_k={self.top_k} normalised={self.normalised}"

    @property
    def reads_reference(self) -> bool:
        return False

    def __call__(self, logits: Tensor, reference: Tensor | None, targets: Tensor) -> Tensor:
        z = logits / self.temperature
        if 0 < self.top_k < z.shape[-1]:
            z = z.topk(self.top_k, dim=-1).values
        logp = torch.log_softmax(z, dim=-1)
        entropy = -(logp.exp() * logp).sum(-1)
        return entropy / (math.log(z.shape[-1]) or 1.0) if self.normalised else entropy


@dataclass(frozen=True)
class Collision:
    """A `VocabMap`: 1 - sum_v p_v^2, the probability that two draws differ."""

    @property
    def key(self) -> str:
        return "collision"

    @property
    def reads_reference(self) -> bool:
        return False

    def __call__(self, logits: Tensor, reference: Tensor | None, targets: Tensor) -> Tensor:
        return 1 - torch.softmax(logits, dim=-1).square().sum(-1)


@method("scorer", "entropy")
@dataclass(frozen=True)
class Entropy:
    """H(softmax(z / T)) in nats at the position that predicts the token; from 0 to log V.

    Computed from the current policy at every step, detached, in float32. `top_k` looks at the K likeliest tokens alone,
    renormalised (0: at all); `normalised` divides by the largest value there can be, log V or log K. That factor is the
    same at every token and cancels in the selectors `normalised` and `top`: it is for comparing models.

    Source: ETW (arXiv 2604.17785); temperature 1 is our default (the paper sweeps it per setting).
    Relations: `confidence` sees only the target's own probability; at equal p the entropy can differ by (1-p) log(V-1).

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5], [1.0, 0.0]], targets=[0, 0])
    >>> [round(float(h), 4) for h in Entropy()(f, None)[0, :2]]
    [0.6931, 0.0]
    """

    temperature: Positive = 1.0
    normalised: bool = False
    top_k: Annotated[int, Ge(0)] = 0

    @property
    def _map(self) -> EntropyOfTop | None:
        plain = not self.normalised and self.top_k == 0
        return None if plain else EntropyOfTop(self.temperature, self.top_k, self.normalised)

    @property
    def needs(self) -> Needs:
        if self._map is None:
            return Needs(entropy=frozenset({self.temperature}))
        return Needs(vocab=frozenset({self._map}))

    def __call__(self, forward: Forward, state: State) -> Tensor:
        if self._map is None:
            return forward.policy.entropy[self.temperature].detach()
        return forward.policy.vocab[self._map.key].detach().clamp(min=0).masked_fill(~forward.mask, 0.0)


@method("scorer", "variance")
@dataclass(frozen=True)
class Variance:
    """Var(log p) = sum_v p_v (log p_v)^2 - H^2 of the prediction, in square nats; 0 if it is sure or uniform.

    `of='p'` is 1 - sum_v p_v^2 instead, the probability that two draws differ, in [0, 1).

    Source: our definition; the second moment is the one that Min-K++ (arXiv 2404.02936) standardises with.
    Relations: `entropy` is the mean of -log p whose variance this is.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5], [0.9, 0.1]], targets=[0, 0])
    >>> [round(float(s), 4) for s in Variance()(f, None)[0, :2]]  # 0.9 * 0.1 * (log 9)^2
    [0.0, 0.4345]
    """

    of: Literal["logp", "p"] = "logp"

    @property
    def needs(self) -> Needs:
        if self.of == "p":
            return Needs(vocab=frozenset({Collision()}))
        return Needs(second_moment=True, entropy=frozenset({1.0}))

    def __call__(self, forward: Forward, state: State) -> Tensor:
        if self.of == "p":
            found = forward.policy.vocab[Collision().key].detach()
        else:
            assert forward.policy.second_moment is not None
            found = forward.policy.second_moment - forward.policy.entropy[1.0].detach().square()
        return found.clamp(min=0).masked_fill(~forward.mask, 0.0)


@method("scorer", "confidence")
@dataclass(frozen=True)
class Confidence:
    """p^beta, the probability of the target under the current policy; in [0, 1].

    Source: WGA (Wang et al., ICLR 2025, arXiv 2502.19301); beta 1 as in OpenUnlearning, 5 in the authors'
    code. SimSat (arXiv 2505.11953) is the same score.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5], [0.25, 0.75]], targets=[0, 0])
    >>> [round(float(s), 4) for s in Confidence(beta=2)(f, None)[0, :2]]
    [0.25, 0.0625]
    """

    beta: NonNegative = 1.0

    @property
    def needs(self) -> Needs:
        return Needs()

    def __call__(self, forward: Forward, state: State) -> Tensor:
        p = forward.policy.logp.detach().exp()
        return (p**self.beta).masked_fill(~forward.mask, 0.0)


@method("scorer", "satimp")
@dataclass(frozen=True)
class SatImp:
    """p^beta1 * (1 - p)^beta2: saturation times importance; in [0, 1].

    Source: SatImp (Yang et al., ICML 2025, arXiv 2505.11953); defaults are the authors' recommendation,
    OpenUnlearning ships beta2 = 1.
    Relations: beta2 = 0 is `confidence` (SimSat); beta1 = 0 is SimImp. Hard sampling by the loss is `top` of
    `satimp:beta1=0,beta2=1` (the highest losses), of `confidence` (the lowest), of `random`.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5], [0.25, 0.75]], targets=[0, 0])
    >>> [round(float(s), 4) for s in SatImp(beta1=1, beta2=1)(f, None)[0, :2]]
    [0.25, 0.1875]
    """

    beta1: NonNegative = 5.0
    beta2: NonNegative = 0.1

    @property
    def needs(self) -> Needs:
        return Needs()

    def __call__(self, forward: Forward, state: State) -> Tensor:
        logp = forward.policy.logp.detach()
        missing = -logp.clamp(max=0.0).expm1()
        return (logp.exp() ** self.beta1 * missing**self.beta2).masked_fill(~forward.mask, 0.0)


@method("scorer", "surprisal")
@dataclass(frozen=True)
class Surprisal:
    """-log p of the token under the current policy, in nats: its loss.

    Source: our definition; `frozen:score=surprisal` is what SEUL (arXiv 2402.05813) selects by.
    Relations: `base-surprise` is the same under another model; `1 - p` orders tokens alike.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5], [1.0, 0.0]], targets=[0, 0])
    >>> [round(float(s), 4) for s in Surprisal()(f, None)[0, :2]]
    [0.6931, 0.0]
    """

    @property
    def needs(self) -> Needs:
        return Needs()

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return (0.0 - forward.policy.logp.detach()).clamp(min=0.0).masked_fill(~forward.mask, 0.0)
