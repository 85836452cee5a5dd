"""The weighted sum of scorers: `0.5*masking+0.5*entropy`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from expunge.core import Forward, Needs, Scorer, State
from expunge.registry import combiner


@dataclass(frozen=True)
class Mix:
    """sum_k c_k * minmax(s_k): each part scaled to [0, 1] over the scored tokens of its sequence, 0 where it is flat.

    Source: TokenUnlearn (arXiv 2605.00364) adds masking attribution and entropy so.

    >>> from expunge.registry import build
    >>> str(build("scorer", "0.5*entropy:temperature=2.0+0.5*confidence"))
    '0.5*entropy:temperature=2.0+0.5*confidence'
    """

    parts: tuple[tuple[float, Scorer], ...]

    @property
    def needs(self) -> Needs:
        return reduce(Needs.__or__, (scorer.needs for _, scorer in self.parts))

    def __call__(self, forward: Forward, state: State) -> Tensor:
        states = state if state is not None else (None,) * len(self.parts)
        total = torch.zeros_like(forward.mask, dtype=torch.float32)
        for (coefficient, scorer), own in zip(self.parts, states, strict=True):
            total = total + coefficient * minmax(scorer(forward, own), forward.mask)
        return total

    def __str__(self) -> str:
        return "+".join(f"{coefficient}*{scorer}" for coefficient, scorer in self.parts)


combiner("scorer")(Mix)


def minmax(scores: Tensor, mask: Tensor) -> Tensor:
    """(B, T) scores scaled to [0, 1] over `mask` in each row; 0 where the range is below 1e-6, and outside."""
    low = torch.where(mask, scores, math.inf).amin(-1, keepdim=True)
    high = torch.where(mask, scores, -math.inf).amax(-1, keepdim=True)
    flat = ~((high - low) >= 1e-6)
    scaled = (scores - low) / torch.where(flat, 1.0, high - low)
    return torch.where(mask & ~flat, scaled, 0.0)
