"""Which records say the same: exactly but for white space and case, or nearly."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from expunge.data.records import Record

_WIDTH = 8
"""Characters of a shingle: longer than most words, so that the same words in another order share few."""

_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def key(record: Record) -> str:
    """The record's prompt and answer (or text) without regard to case and amount of white space.

    >>> key(Record("a", "Who  is it?", "Ada")) == key(Record("b", "who is it?", " ADA\\n"))
    True
    """
    return "\x1f".join(" ".join(part.split()).casefold() for part in (record.prompt, record.body))


def near_duplicates(
    left: Sequence[Record], right: Sequence[Record], threshold: float = 0.8
) -> list[tuple[Record, Record, float]]:
    """Pairs of a left and a right record whose texts share at least `threshold` of their shingles, the closest first.

    The similarity is the Jaccard index of the sets of 8-character windows of both texts. No pair is overlooked; pairs
    with equal keys are not among them. The cost grows with the texts' rarest windows, not with the number of pairs.
    """
    keys_left = [key(record) for record in left]
    sets_left = [_shingles(text) for text in keys_left]
    known, counts = np.unique(np.concatenate([*sets_left, np.zeros(0, np.uint64)]), return_counts=True)
    index: dict[int, list[int]] = defaultdict(list)
    for i, shingles in enumerate(sets_left):
        for shingle in _rarest(shingles, known, counts, threshold):
            index[shingle].append(i)
    found = []
    for other in right:
        text = key(other)
        shingles = _shingles(text)
        candidates = {i for shingle in _rarest(shingles, known, counts, threshold) for i in index.get(shingle, ())}
        for i in sorted(candidates):
            shared = len(np.intersect1d(sets_left[i], shingles, assume_unique=True))
            similarity = shared / (len(sets_left[i]) + len(shingles) - shared)
            if similarity >= threshold and keys_left[i] != text:
                found.append((left[i], other, similarity))
    return sorted(found, key=lambda pair: -pair[2])


def _shingles(text: str) -> NDArray[np.uint64]:
    """Hashes of all windows of `_WIDTH` characters, sorted; of the whole text if it is shorter."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    width = min(_WIDTH, len(codes))
    hashes = np.zeros(max(1, len(codes) - width + 1), np.uint64)
    for k in range(width):
        hashes = hashes * _FACTOR + codes[k : k + len(hashes)]
    return np.unique(hashes)


def _rarest(
    shingles: NDArray[np.uint64], known: NDArray[np.uint64], counts: NDArray[np.int64], threshold: float
) -> list[int]:
    """So many of the rarest shingles that two texts without any of them in common are below the threshold.

    If A and B share ceil(t * |A|) shingles or more, then among the |A| - ceil(t * |A|) + 1 that come first of A in some
    order there is one that also comes among the first of B in that order.
    """
    keep = len(shingles) - math.ceil(threshold * len(shingles) - 1e-9) + 1
    place = np.minimum(np.searchsorted(known, shingles), max(0, len(known) - 1))
    frequency = np.where(known[place] == shingles, counts[place], 0) if len(known) else np.zeros(len(shingles))
    rarest: list[int] = shingles[np.lexsort((shingles, frequency))[:keep]].tolist()
    return rarest
