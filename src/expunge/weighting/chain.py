"""Selectors one after the other, and the selector as it is on one batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.core import Batch, Selector, Weights
from expunge.registry import combiner
from expunge.weighting.smoothing import Grouping


def bound(select: Selector, batch: Batch) -> Selector:
    """The selector as it is on this batch: one that groups tokens knows its groups."""
    return select.within(batch) if isinstance(select, Grouping) else select


@dataclass(frozen=True)
class Chain:
    """Selectors one after the other: each reads the weights before it as its scores.

    A sequence in which a hard selector left nothing has nothing for those that follow.
    """

    parts: tuple[Selector, ...]

    @property
    def hard(self) -> bool:
        return any(part.hard for part in self.parts)

    @property
    def signed(self) -> bool:
        return self.parts[0].signed

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for part in self.parts if isinstance(part, Grouping) for name in part.reads)

    def within(self, batch: Batch) -> Selector:
        return Chain(tuple(bound(part, batch) for part in self.parts))

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        weights, alive, hard = self.parts[0](scores, mask), mask, self.parts[0].hard
        for part in self.parts[1:]:
            if hard:
                alive = alive & (weights.value > 0).any(-1, keepdim=True)
            following = part(torch.where(alive, weights.value, 0.0), alive)
            weights = Weights(following.value, following.mask, flat=weights.flat + following.flat)
            hard = hard or part.hard
        return weights

    def __str__(self) -> str:
        return " > ".join(map(str, self.parts))


combiner(">")(Chain)
