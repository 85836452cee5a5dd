"""What a scorer may look at that needs more than a training step: whole texts, hidden context, other models.

Such a scorer has `prepare`, called once with a `Context` before training. From then on its scores are known before the
forward pass, and `Batch.static` carries them under the scorer's spec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from expunge.core import IGNORE, NOTHING, Batch, Forward, Needs, Scorer, Smoothing, State
from expunge.errors import MethodError

Integers = NDArray[np.int64]
Scores = NDArray[np.float32]
"""(n,) a score for each scored token of a record, in order."""


@dataclass(frozen=True, eq=False)
class Passage:
    """One record as text and as T tokens, aligned as in `Batch`: `targets[t]` is `input_ids[t + 1]` where it is scored.

    `asked`, `own` (T, 2): the characters of the prompt, and of the answer (or text), that the token at each position
    stands for; (-1, -1) where it stands for none. `hidden` (T,) bool: positions that no later one may look at.
    """

    id: str
    prompt: str
    body: str
    subject: str
    input_ids: Integers
    targets: Integers
    asked: Integers
    own: Integers
    hidden: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def scored(self) -> Integers:
        """(n,) the positions that predict a scored token."""
        return np.flatnonzero(self.targets != IGNORE)

    @property
    def characters(self) -> Integers:
        """(n, 2) the characters of the answer (or text) that each scored token stands for; (-1, -1) for none."""
        return self.own[self.scored + 1]


class Context(Protocol):
    """The records of one side of a run, and what can be asked about them."""

    @property
    def passages(self) -> Sequence[Passage]: ...

    @property
    def retained(self) -> Sequence[Passage]:
        """The retain records of the run; MethodError if it has none."""
        ...

    def texts(self, corpus: str) -> Iterable[str]:
        """The texts of a file or folder; of all of the run's own records for ''."""
        ...

    def ids(self, text: str) -> list[int]:
        """The tokens of a bare text."""
        ...

    def read(
        self,
        passages: Sequence[Passage],
        needs: Needs,
        of: Callable[[Forward], Tensor],
        *,
        model: str = "",
        attention: Smoothing | None = None,
    ) -> list[Scores]:
        """What `of` (B, T) says of each passage's scored tokens, after one pass without dropout; () without tokens.

        `model` names another model than the one that is to forget; `attention` is its temperature, and in which layers.
        """
        ...

    def factors(self, passages: Sequence[Passage]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """A passage's place, delta (n, O) and input (n, I) of its scored tokens; passages without any are left out.

        Their outer product is the gradient of a token's loss on the last feed-forward projection of the model.
        """
        ...

    def disagreement(self, passages: Sequence[Passage], samples: int) -> list[Scores]:
        """H(mean_s p_s) - mean_s H(p_s) in nats over `samples` passes with dropout; MethodError without dropout."""
        ...


@dataclass(frozen=True)
class Preparation:
    """What `prepare` reads, said before it is called: it decides what is loaded, and what its table is keyed by.

    `reads`: what it reads of the records as they are under the model that is to forget, None for nothing; one such pass
    serves all scorers of a side. `passes`: tokens sent through a model besides, as a multiple of those of such a pass;
    at most. `model`: another model by name, `corpus`: a file or folder ('' for the run's own records), None for
    neither. `retain`: the run's retain records too. `refresh`: scores are made anew from the model in training every so
    many steps; 0: never.
    """

    reads: Needs | None = None
    passes: float = 0.0
    model: str | None = None
    corpus: str | None = None
    retain: bool = False
    refresh: int = 0


@dataclass(frozen=True)
class Together:
    """What several preparations take, made together: `reads` of the records as they are, and `passes` in all."""

    reads: Needs
    passes: float


def together(plans: Iterable[Preparation]) -> Together:
    """The plain pass counts once, whoever reads it.

    >>> both = together([Preparation(reads=Needs(), passes=1.0), Preparation(reads=Needs(entropy=frozenset({1.0})))])
    >>> both.passes, sorted(both.reads.entropy)
    (2.0, [1.0])
    """
    plans = list(plans)
    reads = reduce(Needs.__or__, (plan.reads for plan in plans if plan.reads is not None), NOTHING)
    return Together(reads, sum(plan.passes for plan in plans) + float(reads.policy))


@runtime_checkable
class Prepared(Scorer, Protocol):
    """A scorer that makes its scores once, from whole records; its `needs` are `NOTHING`."""

    @property
    def preparation(self) -> Preparation: ...
    def prepare(self, context: Context) -> list[Scores]: ...


@runtime_checkable
class Composite(Scorer, Protocol):
    """A scorer made of others."""

    @property
    def inner(self) -> tuple[Scorer, ...]: ...


Parameters = Mapping[str, Tensor]
"""What one scorer has learned, its optimiser's state included."""


@runtime_checkable
class Learning(Scorer, Protocol):
    """A scorer with parameters of its own, trained beside the model: one move after every `every` updates of it.

    `begin` makes them for a model whose hidden states are `width` wide. `learn` returns them after a move, and numbers
    for the log; `forwards` are the micro-batches of the update, without gradient or dropout, as the model is after it,
    `left` the share of the run that is still to come.
    """

    @property
    def every(self) -> int: ...
    def begin(self, width: int) -> Parameters: ...
    def learn(
        self, forwards: Sequence[Forward], parameters: Parameters, left: float
    ) -> tuple[Parameters, dict[str, float]]: ...


def prepared_in(scorer: Scorer) -> tuple[Prepared, ...]:
    """The scorers in `scorer`, itself included, whose scores must be prepared."""
    return tuple(found for found in parts_of(scorer) if isinstance(found, Prepared))


def parts_of(scorer: Scorer) -> tuple[Scorer, ...]:
    """The scorers that `scorer` is made of; itself if of no others."""
    if isinstance(scorer, Composite):
        return tuple(found for part in scorer.inner for found in parts_of(part))
    return (scorer,)


def known_of(scorer: Learning, state: State) -> Parameters | None:
    """What the scorer has learned; None if nothing yet."""
    return None if state is None else state.get(str(scorer))


def looked_up(scorer: Prepared, batch: Batch) -> Tensor:
    """(B, T) the prepared scores of a batch; MethodError if they were not prepared."""
    name = str(scorer)
    if name not in batch.static:
        raise MethodError(
            f"score '{name}' is prepared from whole records and models, and this batch has none of it. "
            "Use it in a recipe, `expunge score` or score_tokens"
        )
    return torch.where(batch.mask, batch.static[name], 0.0)
