"""Selectors that look at a token's neighbours: facts of several tokens taken whole, their beginnings, their gaps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol, runtime_checkable

import torch
from annotated_types import Ge
from torch import Tensor

from expunge.core import Batch, Selector, Weights
from expunge.errors import MethodError
from expunge.registry import method

WORD = "word"
"""The static number of each token's word, from 1, by which `pool:by=word` groups; 0 for tokens without one."""


@runtime_checkable
class Grouping(Selector, Protocol):
    """A selector that reads which tokens of a batch belong together: `reads` names the static scores that say it."""

    @property
    def reads(self) -> tuple[str, ...]: ...
    def within(self, batch: Batch) -> Selector: ...


@method("selector", "pool")
@dataclass(frozen=True)
class Pool:
    """Scores (or, behind another selector, weights) smoothed over tokens that belong together; they must be >= 0.

    `by='window'`: the `window` scored tokens on either side; 'word': the tokens of one word; 'span': the neighbouring
    tokens that the annotation in use (or the gold spans) covers. `how='mean'` or 'max'. A token in no group stays as it
    is. `pool:by=word > top` scores words, `top > pool:by=word,how=max` takes words whole of which a token is selected.

    Source: our definition.
    Relations: `expand:c=2` is `pool:window=2,how=max`.

    >>> scores, mask = torch.tensor([[0.0, 3.0, 0.0, 6.0]]), torch.ones(1, 4, dtype=torch.bool)
    >>> Pool()(scores, mask).value.tolist()
    [[1.5, 1.0, 3.0, 3.0]]
    """

    by: Literal["window", "word", "span"] = "window"
    window: Annotated[int, Ge(0)] = 1
    how: Literal["mean", "max"] = "mean"

    hard: ClassVar[bool] = False
    signed: ClassVar[bool] = False

    @property
    def reads(self) -> tuple[str, ...]:
        return {"window": (), "word": (WORD,), "span": ("given", "gold")}[self.by]

    def within(self, batch: Batch) -> Selector:
        if self.by == "window":
            return self
        found = [name for name in self.reads if name in batch.static]
        if not found:
            what = "words of the records" if self.by == "word" else "annotated spans"
            raise MethodError(f"select '{self}' needs {what}, and this batch has none")
        return _Grouped(self, groups(batch.static[found[0]], batch.mask, runs=self.by == "span"))

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        if self.by != "window":
            raise MethodError(f"select '{self}' needs to know which tokens belong together; use it in a recipe")
        return self._pooled(scores, mask, lambda n: _near(n, self.window))

    def grouped(self, scores: Tensor, mask: Tensor, numbers: Tensor) -> Weights:
        """The same with the group of each token given: (B, T) numbers, equal in a group."""
        rows = iter(range(len(mask)))

        def together(n: int) -> Tensor:
            row = next(rows)
            own = numbers[row, mask[row]]
            return own[:, None] == own[None, :]

        return self._pooled(scores, mask, together)

    def _pooled(self, scores: Tensor, mask: Tensor, together: Callable[[int], Tensor]) -> Weights:
        """`together(n)` (n, n) bool says of each row's n scored tokens which ones are smoothed over."""
        out = torch.zeros_like(scores)
        for row in range(len(mask)):
            own = scores[row, mask[row]]
            among = together(len(own)).to(own.device)
            if self.how == "max":
                found = torch.where(among, own[None, :], -math.inf).amax(-1) if len(own) else own
            else:
                found = (among * own[None, :]).sum(-1) / among.sum(-1)
            out[row, mask[row]] = found
        return Weights(out, mask)


@method("selector", "expand")
@dataclass(frozen=True)
class Expand:
    """Every selected token takes up to `c` scored neighbours on either side along, at its weight; the largest counts.

    Source: SU (arXiv 2506.00876), context expansion, as re-implemented in ATWU's repository (c = 2).
    Relations: `threshold > expand` is SU's selection; alone it is `pool:window=c,how=max`.

    >>> scores, mask = torch.tensor([[0.0, 1.0, 0.0, 0.0]]), torch.ones(1, 4, dtype=torch.bool)
    >>> Expand(c=1)(scores, mask).value.tolist()
    [[1.0, 1.0, 1.0, 0.0]]
    """

    c: Annotated[int, Ge(0)] = 2

    hard: ClassVar[bool] = False
    signed: ClassVar[bool] = False

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        return Pool(window=self.c, how="max")(scores, mask)


@method("selector", "fill")
@dataclass(frozen=True)
class Fill:
    """The scores as weights, and gaps of at most `gap` tokens at 0 filled with the smaller weight of their two ends.

    A gap lies between two tokens that score above 0; what stands before the first of these, or after the last, is none.

    Source: SEUL (arXiv 2402.05813), gaps of at most 2, as re-implemented in ATWU's repository.
    Relations: `expand` reaches outwards too.

    >>> scores, mask = torch.tensor([[0.0, 1.0, 0.0, 0.5, 0.0]]), torch.ones(1, 5, dtype=torch.bool)
    >>> Fill(gap=1)(scores, mask).value.tolist()
    [[0.0, 1.0, 0.5, 0.5, 0.0]]
    """

    gap: Annotated[int, Ge(0)] = 2

    hard: ClassVar[bool] = False
    signed: ClassVar[bool] = False

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        out = torch.where(mask, scores, 0.0)
        for row in range(len(mask)):
            where = mask[row].nonzero()[:, 0]
            chosen = (scores[row, where] > 0).nonzero()[:, 0].tolist()
            for left, right in itertools.pairwise(chosen):
                if 1 < right - left <= self.gap + 1:
                    out[row, where[left + 1 : right]] = scores[row, where[[left, right]]].min()
        return Weights(out, mask)


@method("selector", "skip")
@dataclass(frozen=True)
class Skip:
    """The scores as weights, but none on the first `n` scored tokens of each sequence; they must be >= 0.

    Source: CE-U as OpenUnlearning has it, whose default leaves out the first token of the answer.

    >>> scores, mask = torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[False, True, True]])
    >>> Skip()(scores, mask).value.tolist()
    [[0.0, 0.0, 1.0]]
    """

    n: Annotated[int, Ge(0)] = 1

    hard: ClassVar[bool] = True
    signed: ClassVar[bool] = False

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        left = mask & (mask.cumsum(-1) > self.n)
        return Weights(torch.where(left, scores, 0.0), left)


@method("selector", "onset")
@dataclass(frozen=True)
class Onset:
    """The scores as weights, but only on the first `n` tokens of each run of neighbours that score above 0.

    Source: PALU (Zhai et al., ACL 2026, arXiv 2601.03190): the onset of an annotated span; n 3 to 5 was best.
    Relations: `threshold:value=0 > onset` takes annotated spans; two that touch are one.

    >>> scores, mask = torch.tensor([[0.0, 1.0, 1.0, 0.0, 1.0]]), torch.ones(1, 5, dtype=torch.bool)
    >>> Onset(n=1)(scores, mask).value.tolist()
    [[0.0, 1.0, 0.0, 0.0, 1.0]]
    """

    n: Annotated[int, Ge(1)] = 3

    hard: ClassVar[bool] = True
    signed: ClassVar[bool] = False

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        run = mask & (scores > 0)
        far = run  # tokens with n neighbours of their run in front of them
        for _ in range(self.n):
            far = run & torch.nn.functional.pad(far, (1, 0))[:, :-1]
        return Weights(torch.where(run & ~far, scores, 0.0), run & ~far)


@dataclass(frozen=True)
class _Grouped:
    """A `Pool` with the groups of one batch."""

    pool: Pool
    numbers: Tensor

    hard: ClassVar[bool] = False
    signed: ClassVar[bool] = False

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        return self.pool.grouped(scores, mask, self.numbers)


def groups(marks: Tensor, mask: Tensor, *, runs: bool) -> Tensor:
    """(B, T) int64 a number a token, equal where tokens belong together: of equal mark > 0, or in one run of marks > 0.

    Tokens without a mark are each by themselves.
    """
    place = torch.arange(marks.shape[1], device=marks.device).expand_as(marks)
    marked = (marks > 0) & mask
    if not runs:
        return torch.where(marked, -marks.long(), place)
    before = torch.nn.functional.pad(marked, (1, 0))[:, :-1]
    return torch.where(marked, -(marked & ~before).cumsum(-1), place)


def _near(n: int, window: int) -> Tensor:
    """(n, n) bool: places at most `window` apart."""
    place = torch.arange(n)
    return (place[:, None] - place[None, :]).abs() <= window
