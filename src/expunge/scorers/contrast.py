"""Scores from what knows the forget set against what does not: another model, or counts of words. Prepared once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge
from torch import Tensor

from expunge.context import Context, Passage, Preparation, Scores, looked_up
from expunge.core import NOTHING, Forward, Needs, State
from expunge.errors import MethodError
from expunge.registry import method

Gram = tuple[int, ...]


@method("scorer", "assistant")
@dataclass(frozen=True)
class Assistant:
    """|p_assistant - p|: how far a model that lacks the knowledge differs from the one that has it, at the token.

    Both are the models before training. `model` is the assistant's folder or hub name, of the same tokenizer: the base
    model, or one tuned on the retain set alone.

    Source: SU-LLM (Selective Unlearning, Wan et al., EMNLP 2025 Findings, arXiv 2506.00876), as re-implemented in
    ATWU's repository.
    Relations: `base-surprise` looks at the other model alone.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]], targets=[0], static={"assistant:model=base": [0.25]})
    >>> Assistant("base")(f, None).tolist()
    [[0.25, 0.0]]
    """

    model: str = ""

    @property
    def needs(self) -> Needs:
        return NOTHING

    @property
    def preparation(self) -> Preparation:
        return Preparation(reads=Needs(), passes=1.0, model=self.model)

    def prepare(self, context: Context) -> list[Scores]:
        if not self.model:
            raise MethodError(
                "assistant needs a model that has not read the forget set: write assistant:model=FOLDER "
                "(or su-llm:model=FOLDER)"
            )
        own, other = (context.read(context.passages, Needs(), _probability, model=m) for m in ("", self.model))
        return [np.abs(a - b) for a, b in zip(own, other, strict=True)]

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return looked_up(self, forward.batch)


@method("scorer", "ngram")
@dataclass(frozen=True)
class NGram:
    """|P_forget - P_retain| of the token after the n - 1 before it: what the forget set says otherwise, by counts.

    Shares of counts over all tokens of the records, the question and the template among them; 0 where the set never has
    those n - 1 tokens before. At the start of a record there are fewer. No model is read; the run needs retain records.

    Source: SU-Ngram (Wan et al., EMNLP 2025 Findings, arXiv 2506.00876), n = 3, as re-implemented in ATWU's repository.
    Differs: how a history that was never seen counts was not found.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]], targets=[0], static={"ngram": [0.75]})
    >>> NGram()(f, None).tolist()
    [[0.75, 0.0]]
    """

    n: Annotated[int, Ge(1)] = 3

    @property
    def needs(self) -> Needs:
        return NOTHING

    @property
    def preparation(self) -> Preparation:
        return Preparation(retain=True)

    def prepare(self, context: Context) -> list[Scores]:
        own, retained = self._counted(context.passages), self._counted(context.retained)
        return [
            np.array([abs(_share(own, gram) - _share(retained, gram)) for gram in self._asked(passage)], np.float32)
            for passage in context.passages
        ]

    def _asked(self, passage: Passage) -> Iterator[Gram]:
        """The n-gram that ends in each scored token."""
        ids = passage.input_ids.tolist()
        return (tuple(ids[max(0, t + 2 - self.n) : t + 2]) for t in passage.scored.tolist())

    def _counted(self, passages: Sequence[Passage]) -> Counter[Gram]:
        """How often each n-gram stands in these texts; and each history, as the same with -1 for the token."""
        counts: Counter[Gram] = Counter()
        for ids in (passage.input_ids.tolist() for passage in passages):
            for end in range(1, len(ids) + 1):
                gram = tuple(ids[max(0, end - self.n) : end])
                counts.update((gram, (*gram[:-1], -1)))
        return counts

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return looked_up(self, forward.batch)


def _share(counts: Counter[Gram], gram: Gram) -> float:
    history = (*gram[:-1], -1)
    return counts[gram] / (counts[history] or 1)


def _probability(forward: Forward) -> Tensor:
    return forward.policy.logp.exp()
