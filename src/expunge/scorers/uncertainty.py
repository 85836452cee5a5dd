"""Scores read from the model's own predictive distribution in the same forward pass."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from expunge.core import Forward, Needs, State
from expunge.registry import NonNegative, Positive, method


@method("scorer", "entropy")
@dataclass(frozen=True)
class Entropy:
    """H(softmax(z / T)) in nats at the position that predicts the token; from 0 to log V.

    Computed from the current policy at every step, detached, in float32.

    Source: ETW (arXiv 2604.17785); temperature 1 is our default (the paper sweeps it per setting).
    Relations: `confidence` sees only the target's own probability; at equal p the entropy can differ by (1-p) log(V-1).

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5], [1.0, 0.0]], targets=[0, 0])
    >>> [round(float(h), 4) for h in Entropy()(f, None)[0, :2]]
    [0.6931, 0.0]
    """

    temperature: Positive = 1.0

    @property
    def needs(self) -> Needs:
        return Needs(entropy=frozenset({self.temperature}))

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return forward.policy.entropy[self.temperature].detach()


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
    Relations: beta2 = 0 is `confidence` (SimSat); beta1 = 0 is SimImp.

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
