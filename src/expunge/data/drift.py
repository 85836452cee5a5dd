"""How far two sets of texts differ in their words: if words alone tell them apart, so does any membership attack.

A naive Bayes classifier over words, tested on subjects it did not read: names that belong to one subject tell nothing
about another, so that what is left is style, time and topic of the whole set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from expunge.data.words import cut

FOLDS = 5
LEVEL = 0.6
"""Two sets are said to differ if the interval of the classifier's AUC lies above this."""


def separation(
    first: Sequence[str], second: Sequence[str], first_subjects: Sequence[str], second_subjects: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The log-odds of each text, a word, for belonging to `first`, from a classifier that read other subjects.

    Cross-validated in at most `FOLDS` folds of whole subjects (a text without subject is its own). 0 where one of the
    sets has a single subject, so that nothing is left to learn from.

    >>> cats, dogs = ["the cat purrs", "a cat sleeps"], ["the dog barks", "a dog runs"]
    >>> one, two = separation(cats, dogs, ["", ""], ["", ""])
    >>> bool(one.min() > two.max())
    True
    """
    bags = [[Counter(set(_words(text))) for text in texts] for texts in (first, second)]
    folds = [_folds(subjects) for subjects in (first_subjects, second_subjects)]
    scores = [np.zeros(len(first)), np.zeros(len(second))]
    for fold in range(FOLDS):
        read = [[bag for bag, f in zip(bags[k], folds[k], strict=True) if f != fold] for k in (0, 1)]
        if not read[0] or not read[1]:
            continue
        odds = _odds(read[0], read[1])
        for k in (0, 1):
            for index in np.flatnonzero(folds[k] == fold):
                known = [odds[word] for word in bags[k][index] if word in odds]
                scores[k][index] = sum(known) / max(1, len(bags[k][index]))
    return scores[0], scores[1]


def _words(text: str) -> list[str]:
    return [text[start:end].casefold() for start, end in cut(text)]


def _folds(subjects: Sequence[str]) -> NDArray[np.int64]:
    """The fold of each text: subjects dealt out in turn."""
    names = [subject or f"\x00{index}" for index, subject in enumerate(subjects)]
    order = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return np.array([order[name] % FOLDS for name in names], dtype=np.int64)


def _odds(first: Sequence[Counter[str]], second: Sequence[Counter[str]]) -> dict[str, float]:
    """log p(word | first) / p(word | second), as shares of texts that have it, one added to both counts."""
    one: Counter[str] = sum(first, Counter())
    two: Counter[str] = sum(second, Counter())
    return {
        word: float(np.log((one[word] + 1) / (len(first) + 2)) - np.log((two[word] + 1) / (len(second) + 2)))
        for word in one | two
    }
