"""Cheap guesses at which words are informative, to hold scores against: how rare a word is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from expunge.data.agreement import words
from expunge.data.records import Record
from expunge.evals.selectivity import bare


def surprisal(corpus: Iterable[str], asked: Iterable[str]) -> dict[str, float]:
    """-log of each asked text's words' frequency in the corpus, in nats; every word counted once more than it is there.

    >>> found = surprisal(["the sea the sky"], ["The moon"])
    >>> {word: round(value, 3) for word, value in found.items()}  # 3 of 8 and 1 of 8
    {'the': 0.981, 'moon': 2.079}
    """
    counts = Counter(word for text in corpus for word in _words(text))
    wanted = dict.fromkeys(word for text in asked for word in _words(text))
    total = sum(counts.values()) + len(counts.keys() | wanted.keys())
    return {word: -math.log((counts[word] + 1) / total) for word in wanted}


def _words(text: str) -> list[str]:
    found = (bare(text[start:end]) for start, end in words(Record("", answer=text)))
    return [word for word in found if word]
