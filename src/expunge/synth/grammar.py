r"""Text from small patterns, with the place of every slot: how the benchmark knows its spans without searching.

A pattern is text with choices `[was born|grew up]` (may be nested), gender choices `<her|his>` and slots `{town}`.
A backslash takes the next character as it is. `choose` settles everything except the open slots; `fill` puts values
into these and says where they stand.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Dice:
    """Draws that depend on the key alone: the same on every platform and Python version.

    >>> Dice("seed", 7).order(5)
    [0, 2, 4, 1, 3]
    """

    def __init__(self, *key: str | int) -> None:
        digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
        # Only Random.random() is promised to give the same numbers in every version of Python.
        self._random = random.Random(int.from_bytes(digest, "big")).random

    def below(self, n: int) -> int:
        """A whole number in [0, n)."""
        return int(self._random() * n)

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`, all equally likely."""
        return options[int(self._random() * len(options))]

    def order(self, n: int) -> list[int]:
        """The numbers 0 to n - 1 in a random order."""
        out = list(range(n))
        for i in range(n - 1, 0, -1):
            j = self.below(i + 1)
            out[i], out[j] = out[j], out[i]
        return out


class Mark(NamedTuple):
    """Characters `start:end` of a text that came from the slot `slot`."""

    slot: str
    start: int
    end: int


class Marked(NamedTuple):
    """A text and the places of its slots, outer ones before the ones inside them."""

    text: str
    marks: tuple[Mark, ...] = ()

    def ranges(self, slot: str) -> tuple[tuple[int, int], ...]:
        """Start and end of every mark of `slot`."""
        return tuple((mark.start, mark.end) for mark in self.marks if mark.slot == slot)


@dataclass(frozen=True)
class Slot:
    """A named gap of a pattern."""

    name: str


@dataclass(frozen=True)
class Choice:
    """Several continuations of a pattern; by gender if `gendered`, else by dice."""

    options: tuple[tuple[Node, ...], ...]
    gendered: bool


Node = str | Slot | Choice
Piece = str | Slot | tuple[str, Marked]
"""Of a settled pattern: text, an open slot, or (list name, what was drawn from that list)."""

_ENDS = {"[": "]", "<": ">"}


@cache
def parse(pattern: str) -> tuple[Node, ...]:
    """The nodes of a pattern; ValueError where a bracket is not closed.

    >>> parse("{name} [swims|dives]")
    (Slot(name='name'), ' ', Choice(options=(('swims',), ('dives',)), gendered=False))
    """
    nodes, at = _sequence(pattern, 0, "")
    if at != len(pattern):
        raise ValueError(f"pattern {pattern!r}: '{pattern[at]}' at {at} closes nothing")
    return nodes


def _sequence(pattern: str, at: int, stops: str) -> tuple[tuple[Node, ...], int]:
    nodes: list[Node] = []
    text: list[str] = []
    while at < len(pattern) and pattern[at] not in stops:
        char = pattern[at]
        if char in "[<{":
            if text:
                nodes.append("".join(text))
                text = []
            node, at = _slot(pattern, at) if char == "{" else _choice(pattern, at)
            nodes.append(node)
            continue
        if char == "\\":
            at += 1
        text.append(pattern[at])
        at += 1
    if text:
        nodes.append("".join(text))
    return tuple(nodes), at


def _slot(pattern: str, at: int) -> tuple[Node, int]:
    end = pattern.find("}", at)
    if end < 0:
        raise ValueError(f"pattern {pattern!r}: the slot at {at} is not closed")
    return Slot(pattern[at + 1 : end]), end + 1


def _choice(pattern: str, at: int) -> tuple[Node, int]:
    start, close = at, _ENDS[pattern[at]]
    options: list[tuple[Node, ...]] = []
    while True:
        nodes, at = _sequence(pattern, at + 1, "|" + close)
        options.append(nodes)
        if at >= len(pattern):
            raise ValueError(f"pattern {pattern!r}: the choice at {start} is not closed")
        if pattern[at] == close:
            return Choice(tuple(options), gendered=close == ">"), at + 1


Lists = Mapping[str, Sequence[str]]


def choose(pattern: str, dice: Dice, lists: Lists, gender: int = 0) -> tuple[Piece, ...]:
    """The pattern with every choice made; slots named in `lists` are drawn (their items are patterns), others stay."""
    pieces: list[Piece] = []
    _settle(parse(pattern), dice, lists, gender, pieces)
    return tuple(pieces)


def _settle(nodes: tuple[Node, ...], dice: Dice, lists: Lists, gender: int, out: list[Piece]) -> None:
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
        elif isinstance(node, Choice):
            _settle(node.options[gender] if node.gendered else dice.pick(node.options), dice, lists, gender, out)
        elif node.name not in lists:
            out.append(node)
        else:
            item = parse(dice.pick(lists[node.name]))
            if len(item) < 2 and all(isinstance(part, str) for part in item):
                out.extend((node.name, Marked(str(part))) for part in item)
                continue
            inner: list[Piece] = []
            _settle(item, dice, lists, gender, inner)
            if any(isinstance(piece, Slot) for piece in inner):
                out.extend(inner)
            else:
                out.append((node.name, fill(inner, {})))


def text_of(pieces: Sequence[Piece], slots: Mapping[str, Marked | str]) -> str:
    """The text of `fill(pieces, slots)`, for where the marks are not needed: several times faster."""
    out: list[str] = []
    for piece in pieces:
        part = piece if isinstance(piece, str) else slots[piece.name] if isinstance(piece, Slot) else piece[1]
        out.append(part if isinstance(part, str) else part.text)
    return "".join(out)


def fill(pieces: Sequence[Piece], slots: Mapping[str, Marked | str]) -> Marked:
    """The text with its slots filled, and the marks of slots, of drawn lists and of what is inside them.

    >>> fill(("the ", Slot("value"), "."), {"value": "sea"})
    Marked(text='the sea.', marks=(Mark(slot='value', start=4, end=7),))
    """
    text: list[str] = []
    marks: list[Mark] = []
    at = 0
    for piece in pieces:
        if isinstance(piece, str):
            text.append(piece)
            at += len(piece)
            continue
        name, value = (piece.name, slots[piece.name]) if isinstance(piece, Slot) else piece
        part = value if isinstance(value, Marked) else Marked(value)
        if part.text:
            marks.append(Mark(name, at, at + len(part.text)))
        marks.extend(Mark(m.slot, at + m.start, at + m.end) for m in part.marks)
        text.append(part.text)
        at += len(part.text)
    return Marked("".join(text), tuple(marks))


def render(
    pattern: str, dice: Dice, lists: Lists, slots: Mapping[str, Marked | str] | None = None, gender: int = 0
) -> Marked:
    """`fill(choose(pattern))`: a text with marks from a pattern in one step."""
    return fill(choose(pattern, dice, lists, gender), slots or {})


def upper_first(text: str) -> str:
    """The text with an upper-case first letter. (No lexicon has a letter whose capital is longer, such as sharp s.)"""
    return text[:1].upper() + text[1:]


def join(parts: Sequence[Marked], separator: str) -> Marked:
    """The parts one after the other with `separator` between them, marks moved accordingly."""
    marks: list[Mark] = []
    at = 0
    for part in parts:
        marks.extend(Mark(m.slot, at + m.start, at + m.end) for m in part.marks)
        at += len(part.text) + len(separator)
    return Marked(separator.join(part.text for part in parts), tuple(marks))
