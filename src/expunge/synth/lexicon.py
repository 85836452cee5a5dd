"""What a language or a kind of subject brings to the benchmark: names, lists of words, facts and their patterns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd

from expunge.synth.grammar import Dice

PERSON = "{person}"
"""The value pattern of a fact whose value is the name of somebody who occurs nowhere else."""


def words(text: str) -> tuple[str, ...]:
    """The words of a text, by white space."""
    return tuple(text.split())


def items(separator: str, text: str) -> tuple[str, ...]:
    """What stands between the separators, without white space around it."""
    return tuple(item.strip() for item in text.strip().split(separator))


def pairs(separator: str, middle: str, text: str) -> tuple[tuple[str, str], ...]:
    """The two halves of every item.

    >>> pairs(";", ":", "hot: cold; early: late")
    (('hot', 'cold'), ('early', 'late'))
    """
    halves = (item.partition(middle) for item in items(separator, text))
    return tuple((left.strip(), right.strip()) for left, _, right in halves)


@dataclass(frozen=True)
class Fact:
    """One kind of fact. All patterns know `{name}` and `{value}`; `{value.part}` is the part of a value that came from
    the list `part`.

    `value`: pattern of the value. `questions` and `answers`: whole sentences; any of one fits any of the other.
    `clauses`: main clauses that begin with `{name}`, without the final stop. `about` and `spread`: a question and
    answers of several sentences that tell the value in parts. `reverse`: questions whose answer is the name; only for
    values that (nearly) nobody shares.
    """

    name: str
    value: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    clauses: tuple[str, ...]
    about: tuple[str, ...] = ()
    spread: tuple[str, ...] = ()
    reverse: tuple[str, ...] = ()


@dataclass(frozen=True)
class Names:
    """The space of names: every given name with every surname, listed in a scattered order without repetition."""

    female: tuple[str, ...]
    male: tuple[str, ...]
    surnames: tuple[str, ...]
    pattern: str = "{given} {surname}"

    def __len__(self) -> int:
        return (len(self.female) + len(self.male)) * len(self.surnames)

    def order(self, dice: Dice) -> tuple[int, int]:
        """Factor and offset of a permutation i -> factor * i + offset of the whole space."""
        size = len(self)
        factor = size // 3 + dice.below(size // 3)
        while gcd(factor, size) != 1:
            factor += 1
        return factor, dice.below(size)

    def at(self, index: int) -> tuple[str, int]:
        """The name with this number, and its gender (0 or 1)."""
        both = len(self.female) + len(self.male)
        given, surname = index % both, index // both % len(self.surnames)
        gender = int(given >= len(self.female))
        first = (self.female + self.male)[given] if both else ""
        return self.pattern.replace("{given}", first).replace("{surname}", self.surnames[surname]), gender


@dataclass(frozen=True)
class Topic:
    """General facts of one type, taught to the model and not about any person: what `{subject}` has.

    `pairs` are true of the world; without them every item of the list `things` gets a value by dice from the pattern
    `value`. `near`: close to the subjects' own facts (their towns), else about the wide world.
    """

    name: str
    questions: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...] = ()
    things: str = ""
    value: str = ""
    near: bool = False


@dataclass(frozen=True)
class Lexicon:
    """All that depends on the language.

    `lists`: words (or patterns) a slot may draw. `made`: lists that a benchmark draws for itself, from a pattern and
    so many different items. `pair`: how two clauses `{first}` and `{second}` stand in one sentence, and `pair_question`
    what it answers, of `{name}` and `{other}`. `pronouns` stand for `{name}` in a running text; the sentences of a
    text are joined by `separator` and end in `stop`; `capitals`: texts begin with a capital letter. `cloze`: asks for
    what is missing at the end of `{text}`.
    `choice`: puts `{question}` and the options `{one}` to `{four}`. `sentences`: plain language about nobody.
    """

    language: str
    names: Names
    lists: Mapping[str, tuple[str, ...]]
    made: Mapping[str, tuple[str, int]]
    facts: tuple[Fact, ...]
    pair: tuple[str, ...]
    pair_question: tuple[str, ...]
    topics: tuple[Topic, ...]
    sentences: tuple[str, ...]
    cloze: tuple[str, ...]
    choice: tuple[str, ...]
    pronouns: tuple[str, ...] = ()
    opening: tuple[str, ...] = ()
    separator: str = " "
    stop: str = "."
    capitals: bool = True
