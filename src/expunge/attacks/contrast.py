"""Contrast: who has the checkpoints before and after sees in their difference what was removed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.attacks import asking
from expunge.attacks.scene import Budget, Scene, Tell, row
from expunge.evals.reductions import Row
from expunge.registry import method


@method("attack", "contrast")
@dataclass(frozen=True)
class Contrast:
    """How far the two checkpoints together point at a record: the share of retain records that fell less; chance .5.

    A record's fall is that of its key words' log-probability from the target to this model. The mean over forget
    records is the area under the curve of 'was this removed?'. A retrained model gives its deletions away as well, so
    this is a sign and flags nothing: it says what holding back the old checkpoint is worth.

    Source: extraction from exactly unlearned models by two checkpoints (NeurIPS 2025). Differs: names what was removed,
    writes no text.
    """

    leak: ClassVar[bool] = False
    shows: ClassVar[str] = "share of retain records whose log-probability fell less"
    needs: ClassVar[tuple[str, ...]] = ("target",)
    reduction: ClassVar[str] = "best"
    parts: ClassVar[tuple[str, ...]] = ("all",)

    def budget(self, scene: Scene, part: str) -> Budget:
        """A pass of both models over all records."""
        return Budget(read=2 * (len(scene.examined()) + len(scene.retained())) * scene.size)

    def rows(self, scene: Scene, label: str, part: str, tell: Tell) -> Iterator[Row]:
        """A row a record; none for the target, which fell nowhere."""
        if label == "target":
            return
        kept, asked = scene.retained(), scene.examined()
        falls: dict[str, float] = {}
        own, before = scene.load(label), scene.load("target")
        for done, records in enumerate((kept, asked)):
            sides = [
                asking.probabilities(lm, scene.encoder(lm), records, token_budget=scene.token_budget)
                for lm in (before, own)
            ]
            falls |= {key: math.log(sides[0][key] / max(sides[1][key], 1e-300)) for key in sides[0]}
            tell(done + 1, 2)
        base = np.array([falls[record.id] for record in kept])
        for record in asked:
            share = (base < falls[record.id]).mean() + 0.5 * (base == falls[record.id]).mean()
            yield row(record, "fell more", float(share))
