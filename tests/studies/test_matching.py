"""Random tokens that are like given ones, by hand and by distribution."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.data.encode import Encoded
from expunge.studies.matching import Pool, answer_places, answer_tokens


def item(*tokens: int, end: int = 2, key: str = "r") -> Encoded:
    """A prompt of two tokens, an answer, and an end token."""
    ids = np.array([7, 7, *tokens, end])
    targets = np.array([-100, *tokens, end, -100])
    offsets = np.array([[-1, -1], *([i, i + 1] for i in range(len(tokens))), [-1, -1], [-1, -1]], np.int32)
    return Encoded(key, ids, targets, offsets, {})


def test_the_end_token_is_no_answer_token() -> None:
    assert answer_tokens(item(10, 11)) == [10, 11]
    assert answer_places(item(10, 11)).tolist() == [1, 2]


def test_substitutes_are_of_like_place_and_frequency() -> None:
    """At the first place stand 10 (often), 11 (often) and 20 (once); at the last 30 and 31."""
    rows = [item(10, 30)] * 8 + [item(11, 31)] * 7 + [item(20, 30)]
    pool = Pool.of(rows)
    rng = np.random.default_rng(0)
    drawn = {pool.substitute(10, 0, 2, rng) for _ in range(40)}
    assert drawn == {11, 20}, "the only others at that place"
    assert pool.substitute(31, 1, 2, rng) == 30
    assert pool.substitute(99, 0, 2, rng) != 99


def test_a_token_that_stands_alone_stays() -> None:
    assert Pool.of([item(10)]).substitute(10, 0, 1, np.random.default_rng(0)) == 10


def test_matched_places_are_others_near_by() -> None:
    pool = Pool.of([item(*range(100, 120))])
    chosen = [4, 5]
    for seed in range(20):
        found = pool.matched(chosen, list(range(100, 120)), np.random.default_rng(seed))
        assert len(set(found)) == 2
        assert not set(found) & set(chosen)
        assert all(1 <= place <= 8 for place in found)
    with pytest.raises(ValueError, match="only 1 others"):
        pool.matched([0, 1], [100, 101, 102], np.random.default_rng(0))


def test_matched_places_have_the_position_and_frequency_of_the_chosen() -> None:
    """Rare tokens at odd places: matched places of chosen rare ones are rare more often than chance."""
    rng = np.random.default_rng(0)
    rows = [item(*[int(1000 + 40 * r + i) if i % 2 else 5 for i in range(20)], key=f"r{r}") for r in range(30)]
    pool = Pool.of(rows)
    gaps, rare = [], []
    for row in rows:
        chosen = sorted(rng.choice(np.arange(1, 20, 2), 4, replace=False).tolist())
        found = pool.matched(chosen, answer_tokens(row), rng)
        gaps.append(np.mean(found) - np.mean(chosen))
        rare += [place % 2 for place in found]
    assert abs(np.mean(gaps)) < 1.0
    assert np.mean(rare) > 0.9
