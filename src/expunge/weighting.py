"""Selectors (scores become weights) and controls (the same weights on the wrong tokens).

METHODS of the literature enter here once: proportional weights that sum to the number of tokens (ETW), raw values
(WGA, SatImp), the top share (TokenUnlearn), thresholds (SU, SEUL, TIF).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from expunge.core import Selector, Weights, random_scores
from expunge.registry import Share, combiner, method

Control = Literal["none", "random", "shuffle", "invert"]
FLAT = 1e-6
"""Scores of a sequence that differ by less tell nothing apart; it gets uniform weights and is counted."""


@method("selector", "raw")
@dataclass(frozen=True)
class Raw:
    """The scores themselves as weights; they must be >= 0.

    Source: how WGA (arXiv 2502.19301) and SatImp (arXiv 2505.11953) use their scores.
    Relations: `normalised` rescales each sequence so that its weights sum to its number of tokens.

    >>> scores, mask = torch.tensor([[0.5, 0.1, 0.0]]), torch.tensor([[True, True, False]])
    >>> Raw()(scores, mask).value.tolist()
    [[0.5, 0.10000000149011612, 0.0]]
    """

    @property
    def hard(self) -> bool:
        return False

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        return Weights(torch.where(mask, scores, 0.0), mask)


@method("selector", "normalised")
@dataclass(frozen=True)
class Normalised:
    """w_i = n * s_i / sum_j s_j: proportional weights that sum to the number of scored tokens of the sequence.

    Where sum_j s_j < 1e-6 * n the scores have vanished, and w = 1.

    Source: ETW (arXiv 2604.17785).
    Relations: constant factors of a score cancel here, so H / log V equals H.

    >>> scores, mask = torch.tensor([[3.0, 1.0, 9.0]]), torch.tensor([[True, True, False]])
    >>> Normalised()(scores, mask).value.tolist()
    [[1.5, 0.5, 0.0]]
    """

    @property
    def hard(self) -> bool:
        return False

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        s = torch.where(mask, scores, 0.0)
        n = mask.sum(-1, keepdim=True).to(s.dtype)
        total = s.sum(-1, keepdim=True)
        vanished = total <= FLAT * n  # also in a sequence without tokens, where both are 0
        value = torch.where(vanished, mask.to(s.dtype), n * s / torch.where(vanished, 1.0, total))
        return Weights(value, mask, flat=int((vanished & (n > 0)).sum()))


@method("selector", "top")
@dataclass(frozen=True)
class Top:
    """Weight 1 on the k = max(1, ceil(r * n)) highest scores of each sequence, ties to the earliest token.

    A sequence whose scores differ by less than 1e-6 has no top: all its tokens get weight 1, and it is counted.

    Source: TokenUnlearn (arXiv 2605.00364), hard selection; r = 0.3 is our default (the paper's was not found).

    >>> scores, mask = torch.tensor([[0.1, 0.9, 0.9, 0.2]]), torch.ones(1, 4, dtype=torch.bool)
    >>> Top(r=0.25)(scores, mask).value.tolist()
    [[0.0, 1.0, 0.0, 0.0]]
    """

    r: Share = 0.3

    @property
    def hard(self) -> bool:
        return True

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        chosen = torch.zeros_like(mask)
        flat = 0
        for row in range(mask.shape[0]):
            where = mask[row].nonzero()[:, 0]
            if len(where) == 0:
                continue
            s = scores[row, where]
            if float(s.max() - s.min()) < FLAT and len(where) > 1:
                flat += 1
                chosen[row, where] = True
                continue
            k = max(1, math.ceil(self.r * len(where) - 1e-9))
            chosen[row, where[torch.sort(s, descending=True, stable=True).indices[:k]]] = True
        return Weights(chosen.to(scores.dtype), chosen, flat=flat)


@method("selector", "threshold")
@dataclass(frozen=True)
class Threshold:
    """Weight 1 on tokens whose score exceeds `value`, or, if that is not set, mean + k * std of their sequence.

    A sequence whose scores differ by less than 1e-6 has no mean to stand out from: all its tokens get weight 1, and it
    is counted. A fixed `value` may select none.

    Source: SU and SEUL (arXiv 2506.00876, 2402.05813) use mean + k * std; a fixed value cuts annotations.
    Differs: the standard deviation is the population's (divided by n).

    >>> scores, mask = torch.tensor([[1.0, 3.0, 8.0]]), torch.ones(1, 3, dtype=torch.bool)
    >>> Threshold()(scores, mask).value.tolist()
    [[0.0, 0.0, 1.0]]
    """

    value: float | None = None
    k: float = 0.0

    @property
    def hard(self) -> bool:
        return True

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        if self.value is not None:
            chosen = mask & (scores > self.value)
            return Weights(chosen.to(scores.dtype), chosen)
        n = mask.sum(-1, keepdim=True).clamp(min=1)
        mean = torch.where(mask, scores, 0.0).sum(-1, keepdim=True) / n
        variance = torch.where(mask, (scores - mean) ** 2, 0.0).sum(-1, keepdim=True) / n
        flat = mask.any(-1, keepdim=True) & (_range(scores, mask) < FLAT)
        chosen = mask & (flat | (scores > mean + self.k * variance.sqrt()))
        return Weights(chosen.to(scores.dtype), chosen, flat=int((flat & (n > 1)).sum()))


@dataclass(frozen=True)
class Chain:
    """Selectors one after the other: each reads the weights before it as its scores."""

    parts: tuple[Selector, ...]

    @property
    def hard(self) -> bool:
        return any(part.hard for part in self.parts)

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        weights = self.parts[0](scores, mask)
        for part in self.parts[1:]:
            following = part(weights.value, mask)
            weights = Weights(following.value, following.mask, flat=weights.flat + following.flat)
        return weights

    def __str__(self) -> str:
        return " > ".join(map(str, self.parts))


combiner("selector")(Chain)


def controlled(
    select: Selector, scores: Tensor, mask: Tensor, control: Control, draws: Callable[[int], torch.Generator]
) -> Weights:
    """The weights a control run uses in place of `select(scores, mask)`.

    `random`: scores drawn uniformly, through the same selector. `invert`: min + max - score of each sequence, through
    the same selector. `shuffle`: the true weights, permuted among the scored tokens of their sequence (same count, sum
    and histogram). `draws(row)` must return a generator that depends on the record only: the control stays on the same
    tokens through the run, as the method it controls for does.
    """
    if control == "none":
        return select(scores, mask)
    if control == "random":
        return select(random_scores(mask, draws), mask)
    if control == "invert":
        low = torch.where(mask, scores, math.inf).amin(-1, keepdim=True)
        high = torch.where(mask, scores, -math.inf).amax(-1, keepdim=True)
        return select(torch.where(mask, low + high - scores, 0.0), mask)
    weights = select(scores, mask)
    value, chosen = weights.value.clone(), weights.mask.clone()
    for row in range(mask.shape[0]):
        where = mask[row].nonzero()[:, 0]
        order = where[torch.randperm(len(where), generator=draws(row)).to(where.device)]
        value[row, where], chosen[row, where] = weights.value[row, order], weights.mask[row, order]
    return Weights(value, chosen, flat=weights.flat)


def _range(scores: Tensor, mask: Tensor) -> Tensor:
    """(B, 1) the highest less the lowest score of each sequence; -inf where nothing is scored."""
    low = torch.where(mask, scores, math.inf).amin(-1, keepdim=True)
    return torch.where(mask, scores, -math.inf).amax(-1, keepdim=True) - low
