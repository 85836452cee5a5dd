"""A score from what follows: which tokens of an answer the rest of it rests on. Prepared before training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from annotated_types import Ge
from torch import Tensor

from expunge.context import Context, Passage, Preparation, Scores, looked_up
from expunge.core import IGNORE, NOTHING, Forward, Needs, State
from expunge.registry import Share, method


@method("scorer", "delta")
@dataclass(frozen=True)
class Delta:
    """|L_suffix - L_suffix without the token|, in nats: how much the end of an answer rests on a token before it.

    The first `prefix` share of an answer's tokens are hidden one at a time, from all later tokens; the loss is the sum
    over the rest of the answer, whose tokens score 0. It is a pass over a record for each of those tokens: an answer of
    64 tokens costs 32.

    Source: the delta-score of DTO (ICLR 2026 submission, withdrawn), from its reviews.
    Differs: the share of the suffix and the perturbation were not found; half, and not being attended to, are ours.
    Relations: `masking` hides the question's subject instead.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]], targets=[0], static={"delta": [2.0]})
    >>> Delta()(f, None).tolist()
    [[2.0, 0.0]]
    """

    prefix: Share = 0.5
    refresh: Annotated[int, Ge(0)] = 0

    @property
    def needs(self) -> Needs:
        return NOTHING

    @property
    def preparation(self) -> Preparation:
        return Preparation(reads=Needs(), passes=32.0, refresh=self.refresh)

    def prepare(self, context: Context) -> list[Scores]:
        rows = [row for passage in context.passages for row in (passage, *self._without(passage))]
        read = iter(context.read(rows, Needs(), lambda forward: -forward.policy.logp))
        out = []
        for passage in context.passages:
            plain, scores = next(read), np.zeros(len(passage.scored), np.float32)
            for place in range(self._split(passage)):
                scores[place] = abs(next(read).sum() - plain[self._split(passage) :].sum())
            out.append(scores)
        return out

    def _split(self, passage: Passage) -> int:
        """How many tokens of the answer are tried: none where nothing would follow."""
        n = len(passage.scored)
        return min(math.ceil(self.prefix * n), n - 1) if n else 0

    def _without(self, passage: Passage) -> list[Passage]:
        """The passage without each of those tokens, in order; only what follows them all is predicted."""
        tried = self._split(passage)
        targets = passage.targets.copy()
        targets[passage.scored[:tried]] = IGNORE
        out = []
        for t in passage.scored[:tried]:
            hidden = passage.hidden.copy()
            hidden[t + 1] = True
            out.append(replace(passage, targets=targets, hidden=hidden))
        return out

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return looked_up(self, forward.batch)
