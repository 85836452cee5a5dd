"""Comparisons of annotations with intervals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from expunge.data import agreement
from expunge.data.agreement import Reading
from expunge.data.records import Record
from expunge.evals.agreement import compare, consistency


def corpus(number: int = 60, words: int = 12, subjects: int = 0) -> list[Record]:
    """Records of one-letter words, so that characters, words and units are the same."""
    return [
        Record(f"r{i}", answer=" ".join("abcdefghijklmnop"[:words]), subject=f"s{i % subjects}" if subjects else "")
        for i in range(number)
    ]


def noisy(name: str, records: list[Record], flip: float, seed: int) -> Reading:
    """The first four words of each record, each word's mark turned with probability `flip`."""
    rng = np.random.default_rng(seed)
    marked = {}
    for record in records:
        own = np.zeros(len(record.answer), np.bool_)
        wanted = np.arange(len(own[::2])) < 4
        own[::2] = wanted ^ (rng.random(len(wanted)) < flip)
        marked[record.id] = own
    return Reading(name, marked)


def test_pooled_and_mean_by_hand() -> None:
    """Record 1: 1 both, 1 first only; record 2: 2 both, 1 second only. Pooled Jaccard 3/5, mean (1/2 + 2/3) / 2."""
    records = corpus(2, 4)
    first = Reading("first", {"r0": _marks("1100"), "r1": _marks("1100")})
    second = Reading("second", {"r0": _marks("1000"), "r1": _marks("1110")})
    [by_character, by_word] = compare(first, second, records)
    for found in (by_character, by_word):
        assert found.pooled["jaccard"].value == pytest.approx(3 / 5)
        assert found.mean["jaccard"].value == pytest.approx((1 / 2 + 2 / 3) / 2)
        assert found.pooled["precision"].value == pytest.approx(3 / 4)
        assert found.pooled["recall"].value == pytest.approx(3 / 4)
        assert found.by_record["jaccard"] == pytest.approx({"r0": 1 / 2, "r1": 2 / 3})
        assert found.share == (4 / 8, 4 / 8)
        assert found.least(1) == ["r0"]
        assert found.records == 2
    assert (by_character.unit, by_word.unit) == ("character", "word")


def test_intervals_cover_the_value_that_noise_implies() -> None:
    """Marks turned with probability q on one side: precision tends to 4 (1-q) / (4 (1-q) + 8 q)."""
    records, q = corpus(), 0.1
    truth = noisy("truth", records, 0, 0)
    expected = 4 * (1 - q) / (4 * (1 - q) + 8 * q)
    inside = 0
    for seed in range(20):
        [found] = compare(noisy("run", records, q, seed), truth, records, {"word": agreement.words}, resamples=400)
        inside += found.pooled["precision"].low <= expected <= found.pooled["precision"].high
    assert inside >= 16


def test_an_annotation_agrees_with_itself_entirely() -> None:
    records = corpus(subjects=10)
    own = noisy("own", records, 0.2, 3)
    for found in compare(own, own, records, resamples=200):
        assert all(interval.value == 1 for interval in found.pooled.values())
        assert found.pooled["jaccard"].high == 1
        assert found.pooled["jaccard"].low < 1
        assert found.pooled["jaccard"].unit == "clusters"


def test_only_common_records_count() -> None:
    records = corpus(5, 4)
    first = Reading("first", {"r0": _marks("1000"), "r1": _marks("1000")})
    second = Reading("second", {"r1": _marks("1000"), "r2": _marks("0000")})
    [found] = compare(first, second, records, {"word": agreement.words}, resamples=100)
    assert list(found.by_record["jaccard"]) == ["r1"]


def test_consistency_is_the_mean_over_pairs() -> None:
    records = corpus(2, 4)
    runs = [
        Reading("a", {"r0": _marks("1100"), "r1": _marks("1000")}),
        Reading("b", {"r0": _marks("1000"), "r1": _marks("1000")}),
        Reading("c", {"r0": _marks("1110"), "r1": _marks("1000")}),
    ]
    expected = ((1 / 2 + 2 / 3 + 1 / 3) / 3 + 1) / 2
    assert consistency(runs, records).value == pytest.approx(expected)


def test_as_json_has_no_nan() -> None:
    records = corpus(3, 4)
    nothing = Reading("nothing", {r.id: _marks("0000") for r in records})
    [found] = compare(nothing, nothing, records, {"word": agreement.words}, resamples=100)
    assert math.isnan(found.pooled["precision"].value)
    tree = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert tree["pooled"]["precision"]["value"] is None
    assert tree["records"] == 3


def _marks(text: str) -> np.ndarray:  # type: ignore[type-arg]
    """'101' -> marks of the words of 'a b c'."""
    out = np.zeros(2 * len(text) - 1, np.bool_)
    out[::2] = [character == "1" for character in text]
    return out
