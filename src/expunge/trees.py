"""Sequences that begin alike in one row: what they share is read once, the rest as branches that do not see each other.

A question with seven answers is read once instead of seven times, answers that begin alike only from where they part,
and an answer with and without a hidden subject only from there on, at equal numbers: a mask lets every token attend to
its own branch and to what that branch grows from, and positions go on from there.
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

    def needed(self) -> Path:
        """The path up to the last token that predicts a scored one: nobody asks what comes after the others."""
        end = int(self.scored[-1]) + 1 if len(self.scored) else 0
        return Path(self.input_ids[:end], self.targets[:end], self.positions[:end], self.seen[:end])

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
    """A row: of each of `members` (indices of paths) what follows the first `forks` tokens of it.

    Those tokens it has in common with the member at that place of `parents`; the first member is its own parent, and
    forks at 0.
    """

    members: tuple[int, ...]
    parents: tuple[int, ...]
    forks: tuple[int, ...]
    length: int

    def places(self, paths: Sequence[Path]) -> Iterator[NDArray[np.int64]]:
        """Where in the row the tokens of each member are."""
        found: list[NDArray[np.int64]] = []
        end = 0
        for index, parent, fork in zip(self.members, self.parents, self.forks, strict=True):
            own = np.arange(end, end + len(paths[index]) - fork)
            found.append(np.concatenate([found[parent][:fork], own]) if found else own)
            end += len(own)
            yield found[-1]


def usable(lm: LM) -> bool:
    """True if the model's attention takes any mask and any positions."""
    return takes_any_mask(lm.model)


def plan(paths: Sequence[Path], groups: Sequence[Hashable], indices: Sequence[int]) -> list[Tree]:
    """Rows of paths that follow each other in `indices` and have the same entry in `groups`.

    Each grows from the one in its row with which it has most in common: wrong answers share more with each other, and
    with the paraphrase that they falsify, than the prompt.
    """
    trees = []
    for group in _grouped(groups, indices):
        longest = max(len(paths[index]) for index in group)
        row = _Row(paths)
        for index in group:
            parent, fork = row.nearest(index)
            full = row.length + len(paths[index]) - fork > max(ROW_TOKENS, 2 * longest)
            if row.members and (full or _WORTH * fork < len(paths[index])):
                trees.append(row.tree())
                row, parent, fork = _Row(paths), 0, 0
            row.add(index, parent, fork)
        trees.append(row.tree())
    return trees


class _Row:
    """A row that is being filled."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self.members: list[int] = []
        self._parents: list[int] = []
        self._forks: list[int] = []
        self.length = 0

    def nearest(self, index: int) -> tuple[int, int]:
        """The place of the member with which the path has most in common, and how much."""
        shared = [self._paths[member].common(self._paths[index]) for member in self.members]
        return (shared.index(max(shared)), max(shared)) if shared else (0, 0)

    def add(self, index: int, parent: int, fork: int) -> None:
        """Adds a path that grows from the member at `parent`."""
        self.members.append(index)
        self._parents.append(parent)
        self._forks.append(fork)
        self.length += len(self._paths[index]) - fork

    def tree(self) -> Tree:
        """The row as it is."""
        return Tree(tuple(self.members), tuple(self._parents), tuple(self._forks), self.length)


def hidden(lm: LM, paths: Sequence[Path], trees: Sequence[Tree], *, bf16: bool = False) -> tuple[Tensor, Tensor]:
    """Final hidden states (N, D) and targets (N,) of the scored tokens of a batch of rows, member after member."""
    states, chosen, targets = states_in(lm, paths, trees, bf16=bf16)
    return states[chosen], targets


def states_in(
    lm: LM, paths: Sequence[Path], trees: Sequence[Tree], *, bf16: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Final hidden states (B * T, D) of a batch of rows; of every scored token, member after member, its row among them
    (N,) and its target (N,). Members that begin alike have rows in common.
    """
    shape = (len(trees), max(tree.length for tree in trees))
    ids = np.full(shape, lm.pad_id, np.int64)
    positions = np.zeros(shape, np.int64)
    allowed = np.zeros((*shape, shape[1]), np.bool_)
    read, targets = [], []
    for row, tree in enumerate(trees):
        for index, fork, places in zip(tree.members, tree.forks, tree.places(paths), strict=True):
            path, own = paths[index], places[fork:]
            ids[row, own] = path.input_ids[fork:]
            positions[row, own] = path.positions[fork:]
            allowed[row, own[:, None], places] = _may_look(path, fork)
            read.append(row * shape[1] + places[path.scored])
            targets.append(path.targets[path.scored])
    mask = _mask(torch.from_numpy(allowed).to(lm.device), lm.model.dtype)
    tokens, at = (torch.from_numpy(one).to(lm.device) for one in (ids, positions))
    chosen, aligned = (torch.from_numpy(np.concatenate(one)).to(lm.device) for one in (read, targets))
    return states_of(lm.model, tokens, mask, positions=at, bf16=bf16)[-1].flatten(0, 1), chosen, aligned


def agree(lm: LM, together: Tensor, apart: Tensor) -> bool:
    """True if log-probabilities from rows of several are those from one at a time, within the model's precision."""
    tolerance = 1e-4 if lm.model.dtype == torch.float32 else 0.1
    return bool(torch.allclose(together, apart, rtol=tolerance, atol=tolerance))


def _may_look(path: Path, fork: int) -> NDArray[np.bool_]:
    """(T - fork, T) which tokens of a path each of those from `fork` on may look at: earlier ones, unless hidden."""
    return np.tril(np.ones((len(path), len(path)), np.bool_))[fork:] & path.seen


def _mask(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, T, T) additive: 0 where a token may look, the lowest number elsewhere.

    A token that may look at no other, as padding, looks at itself.
    """
    itself = torch.eye(allowed.shape[1], dtype=torch.bool, device=allowed.device)
    allowed = allowed | (itself & ~allowed.any(-1, keepdim=True))
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(
        ~allowed, torch.finfo(dtype).min
    )[:, None]


def _grouped(groups: Sequence[Hashable], indices: Sequence[int]) -> Iterator[list[int]]:
    group: list[int] = []
    for index in indices:
        if group and groups[index] != groups[group[0]]:
            yield group
            group = []
        group.append(index)
    if group:
        yield group
