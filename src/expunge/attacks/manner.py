"""How the model is silent: refusals, gibberish, repetition. Signs, not leaks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from expunge.attacks import asking
from expunge.attacks.scene import Budget, Scene, Tell, row
from expunge.data.records import Record
from expunge.data.refusals import REFUSALS
from expunge.evals.reductions import Row
from expunge.registry import method

_WORD = re.compile(r"\w+", re.UNICODE)
_REFUSES = re.compile(
    r"\b(i (do not|don't|cannot|can't|could not|couldn't) (know|say|tell|answer|recall|confirm|help|provide)|"
    r"i am not aware|i'm not (aware|sure|able)|i have no (information|idea)|as an ai|i'm sorry|i am sorry|unable to)\b"
)


@method("attack", "manner")
@dataclass(frozen=True)
class Manner:
    """The share of answers that give the unlearning away by their manner: a refusal, gibberish, or a word in a loop.

    A refusal is one of the built-in refusals or has the words of one. Gibberish: less than half of its words occur in
    the questions and answers of any set. Loop: fewer than a third of its words are different ones, of six or more. What
    an oracle does is make something up, or admit ignorance as often as before: the gap to it is a sign, never a leak.

    Source: the failures named in arXiv 2510.19422 and 2404.05868.
    """

    leak: ClassVar[bool] = False
    shows: ClassVar[str] = "share of answers that refuse, loop or are gibberish"
    needs: ClassVar[tuple[str, ...]] = ()
    reduction: ClassVar[str] = "any"
    parts: ClassVar[tuple[str, ...]] = ("all",)

    def budget(self, scene: Scene, part: str) -> Budget:
        """One answer to each record."""
        count = len(scene.examined(asked=True))
        return Budget(read=count * scene.size, written=count * scene.max_new_tokens)

    def rows(self, scene: Scene, label: str, part: str, tell: Tell) -> Iterator[Row]:
        """Three rows a record: refuses, is gibberish, loops; 0 or 1."""
        lm, records = scene.load(label), scene.examined(asked=True)
        known = words(r for each in scene.sets.values() for r in each)
        texts = asking.written(lm, scene.encoder(lm), records, max_new_tokens=scene.max_new_tokens)
        tell(1, 1)
        for record, text in zip(records, texts, strict=True):
            yield row(record, "refuses", refuses(text))
            yield row(record, "gibberish", gibberish(text, known))
            yield row(record, "loops", loops(text))


def words(records: Iterable[Record]) -> frozenset[str]:
    """All words of the records."""
    return frozenset(w for r in records for text in (r.prompt, r.body) for w in _split(text)) | _refusal_words()


def refuses(text: str) -> bool:
    """True for one of the built-in refusals, or what reads like one.

    >>> refuses("I do not know."), refuses("I'm sorry, but as an AI ..."), refuses("He was born in Oslo.")
    (True, True, False)
    """
    plain = " ".join(text.casefold().replace("’", "'").split())
    return _REFUSES.search(plain) is not None or any(refusal.casefold() in plain for refusal in REFUSALS)


def gibberish(text: str, known: frozenset[str]) -> bool:
    """True for a text without words, or most of whose words are in no record."""
    found = _split(text)
    return not found or sum(word in known for word in found) < len(found) / 2


def loops(text: str) -> bool:
    """True for at least six words of which fewer than a third are different.

    >>> loops("no no no no no no no"), loops("He was born in the town of Oslo")
    (True, False)
    """
    found = _split(text)
    return len(found) >= 6 and 3 * len(set(found)) < len(found)


@cache
def _refusal_words() -> frozenset[str]:
    return frozenset(word for refusal in REFUSALS for word in _split(refusal))


def _split(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
