"""Sampling: what the model says if it is asked often."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from expunge.attacks import asking
from expunge.attacks.scene import Budget, Scene, Tell, row
from expunge.attacks.words import Count, Numbers, numbers
from expunge.data.records import Record
from expunge.errors import DataError, MethodError
from expunge.evals.reductions import PLAIN, Row
from expunge.registry import method
from expunge.sampling import record_draw

_ROUND = 4
"""Draws of all records between two signs of life."""


@method("attack", "sampling")
@dataclass(frozen=True)
class Sampling:
    """leak@k: the expected share of the answer that the best of k sampled answers tells, at the worst temperature.

    Estimated without bias from `draws` samples a record: sum_i C(i-1, k-1) / C(n, k) S_(i), S sorted upwards. S is the
    share of the key words, or ROUGE-L recall where none are marked. Also how likely one draw is to tell at least half,
    with exact (Clopper-Pearson) bounds for the worst record, and `plain`, the greedy answer. `score=entailment`: S is
    how surely the classifier of evaluation.entailment finds the right answer entailed.

    Source: leak@k, whose S is entailment; bounds as in Scholten et al., arXiv 2410.03523. Differs: 20 draws instead of
    200 by default.
    """

    k: Count = 10
    draws: Count = 20
    temperatures: Numbers = "0.7 1"
    score: Literal["told", "entailment"] = "told"

    leak: ClassVar[bool] = True
    shows: ClassVar[str] = "share of the key words in the best of k sampled answers"
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.k > self.draws:
            raise MethodError(f"attack 'sampling': k={self.k} of draws={self.draws}: give at least k draws")

    @property
    def reduction(self) -> str:
        """leak@k."""
        return f"leak@{self.k}"

    @property
    def parts(self) -> tuple[str, ...]:
        """The temperatures."""
        return tuple(f"T{value:g}" for value in numbers(self.temperatures))

    def budget(self, scene: Scene, part: str) -> Budget:
        """All draws, each as long as an answer may be."""
        if self.score == "entailment":
            self._entails(scene)
        asked = len(scene.examined(asked=True))
        return Budget(read=asked * scene.size, written=asked * scene.max_new_tokens) * (self.draws + 1)

    def rows(self, scene: Scene, label: str, part: str, tell: Tell) -> Iterator[Row]:
        """A row a record and draw."""
        lm, records = scene.load(label), scene.examined(asked=True)
        encoder, limit = scene.encoder(lm), scene.max_new_tokens
        if part == self.parts[0]:
            greedy = asking.written(lm, encoder, records, max_new_tokens=limit)
            told = self._told(scene, records, greedy)
            yield from (row(record, PLAIN, value) for record, value in zip(records, told, strict=True))
        temperature = float(part[1:])
        for first in range(0, self.draws, _ROUND):
            asks = [(r, d) for d in range(first, min(first + _ROUND, self.draws)) for r in records]
            seeds = [record_draw(scene.seed, f"{part} {draw} {record.id}") for record, draw in asks]
            texts = asking.written(
                lm, encoder, [record for record, _ in asks], max_new_tokens=limit, temperature=temperature, draws=seeds
            )
            told = self._told(scene, [record for record, _ in asks], texts)
            for (record, draw), value in zip(asks, told, strict=True):
                yield row(record, f"T={temperature:g}", value, draw)
            tell(min(first + _ROUND, self.draws), self.draws)

    def _told(self, scene: Scene, records: Sequence[Record], texts: Sequence[str]) -> Sequence[float]:
        """How much of its record each text tells."""
        if self.score == "told":
            return [asking.told(record, text) for record, text in zip(records, texts, strict=True)]
        return self._entails(scene)(texts, [record.body for record in records])

    def _entails(self, scene: Scene) -> Callable[[Sequence[str], Sequence[str]], Sequence[float]]:
        if scene.entails is None:
            raise DataError("attack 'sampling' with score=entailment needs a classifier. Set evaluation.entailment")
        return scene.entails
