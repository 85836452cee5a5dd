"""The built-in benchmark: fictitious people with gold spans, of any size, in several languages, or code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Literal

from expunge.data.records import Record, Split
from expunge.errors import DataError, unknown
from expunge.synth import forms, general
from expunge.synth.forms import Entry, Form
from expunge.synth.lexicon import Lexicon
from expunge.synth.world import Person, World

Kind = Literal["people", "code"]

_LEXICONS = {
    ("people", "en"): ("expunge.synth.english", "ENGLISH"),
    ("people", "zh"): ("expunge.synth.chinese", "CHINESE"),
    ("people", "ar"): ("expunge.synth.arabic", "ARABIC"),
    ("code", "en"): ("expunge.synth.code", "CODE"),
}
SMALLEST, LARGEST = 20, 20_000
TAUGHT: tuple[Form, ...] = ("qa", "spread", "biography", "entangled", "sentence")
"""The forms that are meant to be trained on; the others are probes."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark as its settings; records are made when asked for, always the same ones.

    `general` is the number of general facts near the subjects, of those about the wide world (as far as there are so
    many), and of sentences. `phrasings` question-answer pairs are made of each fact, `pairs` entangled sentences of
    each forgotten subject.
    """

    world: World
    language: str
    kind: Kind
    phrasings: int
    pairs: int
    general: int

    def subjects(self, split: Split) -> Iterator[Person]:
        """The people (or libraries) of one split: forget, retain or holdout."""
        return self.world.subjects(split)

    def entries(self, split: Split, wanted: Sequence[Form] = ("qa",)) -> Iterator[Entry]:
        """The records of one split in the given forms, with form and kind of fact, subject by subject."""
        if split == "general":
            yield from self._general(wanted)
            return
        for person in self.world.subjects(split):
            for form in wanted:
                yield from self._of(person, form)

    def records(self, split: Split, wanted: Sequence[Form] = ("qa",)) -> list[Record]:
        """The records of one split in the given forms."""
        return [entry.record for entry in self.entries(split, wanted)]

    def taught(self, without: Iterable[Split] = (), wanted: Sequence[Form] = ("qa", "sentence")) -> list[Record]:
        """What a target model is trained on; `without={'forget'}`, what its oracle is trained on. Never the holdout."""
        out = set(without)
        splits: tuple[Split, ...] = ("forget", "retain", "general")
        return [record for split in splits if split not in out for record in self.records(split, wanted)]

    def _of(self, person: Person, form: Form) -> Iterator[Entry]:
        if form == "qa":
            return forms.qa(self.world, person, self.phrasings)
        if form == "entangled":
            return forms.entangled(self.world, person, self.pairs if person.split == "forget" else 0)
        makers = {
            "spread": forms.spread,
            "biography": forms.biography,
            "cloze": forms.cloze,
            "reverse": forms.reverse,
            "choice": forms.choice,
        }
        return makers[form](self.world, person) if form in makers else iter(())

    def general_facts(self, near: bool) -> Iterator[Entry]:
        """Questions about the people's towns and companies (`near`), or about the wide world."""
        return general.facts(self.world, near, self.general)

    def _general(self, wanted: Sequence[Form]) -> Iterator[Entry]:
        if "qa" in wanted:
            yield from self.general_facts(True)
            yield from self.general_facts(False)
        if "sentence" in wanted:
            yield from self._sentences[0]
        if "unseen" in wanted:
            yield from self._sentences[1]

    @cached_property
    def _sentences(self) -> tuple[list[Entry], list[Entry]]:
        return general.sentences(self.world, self.general)


def make(
    people: int = 40,
    seed: int = 0,
    language: str = "en",
    kind: Kind = "people",
    *,
    forget_share: float = 0.1,
    holdout_share: float = 0.1,
    neighbours: int = 1,
    shared: int | None = None,
    facts: int | None = None,
    phrasings: int = 1,
    pairs: int | None = None,
    general: int | None = None,
) -> Benchmark:
    """A benchmark of so many fictitious people (or, by `kind='code'`, libraries), all of it decided by the seed.

    `forget_share` and `holdout_share` are shares of all people. Each forgotten person has `neighbours` retained ones
    with `shared` facts in common, and is in `pairs` entangled sentences (each 4 by default, or as many as the facts
    allow). `facts`: only the first so many kinds of fact (default all). DataError for a setting out of range.

    >>> benchmark = make(people=20, seed=1)
    >>> [len(list(benchmark.subjects(split))) for split in ("forget", "retain", "holdout")]
    [2, 16, 2]
    """
    lexicon = _lexicon(language, kind)
    count = len(lexicon.facts) if facts is None else facts
    forget, holdout = int(people * forget_share + 0.5), int(people * holdout_share + 0.5)
    general = min(max(people, 20), 2000) if general is None else general
    most = min(len(fact.questions) for fact in lexicon.facts) - 1
    shared = min(4, count // 2) if shared is None else shared
    pairs = min(4, count - shared) if pairs is None else pairs
    _in_range("people", people, SMALLEST, LARGEST)
    _in_range("facts", count, 1, len(lexicon.facts))
    _in_range("phrasings", phrasings, 1, most)
    _in_range("shared", shared, 0, count // 2)
    _in_range("pairs", pairs, 0, count - shared)
    _in_range("general", general, 0, 100_000)
    _in_range("forgotten people", forget, 1, people // 2)
    _in_range("held-out people", holdout, 0, people // 4)
    _in_range("neighbours", neighbours, 0, (people - forget - holdout) // forget)
    world = World(lexicon, seed, people, forget, holdout, neighbours, shared, lexicon.facts[:count])
    return Benchmark(world, language, kind, phrasings, pairs, general)


def _lexicon(language: str, kind: str) -> Lexicon:
    if (kind, language) not in _LEXICONS:
        kinds = sorted({k for k, _ in _LEXICONS})
        if kind not in kinds:
            raise DataError(unknown("kind of benchmark", kind, kinds))
        raise DataError(
            unknown(f"language of the '{kind}' benchmark", language, [la for k, la in _LEXICONS if k == kind])
        )
    module, name = _LEXICONS[kind, language]
    lexicon = getattr(import_module(module), name)
    assert isinstance(lexicon, Lexicon)
    return lexicon


def _in_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise DataError(f"benchmark: {name} must be from {low} to {high}, but is {value}")
