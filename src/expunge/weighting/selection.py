"""Selectors that look at one score at a time: as it is, in proportion, the highest, those above a threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from expunge.core import Weights
from expunge.registry import Positive, Share, method

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

    hard: ClassVar[bool] = False
    signed: ClassVar[bool] = False

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

    hard: ClassVar[bool] = False
    signed: ClassVar[bool] = False

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

    `k` is that number itself, where it is given (0: the share `r` decides). A sequence whose scores differ by less than
    1e-6 has no top: all its tokens get weight 1, and it is counted.

    Source: TokenUnlearn (arXiv 2605.00364), hard selection; r = 0.3 is our default (the paper's was not found).

    >>> scores, mask = torch.tensor([[0.1, 0.9, 0.9, 0.2]]), torch.ones(1, 4, dtype=torch.bool)
    >>> Top(r=0.25)(scores, mask).value.tolist()
    [[0.0, 1.0, 0.0, 0.0]]
    """

    r: Share = 0.3
    k: Annotated[int, Ge(0)] = 0

    hard: ClassVar[bool] = True
    signed: ClassVar[bool] = True

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
            k = self.k or max(1, math.ceil(self.r * len(where) - 1e-9))
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

    hard: ClassVar[bool] = True
    signed: ClassVar[bool] = True

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


@method("selector", "softmax")
@dataclass(frozen=True)
class Softmax:
    """w_i = n * softmax(s / T)_i over the scored tokens of a sequence: soft weights that sum to their number.

    Scores of any sign and scale; a large T spreads the weight evenly, a small one puts it on the highest score. A
    sequence whose scores differ by less than 1e-6 gets w = 1, and is counted.

    Source: our definition.
    Relations: `normalised` is proportional to the scores themselves; `top` is hard.

    >>> scores, mask = torch.tensor([[math.log(3.0), 0.0, 9.0]]), torch.tensor([[True, True, False]])
    >>> Softmax()(scores, mask).value.round(decimals=4).tolist()
    [[1.5, 0.5, 0.0]]
    """

    temperature: Positive = 1.0

    hard: ClassVar[bool] = False
    signed: ClassVar[bool] = True

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        n = mask.sum(-1, keepdim=True)
        flat = (n > 0) & (_range(scores, mask) < FLAT)
        lowest = torch.finfo(scores.dtype).min
        share = torch.softmax(torch.where(mask, scores / self.temperature, lowest), dim=-1)
        value = torch.where(flat, torch.ones_like(share), n * share)
        return Weights(torch.where(mask, value, 0.0), mask, flat=int((flat & (n > 1)).sum()))


def _range(scores: Tensor, mask: Tensor) -> Tensor:
    """(B, 1) the highest less the lowest score of each sequence; -inf where nothing is scored."""
    low = torch.where(mask, scores, math.inf).amin(-1, keepdim=True)
    return torch.where(mask, scores, -math.inf).amax(-1, keepdim=True) - low
