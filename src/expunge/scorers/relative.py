"""Scores that compare the policy with the frozen reference, token by token."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from expunge.core import Forward, Needs, State
from expunge.registry import NonNegative, Positive, method


@method("scorer", "tnpo")
@dataclass(frozen=True)
class TNPO:
    """2 p^(beta + alpha) / (p^beta + p_ref^beta + epsilon): 1 at the start (alpha 0), fading as the token is forgotten.

    In [0, 2). `alpha=1.5` is WTNPO: TNPO times p^alpha. `epsilon` keeps it finite, and makes it fade where both
    probabilities are small too: at beta 4 and p = p_ref = 0.05 it is 0.56.

    Source: TNPO and WTNPO (Wang et al., ICLR 2025, arXiv 2502.19301), the authors' code: beta 4, alpha 1.5.
    Relations: `npo` has the same factor for a whole sequence, in place of each token; alpha alone is `confidence`.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]] * 2, targets=[0, 0], reference=[[0.5, 0.5], [1.0, 0.0]])
    >>> [round(float(s), 3) for s in TNPO(beta=1)(f, None)[0, :2]]  # 2 * 0.5 / (0.5 + 0.5), 2 * 0.5 / (0.5 + 1)
    [1.0, 0.667]
    """

    beta: Positive = 4.0
    alpha: NonNegative = 0.0
    epsilon: Positive = 1e-5

    @property
    def needs(self) -> Needs:
        return Needs(reference=True)

    def __call__(self, forward: Forward, state: State) -> Tensor:
        assert forward.reference is not None
        p, before = forward.policy.logp.detach().exp(), forward.reference.logp.detach().exp()
        score = 2 * p ** (self.beta + self.alpha) / (p**self.beta + before**self.beta + self.epsilon)
        return score.masked_fill(~forward.mask, 0.0)
