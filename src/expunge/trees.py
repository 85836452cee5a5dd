"""Sequences that begin alike in one row: what they share is read once, the rest as branches that do not see each other.

A question with seven answers is read once instead of seven times, and an answer with and without a hidden subject only
from there on, at equal numbers: a mask lets every token attend to its own branch and to what that branch grows from,
and positions go on from there.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expunge.core import IGNORE
from expunge.data.encode import Encoded
from expunge.lm import LM, states_of
from expunge.packing import takes_any_mask

ROW_TOKENS = 192
"""Longer rows share more but pay for attention over branches that are masked away."""
_WORTH = 8
"""A branch that shares less than one in so many of its tokens goes into a row of its own."""


@dataclass(frozen=True, eq=False)
class Path:
    """One sequence to be read: (T,) tokens, targets, positions, and whether later tokens may look at the token."""

    input_ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    positions: NDArray[np.int64]
    seen: NDArray[np.bool_]

    @classmethod
    def of(cls, item: Encoded) -> Path:
        """The whole of an encoded record, every token in view."""
        return cls(item.input_ids, item.targets, np.arange(len(item)), np.ones(len(item), np.bool_))

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def scored(self) -> NDArray[np.int64]:
        """(n,) the places that predict a scored token."""
        return np.flatnonzero(self.targets != IGNORE)

    def common(self, other: Path) -> int:
        """With how many tokens both begin."""
        end = min(len(self), len(other))
        differs = np.zeros(end, np.bool_)
        for name in ("input_ids", "positions", "seen"):
            differs |= getattr(self, name)[:end] != getattr(other, name)[:end]
        return int(differs.argmax()) if differs.any() else end


@dataclass(frozen=True)
class Tree:
    """A row: the first of `members` (indices of paths) whole, and of each other one what follows its `forks` tokens."""

    members: tuple[int, ...]
    forks: tuple[int, ...]
    length: int


def usable(lm: LM) -> bool:
    """True if the model's attention takes any mask and any positions."""
    return takes_any_mask(lm.model)


def plan(paths: Sequence[Path], groups: Sequence[Hashable], indices: Sequence[int]) -> list[Tree]:
    """Rows of paths that follow each other in `indices` and have the same entry in `groups`."""
    trees = []
    for group in _grouped(groups, indices):
        longest = max(len(paths[index]) for index in group)
        members, forks, length = [group[0]], [len(paths[group[0]])], len(paths[group[0]])
        for index in group[1:]:
            fork = paths[members[0]].common(paths[index])
            own = len(paths[index]) - fork
            if length + own > max(ROW_TOKENS, 2 * longest) or _WORTH * fork < len(paths[index]):
                trees.append(Tree(tuple(members), tuple(forks), length))
                members, forks, length, fork, own = [], [], 0, len(paths[index]), len(paths[index])
            members.append(index)
            forks.append(fork)
            length += own
        trees.append(Tree(tuple(members), tuple(forks), length))
    return trees


def hidden(lm: LM, paths: Sequence[Path], trees: Sequence[Tree], *, bf16: bool = False) -> tuple[Tensor, Tensor]:
    """Final hidden states (N, D) and targets (N,) of the scored tokens of a batch of rows, member after member."""
    shape = (len(trees), max(tree.length for tree in trees))
    ids = np.full(shape, lm.pad_id, np.int64)
    positions = np.zeros(shape, np.int64)
    branch, fork = np.full(shape, -1, np.int64), np.zeros(shape, np.int64)
    seen = np.ones(shape, np.bool_)
    read, targets = [], []
    for row, tree in enumerate(trees):
        start = 0
        for number, (index, shared) in enumerate(zip(tree.members, tree.forks, strict=True)):
            path, first = paths[index], shared if number else 0
            place = slice(start, start + len(path) - first)
            ids[row, place] = path.input_ids[first:]
            positions[row, place] = path.positions[first:]
            seen[row, place] = path.seen[first:]
            branch[row, place], fork[row, place] = number, shared
            scored = path.scored
            read.append(row * shape[1] + np.where(scored < first, scored, scored - first + start))
            targets.append(path.targets[scored])
            start = place.stop
    mask = _mask(*(torch.from_numpy(one).to(lm.device) for one in (branch, fork, seen)), dtype=lm.model.dtype)
    tokens, at = (torch.from_numpy(one).to(lm.device) for one in (ids, positions))
    chosen, aligned = (torch.from_numpy(np.concatenate(one)).to(lm.device) for one in (read, targets))
    return states_of(lm.model, tokens, mask, positions=at, bf16=bf16)[-1].flatten(0, 1)[chosen], aligned


def agree(lm: LM, together: Tensor, apart: Tensor) -> bool:
    """True if log-probabilities from rows of several are those from one at a time, within the model's precision."""
    tolerance = 1e-4 if lm.model.dtype == torch.float32 else 0.1
    return bool(torch.allclose(together, apart, rtol=tolerance, atol=tolerance))


def _mask(branch: Tensor, fork: Tensor, seen: Tensor, *, dtype: torch.dtype) -> Tensor:
    """(B, 1, T, T) additive: 0 where a token may look, the lowest number elsewhere. Padding looks at padding.

    `branch` is 0 for the first member; `fork` is how much of it the others grow from. A token that may look at no other
    looks at itself.
    """
    place = torch.arange(branch.shape[1], device=branch.device)
    trunk = (branch[:, None, :] == 0) & (branch[:, :, None] >= 0) & (place < fork[:, :, None])
    allowed = ((branch[:, :, None] == branch[:, None, :]) | trunk).tril() & seen[:, None, :]
    allowed |= torch.eye(len(place), dtype=torch.bool, device=place.device) & ~allowed.any(-1, keepdim=True)
    return torch.zeros(allowed.shape, dtype=dtype, device=branch.device).masked_fill_(~allowed, torch.finfo(dtype).min)[
        :, None
    ]


def _grouped(groups: Sequence[Hashable], indices: Sequence[int]) -> Iterator[list[int]]:
    group: list[int] = []
    for index in indices:
        if group and groups[index] != groups[group[0]]:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
