"""Sums and products of scorers: `0.5*masking+0.5*entropy`, `frequency*novel`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from expunge.core import Forward, Needs, Scorer, State
from expunge.registry import combiner

Scale = Literal["minmax", "rank", "zscore"]
FLAT = 1e-6
"""Scores of a sequence that differ by less tell nothing apart, and count nothing in a sum."""


@dataclass(frozen=True)
class Mix:
    """sum_k c_k * scaled(s_k): each part scaled over the scored tokens of its sequence first, 0 where it is flat.

    `scale`: 'minmax' to [0, 1]; 'rank' to the share of the other tokens that score lower, ties half; 'zscore' to mean 0
    and (population) standard deviation 1. Ranks and z-scores say an order and a distance but no amount, so they go
    through `top`, `threshold` or `softmax`, never as weights.

    Source: TokenUnlearn (arXiv 2605.00364) adds masking attribution and entropy so.

    >>> from expunge.registry import build
    >>> str(build("scorer", "0.5*entropy:temperature=2.0+0.5*confidence"))
    '0.5*entropy:temperature=2.0+0.5*confidence'
    >>> build("scorer", "rank(entropy+confidence)").scale
    'rank'
    """

    parts: tuple[tuple[float, Scorer], ...]
    scale: Scale = "minmax"

    @property
    def needs(self) -> Needs:
        return reduce(Needs.__or__, (scorer.needs for _, scorer in self.parts))

    @property
    def inner(self) -> tuple[Scorer, ...]:
        return tuple(scorer for _, scorer in self.parts)

    def __call__(self, forward: Forward, state: State) -> Tensor:
        total = torch.zeros_like(forward.mask, dtype=torch.float32)
        for coefficient, scorer in self.parts:
            total = total + coefficient * _SCALES[self.scale](scorer(forward, state), forward.mask)
        return total

    def __str__(self) -> str:
        text = "+".join(f"{coefficient}*{scorer}" for coefficient, scorer in self.parts)
        return text if self.scale == "minmax" else f"{self.scale}({text})"


@dataclass(frozen=True)
class Product:
    """The product of scores as they are, not scaled; in a sum it is scaled as one part.

    Source: our definition.

    >>> from expunge.registry import build
    >>> str(build("scorer", "frequency * novel"))
    'frequency*novel'
    """

    parts: tuple[Scorer, ...]

    @property
    def needs(self) -> Needs:
        return reduce(Needs.__or__, (scorer.needs for scorer in self.parts))

    @property
    def inner(self) -> tuple[Scorer, ...]:
        return self.parts

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return reduce(torch.mul, [part(forward, state) for part in self.parts])

    def __str__(self) -> str:
        return "*".join(map(str, self.parts))


combiner("+")(Mix)
combiner("*")(Product)


def minmax(scores: Tensor, mask: Tensor) -> Tensor:
    """(B, T) scores scaled to [0, 1] over `mask` in each row; 0 where the range is below 1e-6, and outside."""
    low = torch.where(mask, scores, math.inf).amin(-1, keepdim=True)
    high = torch.where(mask, scores, -math.inf).amax(-1, keepdim=True)
    flat = ~((high - low) >= FLAT)
    scaled = (scores - low) / torch.where(flat, 1.0, high - low)
    return torch.where(mask & ~flat, scaled, 0.0)


def rank(scores: Tensor, mask: Tensor) -> Tensor:
    """(B, T) the share of the row's other tokens of `mask` that score lower, ties half; 0 as `minmax` has it."""
    out = torch.zeros_like(scores, dtype=torch.float32)
    for row in range(len(scores)):
        own = scores[row, mask[row]]
        if len(own) > 1 and float(own.max() - own.min()) >= FLAT:
            ordered = own.sort().values
            below, upto = (torch.searchsorted(ordered, own, right=right) for right in (False, True))
            out[row, mask[row]] = (below + upto - 1).float() / (2 * (len(own) - 1))
    return out


def zscore(scores: Tensor, mask: Tensor) -> Tensor:
    """(B, T) (s - mean) / std over `mask` in each row, std the population's; 0 as `minmax` has it."""
    n = mask.sum(-1, keepdim=True).clamp(min=1)
    centred = torch.where(mask, scores - torch.where(mask, scores, 0.0).sum(-1, keepdim=True) / n, 0.0)
    std = (centred.square().sum(-1, keepdim=True) / n).sqrt()
    told = minmax(scores, mask).amax(-1, keepdim=True) > 0
    return torch.where(mask & told, centred / torch.where(told, std, 1.0), 0.0)


_SCALES: Mapping[Scale, Callable[[Tensor, Tensor], Tensor]] = {"minmax": minmax, "rank": rank, "zscore": zscore}
