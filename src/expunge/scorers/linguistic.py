"""Scores that read words and no model: the trivial baselines that a clever score must beat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from expunge.context import Context, Passage, Preparation, Scores, looked_up
from expunge.core import NOTHING, Forward, Needs, State
from expunge.data.words import cut
from expunge.registry import method


@method("scorer", "frequency")
@dataclass(frozen=True)
class Frequency:
    """-log f of the token's word, in nats: how rare the word is in a corpus, the case of letters aside.

    f = (count + 1) / (N + V + 1), N words and V different ones in `corpus`, a file or folder in any format that records
    come in; without one, all of the run's own records. A word that the corpus lacks counts 0. A token without a word,
    such as punctuation and the end token, scores 0. Words are those of Unicode.

    Source: our definition. On TOFU's annotations a better guess than many a model's uncertainty.
    Relations: `frequency*novel` leaves out what the question said already.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]], targets=[0], static={"frequency": [4.5]})
    >>> Frequency()(f, None).tolist()
    [[4.5, 0.0]]
    """

    corpus: str = ""

    @property
    def needs(self) -> Needs:
        return NOTHING

    @property
    def preparation(self) -> Preparation:
        return Preparation(corpus=self.corpus)

    def prepare(self, context: Context) -> list[Scores]:
        counts = Counter(word for text in context.texts(self.corpus) for _, _, word in _words(text))
        total = sum(counts.values()) + len(counts) + 1

        def surprisal(word: str) -> float:
            return float(np.log(total / (counts[word] + 1))) if word else 0.0

        return [np.array([surprisal(w) for w in words_of(p)], np.float32) for p in context.passages]

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return looked_up(self, forward.batch)


@method("scorer", "novel")
@dataclass(frozen=True)
class Novel:
    """1 if the token's word is not in the prompt, the case of letters aside, else 0; 0 for tokens without a word.

    A raw text has no prompt: there, 1 at the first occurrence of a word.

    Source: our definition.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]] * 2, targets=[0, 0], static={"novel": [0.0, 1.0]})
    >>> Novel()(f, None).tolist()
    [[0.0, 1.0, 0.0]]
    """

    @property
    def needs(self) -> Needs:
        return NOTHING

    @property
    def preparation(self) -> Preparation:
        return Preparation()

    def prepare(self, context: Context) -> list[Scores]:
        return [self._scores(passage) for passage in context.passages]

    def _scores(self, passage: Passage) -> Scores:
        found = words_of(passage)
        if passage.prompt:
            known = {word for _, _, word in _words(passage.prompt)}
            return np.array([bool(word) and word not in known for word in found], np.float32)
        first: dict[str, int] = {}
        for start, _, word in _words(passage.body):
            first.setdefault(word, start)
        ends = passage.characters[:, 1]
        starts = [start for start, _ in _places(passage)]
        fresh = [bool(w) and first[w] == s for w, s in zip(found, starts, strict=True)]
        return np.array(fresh, np.float32) * (ends >= 0)

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return looked_up(self, forward.batch)


def words_of(passage: Passage) -> list[str]:
    """The word, in lower case, that each scored token stands in; '' for none. The first, if there are several."""
    return [passage.body[start:end].casefold() for start, end in _places(passage)]


def _places(passage: Passage) -> list[tuple[int, int]]:
    """Where the word of each scored token stands in the answer; (-1, -1) for none."""
    ranges = [(start, end) for start, end, _ in _words(passage.body)]
    starts = np.array([start for start, _ in ranges], np.int64)
    out = []
    for start, end in passage.characters.tolist():
        at = int(np.searchsorted(starts, start, side="right")) - 1
        touching = [r for r in ranges[max(at, 0) : at + 3] if r[0] < end and r[1] > start]
        out.append(touching[0] if touching else (-1, -1))
    return out


def _words(text: str) -> Iterator[tuple[int, int, str]]:
    return ((start, end, text[start:end].casefold()) for start, end in cut(text))
