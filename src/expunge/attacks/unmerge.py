"""Adapter removal: taken off where it stands beside its base; where it was merged, the largest changes are put back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from expunge.attacks import asking
from expunge.attacks.path import along
from expunge.attacks.scene import Budget, Scene, Tell, row
from expunge.attacks.words import Numbers, numbers
from expunge.evals.reductions import PLAIN, Row
from expunge.registry import method

_EXACT, _SPARE = 512, 8
"""Larger matrices are decomposed by random projection, on so many more directions than are wanted."""


@method("attack", "unmerge")
@dataclass(frozen=True)
class Unmerge:
    """The key words' probability after the `ranks` largest directions of each matrix's change were taken back.

    The change is W - W_target; its largest singular directions are subtracted. A merged adapter of rank r, or a patch
    on the head that refuses, is gone after r of them. Of an adapter that stands beside its base the base itself is
    asked too. The worst counts.
    """

    ranks: Numbers = "1 4 16"

    leak: ClassVar[bool] = True
    shows: ClassVar[str] = "probability of the key words without the largest directions of the weights' change"
    needs: ClassVar[tuple[str, ...]] = ("target",)
    reduction: ClassVar[str] = "best"
    parts: ClassVar[tuple[str, ...]] = ("all",)

    def budget(self, scene: Scene, part: str) -> Budget:
        """A pass over the records for each rank, one before, and one of the base."""
        return Budget(read=len(scene.examined()) * scene.size) * (2 + len(numbers(self.ranks)))

    def rows(self, scene: Scene, label: str, part: str, tell: Tell) -> Iterator[Row]:
        """A row a record and rank."""
        lm, before = scene.load(label), dict(scene.load("target").model.named_parameters())
        matrices = {name: weight for name, weight in lm.model.named_parameters() if weight.ndim == 2}
        start = {name: weight.detach().clone() for name, weight in matrices.items()}

        def move(rank: float) -> str:
            for name, weight in matrices.items():
                weight.copy_(start[name] - largest(start[name] - before[name], int(rank)))
            return f"rank {rank:g}" if rank else PLAIN

        yield from along(scene, lm, (0.0, *numbers(self.ranks)), move, tell)
        if label in scene.beneath:
            bare = scene.beneath[label]()
            seen = asking.probabilities(bare, scene.encoder(bare), scene.examined(), token_budget=scene.token_budget)
            yield from (row(record, "adapter taken off", seen[record.id]) for record in scene.examined())


def largest(change: Tensor, rank: int) -> Tensor:
    """The part of a matrix in its `rank` largest singular directions.

    >>> [[round(v, 4) + 0.0 for v in line] for line in largest(torch.diag(torch.tensor([3.0, 1.0])), 1).tolist()]
    [[3.0, 0.0], [0.0, 0.0]]
    """
    if rank == 0:
        return torch.zeros_like(change)
    if rank >= min(change.shape):
        return change
    if min(change.shape) > _EXACT:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            left, sizes, columns = torch.svd_lowrank(change.float(), q=rank + _SPARE, niter=4)
        right = columns.T
    else:
        left, sizes, right = torch.linalg.svd(change.float(), full_matrices=False)
    kept: Tensor = (left[:, :rank] * sizes[:rank]) @ right[:rank]
    return kept.to(change.dtype)
