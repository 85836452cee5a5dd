"""Selectors (scores become weights) and controls (the same weights on the wrong tokens).

METHODS of the literature enter here once: proportional weights that sum to the number of tokens (ETW), raw values
(WGA, SatImp), the top share (TokenUnlearn), thresholds (SU, SEUL, TIF), neighbours taken along (SU).

A selector is `signed` if it reads how scores compare, so that they may be negative (ranks, z-scores); the others use
them as weights.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
from annotated_types import Ge
from torch import Tensor

from expunge.core import Batch, Selector, Weights, random_scores
from expunge.errors import MethodError
from expunge.registry import Positive, Share, combiner, method

Control = Literal["none", "random", "shuffle", "invert", "grad-matched", "update-matched"]
MATCHED: tuple[Control, ...] = ("grad-matched", "update-matched")
"""Controls with weight 1 on every scored token, whose strength is matched to the method's elsewhere (`combine`)."""
FLAT = 1e-6
"""Scores of a sequence that differ by less tell nothing apart; it gets uniform weights and is counted."""
WORD = "word"
"""The static number of each token's word, from 1, by which `pool:by=word` groups; 0 for tokens without one."""


@runtime_checkable
class Grouping(Selector, Protocol):
    """A selector that reads which tokens of a batch belong together: `reads` names the static scores that say it."""

    @property
    def reads(self) -> tuple[str, ...]: ...
    def within(self, batch: Batch) -> Selector: ...


def bound(select: Selector, batch: Batch) -> Selector:
    """The selector as it is on this batch: one that groups tokens knows its groups."""
    return select.within(batch) if isinstance(select, Grouping) else select


@method("selector", "raw")
@dataclass(frozen=True)
class Raw:
    """The scores themselves as weights; they must be >= 0.

    Source: how WGA (arXiv 2502.19301) and SatImp (arXiv 2505.11953) use their scores.
    Relations: `normalised` rescales each sequence so that its weights sum to its number of tokens.

    >>> scores, mask = torch.tensor([[0.5, 0.1, 0.0]]), torch.tensor([[True, True, False]])
    >>> Raw()(scores, mask).value.tolist()
    [[0.5, 0.10000000149011612, 0.0]]
    """

    @property
    def hard(self) -> bool:
        return False

    @property
    def signed(self) -> bool:
        return False

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        return Weights(torch.where(mask, scores, 0.0), mask)


@method("selector", "normalised")
@dataclass(frozen=True)
class Normalised:
    """w_i = n * s_i / sum_j s_j: proportional weights that sum to the number of scored tokens of the sequence.

    Where sum_j s_j < 1e-6 * n the scores have vanished, and w = 1.

    Source: ETW (arXiv 2604.17785).
    Relations: constant factors of a score cancel here, so H / log V equals H.

    >>> scores, mask = torch.tensor([[3.0, 1.0, 9.0]]), torch.tensor([[True, True, False]])
    >>> Normalised()(scores, mask).value.tolist()
    [[1.5, 0.5, 0.0]]
    """

    @property
    def hard(self) -> bool:
        return False

    @property
    def signed(self) -> bool:
        return False

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        s = torch.where(mask, scores, 0.0)
        n = mask.sum(-1, keepdim=True).to(s.dtype)
        total = s.sum(-1, keepdim=True)
        vanished = total <= FLAT * n  # also in a sequence without tokens, where both are 0
        value = torch.where(vanished, mask.to(s.dtype), n * s / torch.where(vanished, 1.0, total))
        return Weights(value, mask, flat=int((vanished & (n > 0)).sum()))


@method("selector", "top")
@dataclass(frozen=True)
class Top:
    """Weight 1 on the k = max(1, ceil(r * n)) highest scores of each sequence, ties to the earliest token.

    `k` is that number itself, where it is given (0: the share `r` decides). A sequence whose scores differ by less than
    1e-6 has no top: all its tokens get weight 1, and it is counted.

    Source: TokenUnlearn (arXiv 2605.00364), hard selection; r = 0.3 is our default (the paper's was not found).

    >>> scores, mask = torch.tensor([[0.1, 0.9, 0.9, 0.2]]), torch.ones(1, 4, dtype=torch.bool)
    >>> Top(r=0.25)(scores, mask).value.tolist()
    [[0.0, 1.0, 0.0, 0.0]]
    """

    r: Share = 0.3
    k: Annotated[int, Ge(0)] = 0

    @property
    def hard(self) -> bool:
        return True

    @property
    def signed(self) -> bool:
        return True

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        chosen = torch.zeros_like(mask)
        flat = 0
        for row in range(mask.shape[0]):
            where = mask[row].nonzero()[:, 0]
            if len(where) == 0:
                continue
            s = scores[row, where]
            if float(s.max() - s.min()) < FLAT and len(where) > 1:
                flat += 1
                chosen[row, where] = True
                continue
            k = self.k or max(1, math.ceil(self.r * len(where) - 1e-9))
            chosen[row, where[torch.sort(s, descending=True, stable=True).indices[:k]]] = True
        return Weights(chosen.to(scores.dtype), chosen, flat=flat)


@method("selector", "threshold")
@dataclass(frozen=True)
class Threshold:
    """Weight 1 on tokens whose score exceeds `value`, or, if that is not set, mean + k * std of their sequence.

    A sequence whose scores differ by less than 1e-6 has no mean to stand out from: all its tokens get weight 1, and it
    is counted. A fixed `value` may select none.

    Source: SU and SEUL (arXiv 2506.00876, 2402.05813) use mean + k * std; a fixed value cuts annotations.
    Differs: the standard deviation is the population's (divided by n).

    >>> scores, mask = torch.tensor([[1.0, 3.0, 8.0]]), torch.ones(1, 3, dtype=torch.bool)
    >>> Threshold()(scores, mask).value.tolist()
    [[0.0, 0.0, 1.0]]
    """

    value: float | None = None
    k: float = 0.0

    @property
    def hard(self) -> bool:
        return True

    @property
    def signed(self) -> bool:
        return True

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        if self.value is not None:
            chosen = mask & (scores > self.value)
            return Weights(chosen.to(scores.dtype), chosen)
        n = mask.sum(-1, keepdim=True).clamp(min=1)
        mean = torch.where(mask, scores, 0.0).sum(-1, keepdim=True) / n
        variance = torch.where(mask, (scores - mean) ** 2, 0.0).sum(-1, keepdim=True) / n
        flat = mask.any(-1, keepdim=True) & (_range(scores, mask) < FLAT)
        chosen = mask & (flat | (scores > mean + self.k * variance.sqrt()))
        return Weights(chosen.to(scores.dtype), chosen, flat=int((flat & (n > 1)).sum()))


@method("selector", "softmax")
@dataclass(frozen=True)
class Softmax:
    """w_i = n * softmax(s / T)_i over the scored tokens of a sequence: soft weights that sum to their number.

    Scores of any sign and scale; a large T spreads the weight evenly, a small one puts it on the highest score. A
    sequence whose scores differ by less than 1e-6 gets w = 1, and is counted.

    Source: our definition.
    Relations: `normalised` is proportional to the scores themselves; `top` is hard.

    >>> scores, mask = torch.tensor([[math.log(3.0), 0.0, 9.0]]), torch.tensor([[True, True, False]])
    >>> Softmax()(scores, mask).value.round(decimals=4).tolist()
    [[1.5, 0.5, 0.0]]
    """

    temperature: Positive = 1.0

    @property
    def hard(self) -> bool:
        return False

    @property
    def signed(self) -> bool:
        return True

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        n = mask.sum(-1, keepdim=True)
        flat = (n > 0) & (_range(scores, mask) < FLAT)
        lowest = torch.finfo(scores.dtype).min
        share = torch.softmax(torch.where(mask, scores / self.temperature, lowest), dim=-1)
        value = torch.where(flat, torch.ones_like(share), n * share)
        return Weights(torch.where(mask, value, 0.0), mask, flat=int((flat & (n > 1)).sum()))


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

    @property
    def hard(self) -> bool:
        return False

    @property
    def signed(self) -> bool:
        return False

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

    @property
    def hard(self) -> bool:
        return False

    @property
    def signed(self) -> bool:
        return False

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

    @property
    def hard(self) -> bool:
        return False

    @property
    def signed(self) -> bool:
        return False

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

    @property
    def hard(self) -> bool:
        return True

    @property
    def signed(self) -> bool:
        return False

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

    @property
    def hard(self) -> bool:
        return True

    @property
    def signed(self) -> bool:
        return False

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

    @property
    def hard(self) -> bool:
        return False

    @property
    def signed(self) -> bool:
        return False

    def __call__(self, scores: Tensor, mask: Tensor) -> Weights:
        return self.pool.grouped(scores, mask, self.numbers)


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


def controlled(
    select: Selector, scores: Tensor, mask: Tensor, control: Control, draws: Callable[[int], torch.Generator]
) -> Weights:
    """The weights a control run uses in place of `select(scores, mask)`.

    `random`: scores drawn uniformly, through the same selector. `invert`: min + max - score of each sequence, through
    the same selector. `shuffle`: the true weights, permuted among the scored tokens of their sequence (same count, sum
    and histogram). `draws(row)` must return a generator that depends on the record only: the control stays on the same
    tokens through the run, as the method it controls for does. `grad-matched` and `update-matched`: uniform weights.
    """
    if control in MATCHED:
        return Weights.ones(mask)
    if control == "none":
        return select(scores, mask)
    if control == "random":
        return select(random_scores(mask, draws), mask)
    if control == "invert":
        low = torch.where(mask, scores, math.inf).amin(-1, keepdim=True)
        high = torch.where(mask, scores, -math.inf).amax(-1, keepdim=True)
        return select(torch.where(mask, low + high - scores, 0.0), mask)
    weights = select(scores, mask)
    value, chosen = weights.value.clone(), weights.mask.clone()
    for row in range(mask.shape[0]):
        where = mask[row].nonzero()[:, 0]
        order = where[torch.randperm(len(where), generator=draws(row)).to(where.device)]
        value[row, where], chosen[row, where] = weights.value[row, order], weights.mask[row, order]
    return Weights(value, chosen, flat=weights.flat)


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


def _range(scores: Tensor, mask: Tensor) -> Tensor:
    """(B, 1) the highest less the lowest score of each sequence; -inf where nothing is scored."""
    low = torch.where(mask, scores, math.inf).amin(-1, keepdim=True)
    return torch.where(mask, scores, -math.inf).amax(-1, keepdim=True) - low
