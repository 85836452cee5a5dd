"""Which record is in which batch: a function of seed, epoch and index only, never of a global generator."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_WINDOW = 8
"""Steps among which anchors are sorted by length: few enough that every epoch still mixes anew."""


@dataclass(frozen=True)
class Sampler:
    """The schedule of a run: every epoch is a permutation of the `anchor` records, each with one of every other side.

    `sizes` says how many records a side has. A step has `accumulate` micro-batches of `batch` anchors; the last step of
    an epoch may have fewer. The partner of the anchor at place i of epoch e depends on (seed, e, i) alone. With
    `lengths` of the anchors, those of like length come into one step, so that less is padded; which ones then depends
    on batch * accumulate too.
    """

    anchor: str
    sizes: Mapping[str, int]
    batch: int
    accumulate: int
    seed: int
    lengths: Sequence[int] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Updates an epoch takes."""
        return math.ceil(self.sizes[self.anchor] / (self.batch * self.accumulate))

    def epoch_of(self, step: int) -> int:
        """The epoch that step `step` (from 0) belongs to."""
        return step // self.steps_per_epoch

    def micro_batches(self, step: int) -> list[dict[str, list[int]]]:
        """Record indices of each side in each micro-batch of step `step` (from 0)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = self._order(epoch)
        stride = self.batch * self.accumulate
        places = range(place * stride, min((place + 1) * stride, len(order)))
        chunks = [places[i : i + self.batch] for i in range(0, len(places), self.batch)]
        return [
            {
                side: [int(order[i]) if side == self.anchor else self._partner(side, epoch, i) for i in chunk]
                for side in self.sizes
            }
            for chunk in chunks
        ]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """The anchors of an epoch in the order of their places."""
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(self.sizes[self.anchor])
        if self.lengths is None:
            return order
        stride = self.batch * self.accumulate
        window = stride * _WINDOW
        lengths = np.asarray(self.lengths)
        alike = [order[i : i + window] for i in range(0, len(order), window)]
        alike = [part[np.argsort(lengths[part], kind="stable")] for part in alike]
        steps = [part[i : i + stride] for part in alike for i in range(0, len(part), stride)]
        whole = [step for step in steps if len(step) == stride]
        return np.concatenate([*(whole[i] for i in generator.permutation(len(whole))), *steps[len(whole) :]])

    def _partner(self, side: str, epoch: int, place: int) -> int:
        generator = np.random.default_rng([self.seed, epoch, place, *side.encode()])
        return int(generator.integers(self.sizes[side]))


def record_draw(seed: int, record_id: str) -> int:
    """A seed in [0, 2^63) that depends on the run's seed and the record's id alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{record_id}".encode()).digest()[:8], "big") >> 1
