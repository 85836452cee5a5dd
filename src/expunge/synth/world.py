"""The facts before any text: who there is, what is true of whom, and what would be a plausible untruth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from expunge.data.records import Split
from expunge.synth.grammar import Dice, Marked, render, upper_first
from expunge.synth.lexicon import PERSON, Fact, Lexicon

WRONG = 5
"""Wrong values of each fact."""


@dataclass(frozen=True)
class Person:
    """One subject (a person, or a library of code): `values[i]` belongs to the i-th fact of the world.

    `neighbour_of` is the id of the forgotten person with whom the facts named in `shared` are shared.
    """

    index: int
    id: str
    name: str
    gender: int
    split: Split
    values: tuple[Marked, ...]
    neighbour_of: str = ""
    shared: tuple[str, ...] = ()


@dataclass(frozen=True)
class World:
    """All subjects of a benchmark, each made on demand from the seed and its own number, in constant time.

    Numbers below `forget` are the forgotten, then come `holdout` never-trained ones, then the retained; the first
    `forget * neighbours` of these are neighbours. Names carry no trace of the number: they are a scattered order.
    """

    lexicon: Lexicon
    seed: int
    people: int
    forget: int
    holdout: int
    neighbours: int
    shared: int
    facts: tuple[Fact, ...]

    @cached_property
    def lists(self) -> Mapping[str, tuple[str, ...]]:
        """The lexicon's lists and those that this world draws for itself (its towns, its companies)."""
        lists = dict(self.lexicon.lists)
        for name, (pattern, count) in self.lexicon.made.items():
            dice = Dice(self.seed, "list", name)
            items: dict[str, None] = {}
            while len(items) < count:
                items[render(pattern, dice, self.lexicon.lists).text] = None
            lists[name] = tuple(items)
        return lists

    @cached_property
    def _name_order(self) -> tuple[int, int]:
        return self.lexicon.names.order(Dice(self.seed, "names"))

    @cached_property
    def _rank(self) -> Mapping[str, int]:
        """For each kind of fact whose values are names: which block of names is its own."""
        named = [fact.name for fact in self.facts if fact.value == PERSON]
        return {name: rank for rank, name in enumerate(named, start=1)}

    def name(self, number: int) -> tuple[str, int]:
        """The number-th name of this world, and its gender. Different numbers have different names."""
        factor, offset = self._name_order
        return self.lexicon.names.at((factor * number + offset) % len(self.lexicon.names))

    def unused_name(self, dice: Dice) -> str:
        """A name that nobody in this world bears."""
        used = self.people * (1 + len(self._rank))
        return self.name(used + dice.below(len(self.lexicon.names) - used))[0]

    def numbers(self, split: Split) -> range:
        """The numbers of the subjects of one split; none for `general`."""
        ends = {"forget": (0, self.forget), "holdout": (self.forget, self.forget + self.holdout)}
        start, end = ends.get(split, (self.forget + self.holdout, self.people if split == "retain" else 0))
        return range(start, max(start, end))

    def subjects(self, split: Split) -> Iterator[Person]:
        """The subjects of one split, one after the other."""
        return (self.person(number) for number in self.numbers(split))

    def neighbour_numbers(self, number: int) -> range:
        """The numbers of the neighbours of a forgotten person."""
        first = self.forget + self.holdout + number * self.neighbours
        return range(first, first + self.neighbours)

    def person(self, number: int) -> Person:
        """The subject with this number."""
        name, gender = self.name(number)
        dice = Dice(self.seed, "person", number)
        values = [self._value(fact, number, dice) for fact in self.facts]
        split: Split = "forget" if number < self.forget else "retain"
        if number in self.numbers("holdout"):
            split = "holdout"
        base = number - self.forget - self.holdout
        if split != "retain" or base >= self.forget * self.neighbours:
            return Person(number, self.id(number), name, gender, split, tuple(values))
        other = self.person(base // self.neighbours)
        common = [i for i in dice.order(len(self.facts)) if self.facts[i].value != PERSON][: self.shared]
        for i in common:
            values[i] = other.values[i]
        shared = tuple(self.facts[i].name for i in sorted(common))
        return Person(number, self.id(number), name, gender, split, tuple(values), other.id, shared)

    def sentence(self, text: str) -> str:
        """The text as the beginning of a sentence of this language."""
        return upper_first(text) if self.lexicon.capitals else text

    @staticmethod
    def id(number: int) -> str:
        """The id of a subject, which says nothing about it."""
        return f"p{number:05d}"

    def _value(self, fact: Fact, number: int, dice: Dice) -> Marked:
        if fact.value == PERSON:
            return Marked(self.name(self.people * self._rank[fact.name] + number)[0])
        return render(fact.value, dice, self.lists)

    def wrong(self, fact: Fact, truth: Marked, dice: Dice, count: int = WRONG) -> tuple[Marked, ...]:
        """Values of the same type, different from the truth and from each other.

        Wrong names are borne by nobody else, as the right one is: a model that never met either cannot tell them apart
        by having seen one of them.
        """
        found: dict[str, Marked] = {}
        while len(found) < count:
            value = Marked(self.unused_name(dice)) if fact.value == PERSON else render(fact.value, dice, self.lists)
            if value.text != truth.text:
                found.setdefault(value.text, value)
        return tuple(found.values())
