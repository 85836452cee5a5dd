"""Which of the processes of a run this one is. torchrun says so in the environment; without it there is one.

Every process does the same work on its share of the records; one of them, the main one, writes to disk and speaks.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from expunge.errors import TrainingError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process's number, from 0, among all processes of the run, and among those of its machine.

    >>> Ranks(rank=1, size=2).share(["a", "b", "c", "d", "e"])
    ['b', 'd']
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def main(self) -> bool:
        """True of the one process that writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Every size-th of the items, from its own: all processes together have each item once."""
        return list(items[self.rank :: self.size])

    def all_of(self, shares: Sequence[Sequence[T]]) -> list[T]:
        """What `share` dealt out, from the shares of all processes.

        >>> Ranks(size=2).all_of([["a", "c", "e"], ["b", "d"]])
        ['a', 'b', 'c', 'd', 'e']
        """
        return [share[i] for i in range(max(map(len, shares))) for share in shares if i < len(share)]

    def block(self, items: Sequence[T]) -> list[T]:
        """A run of neighbours: those of all processes, in their order, are the items in theirs.

        >>> [Ranks(rank, 2).block(["a", "b", "c", "d", "e"]) for rank in range(2)]
        [['a', 'b'], ['c', 'd', 'e']]
        """
        return list(items[self.rank * len(items) // self.size : (self.rank + 1) * len(items) // self.size])


def here() -> Ranks:
    """This process. TrainingError if the environment speaks of several and not of all that is needed to join them."""
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        return Ranks()
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise TrainingError(
            f"WORLD_SIZE={size} says that {size} processes run, and {', '.join(missing)} is not set. Start them with: "
            f"torchrun --nproc_per_node {size} --no-python expunge run RECIPE"
        )
    rank = _number("RANK", 0)
    return Ranks(rank, size, _number("LOCAL_RANK", rank))


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdigit():
        raise TrainingError(f"{name} must be a number, as torchrun sets it; it is '{value}'")
    return int(value)
