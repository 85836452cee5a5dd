"""Interpolation: a part of the way back from the unlearned weights to the target's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from expunge.attacks.path import along
from expunge.attacks.scene import Budget, Scene, Tell
from expunge.attacks.words import Numbers, numbers
from expunge.evals.reductions import PLAIN, Row
from expunge.registry import method


@method("attack", "interpolate")
@dataclass(frozen=True)
class Interpolate:
    """The key words' probability with weights a `shares` part of the way back to the target's; worst share first.

    For who has both checkpoints, and as a measure of how far the model went: the oracle's path to the same target
    tells what distance forgetting takes.
    """

    shares: Numbers = "0.25 0.5 0.75"

    leak: ClassVar[bool] = True
    shows: ClassVar[str] = "probability of the key words on the way back to the target's weights"
    needs: ClassVar[tuple[str, ...]] = ("target",)
    reduction: ClassVar[str] = "best"
    parts: ClassVar[tuple[str, ...]] = ("all",)

    def budget(self, scene: Scene, part: str) -> Budget:
        """A pass over the records for each share, and one before."""
        return Budget(read=len(scene.examined()) * scene.size) * (1 + len(numbers(self.shares)))

    def rows(self, scene: Scene, label: str, part: str, tell: Tell) -> Iterator[Row]:
        """A row a record and share."""
        lm, target = scene.load(label), dict(scene.load("target").model.named_parameters())
        weights = dict(lm.model.named_parameters())
        start = {name: weight.detach().clone() for name, weight in weights.items()}

        def move(share: float) -> str:
            for name, weight in weights.items():
                weight.copy_(torch.lerp(start[name], target[name], share))
            return f"share {share:g}" if share else PLAIN

        yield from along(scene, lm, (0.0, *numbers(self.shares)), move, tell)
