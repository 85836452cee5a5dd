"""What an attack gets, and what it must give: models by label, records, and rows of what each model showed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

from expunge.data.encode import Encoder
from expunge.data.records import Record, Split
from expunge.decode import complete
from expunge.errors import DataError
from expunge.evals import scoring
from expunge.evals.reductions import FORGET, Row
from expunge.lm import LM
from expunge.recipe import Data

Tell = Callable[[int, int], None]
"""Called with how many are done and how many there are."""
_EXAMINED: tuple[Split, ...] = ("forget", "holdout")
_TRIED, _WRITTEN = 32, 8


@dataclass(frozen=True)
class Budget:
    """What an attack on one model takes, in tokens: read in a forward pass, written one by one, trained on."""

    read: float = 0
    written: float = 0
    trained: float = 0

    def __add__(self, other: Budget) -> Budget:
        return Budget(self.read + other.read, self.written + other.written, self.trained + other.trained)

    def __mul__(self, times: float) -> Budget:
        return Budget(self.read * times, self.written * times, self.trained * times)

    def seconds(self, speed: Speed) -> float:
        """The expected time. A training token takes three times that of one that is read.

        >>> Budget(read=100, trained=100).seconds(Speed(read=100.0, written=10.0))
        4.0
        """
        return (self.read + 3 * self.trained) / speed.read + self.written / speed.written


@dataclass(frozen=True)
class Speed:
    """Tokens a second of one model on this machine."""

    read: float
    written: float


@dataclass(frozen=True)
class Scene:
    """The attacked model beside the others, and the records. `models` load anew at each call, so that an attack may
    change what it gets.

    `own` is the label of the attacked model. `sets` by name: forget, and as far as there are any retain, holdout and
    general. `entails(texts, answers)`: how surely each text entails the answer, if a classifier says so. `writer`: who
    writes rewordings, if somebody does. `beneath`: of models that are an adapter beside a base, the base by label.
    `learning_rate` is that of the unlearning; `size` how many tokens a forget record has on average, `layers`
    how many layers the model has.
    """

    own: str
    models: Mapping[str, Callable[[], LM]]
    sets: Mapping[str, Sequence[Record]]
    data: Data
    seed: int = 0
    learning_rate: float = 1e-5
    max_new_tokens: int = 48
    token_budget: int = 2048
    size: float = 64.0
    layers: int = 24
    speed: Speed = field(default_factory=lambda: Speed(1000.0, 100.0))
    entails: Callable[[Sequence[str], Sequence[str]], Sequence[float]] | None = None
    writer: Writer | None = None
    beneath: Mapping[str, Callable[[], LM]] = field(default_factory=dict)

    def load(self, label: str) -> LM:
        """A fresh copy of a model."""
        return self.models[label]()

    def encoder(self, lm: LM) -> Encoder:
        """The records' way to this model's tokens."""
        return Encoder.from_recipe(lm.tokenizer, self.data)

    def examined(self, *, asked: bool = False) -> list[Record]:
        """The forget records, and the holdout's beside them. `asked`: only those with a prompt; DataError if none."""
        found = [replace(record, split=split) for split in _EXAMINED for record in self.sets.get(split, ())]
        kept = [record for record in found if record.prompt or not asked]
        if not any(record.split == FORGET for record in kept):
            raise DataError("no forget record has a prompt, and this attack asks questions. Leave it out")
        return kept

    def retained(self, *, asked: bool = False) -> list[Record]:
        """The records that the model should still know; DataError if there are none."""
        kept = [record for record in self.sets.get("retain", ()) if record.prompt or not asked]
        if not kept:
            raise DataError("this attack needs records that the model still knows. Set data.retain, or leave it out")
        return kept


class Writer(Protocol):
    """A language model that asks questions in other words."""

    @property
    def name(self) -> str:
        """The name that it is served under."""

    def __call__(self, questions: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Rewordings of each question."""


class Attack(Protocol):
    """One attempt to bring knowledge back. A frozen dataclass; its fields are its settings.

    `leak`: more than the oracle shows is a leak, else the attack only describes. `shows`: what a row's value is, in
    words. `needs`: labels of models without which it cannot be made. `reduction`: from rows to a value a record
    (`evals.reductions`). `parts` are done one after the other, each with a table of its own that is not made twice.
    """

    leak: ClassVar[bool]
    shows: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]

    @property
    def reduction(self) -> str:
        """A name of `evals.reductions.reduced`."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts, fit for a file name."""

    def budget(self, scene: Scene, part: str) -> Budget:
        """What one part on one model takes."""

    def rows(self, scene: Scene, label: str, part: str, tell: Tell) -> Iterable[Row]:
        """What one model shows in one part."""


def row(record: Record, condition: str, value: float, x: float = 0.0) -> Row:
    """The row of a record."""
    return Row(record.split, record.id, record.subject, condition, float(x), float(value))


def measured_speed(lm: LM, encoder: Encoder, records: Sequence[Record]) -> tuple[Speed, float]:
    """How fast a model reads and writes here, from a few records, and how many tokens these have on average."""
    few = list(records)[:_TRIED]
    items = scoring.items(encoder, few, ("answer",))
    tokens = sum(len(item.encoded) for item in items)
    scoring.score_items(lm, items)  # the first pass also pays for what is set up once
    began = time.perf_counter()
    scoring.score_items(lm, items)
    reading = time.perf_counter() - began
    prompts = [encoder.prompt_ids(record) for record in few if record.prompt] or [[lm.pad_id]]
    began = time.perf_counter()
    complete(lm, prompts, frozenset(), max_new_tokens=_WRITTEN)
    writing = time.perf_counter() - began
    speed = Speed(tokens / max(reading, 1e-9), len(prompts) * _WRITTEN / max(writing, 1e-9))
    return speed, tokens / max(1, len(few))
