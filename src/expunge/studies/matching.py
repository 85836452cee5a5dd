"""Random tokens that are like given ones: same record, like position, like frequency."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from expunge.data.encode import Encoded

IGNORE = -100
"""As core.IGNORE; repeated so that matching needs no torch."""
_NEAREST = 3
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """The scored tokens of many records: how often each id occurs, and ids by position in the answer (tenths)."""

    counts: Mapping[int, int]
    places: Mapping[int, Ints]

    @classmethod
    def of(cls, items: Iterable[Encoded]) -> Pool:
        """The pool of the items' answer tokens; end tokens do not count."""
        counts: Counter[int] = Counter()
        places: dict[int, set[int]] = {}
        for item in items:
            found = answer_tokens(item)
            for place, token in enumerate(found):
                counts[token] += 1
                places.setdefault(_tenth(place, len(found)), set()).add(token)
        return cls(counts, {place: np.array(sorted(ids), np.int64) for place, ids in places.items()})

    def rarity(self, token: int) -> float:
        """-log of the token's count."""
        return -math.log(max(self.counts.get(token, 0), 1))

    def substitute(self, token: int, place: int, length: int, rng: np.random.Generator) -> int:
        """Another token of like position in its answer and like frequency: one of the 3 nearest in log count.

        The token itself if the pool knows no other.
        """
        known = self.places.get(_tenth(place, length), np.zeros(0, np.int64))
        others = known[known != token]
        if not len(others):
            others = np.array([other for other in self.counts if other != token] or [token], np.int64)
        gap = np.abs(np.array([self.rarity(int(other)) for other in others]) - self.rarity(token))
        order = np.lexsort((rng.random(len(others)), gap))
        return int(others[order[rng.integers(min(_NEAREST, len(others)))]])

    def matched(self, chosen: Sequence[int], tokens: Sequence[int], rng: np.random.Generator) -> list[int]:
        """As many places of `tokens` outside of `chosen`, each like one of them: near in position and log count.

        Position counts in shares of the answer, log count in shares of its range. Drawn among the 3 nearest that are
        still free, so that the same places do not come every time. ValueError if there are not enough.
        """
        free = [place for place in range(len(tokens)) if place not in set(chosen)]
        if len(free) < len(chosen):
            raise ValueError(f"{len(chosen)} places to be matched, but only {len(free)} others")
        rarity = np.array([self.rarity(token) for token in tokens])
        spread = float(np.ptp(rarity)) or 1.0
        out = []
        for own in rng.permutation(list(chosen)).tolist():
            gap = [abs(place - own) / len(tokens) + abs(rarity[place] - rarity[own]) / spread for place in free]
            near = np.lexsort((rng.random(len(free)), np.round(gap, 9)))[:_NEAREST]  # ties would all go to the left
            out.append(free.pop(int(near[rng.integers(len(near))])))
        return sorted(out)


def answer_tokens(item: Encoded) -> list[int]:
    """The ids of the scored tokens that stand for characters of the answer: not the end token."""
    return [int(token) for token in item.targets[answer_places(item)]]


def answer_places(item: Encoded) -> Ints:
    """The positions of these tokens in the item's arrays (index t predicts `targets[t]`)."""
    return np.flatnonzero((item.targets != IGNORE) & (item.offsets[:, 0] >= 0))


def _tenth(place: int, length: int) -> int:
    return 10 * place // max(length, 1)
