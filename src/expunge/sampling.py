"""Which record is in which batch: a function of seed, epoch and index only, never of a global generator."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sampler:
    """The schedule of a run: every epoch is a permutation of the `anchor` records, each with one record of every other side.

    `sizes` says how many records a side has. A step has `accumulate` micro-batches of `batch` anchors; the last step of
    an epoch may have fewer. The partner of the anchor at place i of epoch e depends on (seed, e, i) alone.
    """

    anchor: str
    sizes: Mapping[str, int]
    batch: int
    accumulate: int
    seed: int

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
        order = np.random.default_rng([self.seed, epoch]).permutation(self.sizes[self.anchor])
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

    def _partner(self, side: str, epoch: int, place: int) -> int:
        generator = np.random.default_rng([self.seed, epoch, place, *side.encode()])
        return int(generator.integers(self.sizes[side]))


def record_draw(seed: int, record_id: str) -> int:
    """A seed in [0, 2^63) that depends on the run's seed and the record's id alone."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{record_id}".encode()).digest()[:8], "big") >> 1
