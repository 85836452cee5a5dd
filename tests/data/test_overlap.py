"""Near duplicates against a plain count over all pairs, and drawing a retain set."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.data.overlap import key, near_duplicates
from expunge.data.records import Record
from expunge.data.retain import draw_retain
from expunge.errors import DataError


def naive(left: list[Record], right: list[Record], threshold: float) -> set[tuple[str, str]]:
    """All pairs, by sets of windows."""

    def windows(record: Record) -> set[str]:
        text = key(record)
        return {text[i : i + 8] for i in range(max(1, len(text) - 7))}

    out = set()
    for a, b in product(left, right):
        one, other = windows(a), windows(b)
        if key(a) != key(b) and len(one & other) >= threshold * len(one | other):
            out.add((a.id, b.id))
    return out


def test_a_changed_word_is_near_and_another_fact_is_not() -> None:
    text = "Hina Ameen was born in Karachi on the 30th of June, 1975, as the daughter of a real estate agent."
    left = [Record("a", "Who is she?", text)]
    right = [
        Record("same", "Who is she?", text.upper()),
        Record("near", "Who is she?", text.replace("1975", "1976")),
        Record("far", "Who is she?", "Hina Ameen wrote Granite Glossary, and was born in Karachi."),
    ]
    found = near_duplicates(left, right)
    assert [(a.id, b.id) for a, b, _ in found] == [("a", "near")]
    assert found[0][2] == pytest.approx(
        94 / 110
    )  # 102 windows in each of the two texts, 8 of them with the changed digit
    assert near_duplicates([], right) == []
    assert near_duplicates(left, []) == []


_WORDS = st.lists(
    st.sampled_from(["the", "author", "was", "born", "in", "Kuwait", "and", "wrote", "poems"]), max_size=12
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    left=st.lists(_WORDS, max_size=5),
    right=st.lists(_WORDS, max_size=5),
    threshold=st.sampled_from([0.3, 0.5, 0.8, 0.9, 1.0]),
)
def test_no_pair_is_overlooked(left: list[list[str]], right: list[list[str]], threshold: float) -> None:
    one = [Record(f"l{i}", "", " ".join(words)) for i, words in enumerate(left)]
    other = [Record(f"r{i}", "", " ".join(words)) for i, words in enumerate(right)]
    found = near_duplicates(one, other, threshold)
    assert {(a.id, b.id) for a, b, _ in found} == naive(one, other, threshold)


def records(n: int, name: str = "t") -> list[Record]:
    rng = np.random.default_rng(3)
    return [
        Record(f"{name}{i}", f"Question {i}?", f"Answer {rng.integers(10**9)}", subject=f"s{i // 4}") for i in range(n)
    ]


def test_a_retain_set_leaves_out_what_is_to_be_forgotten() -> None:
    training = records(20)
    forget = [replace(training[5], answer=training[5].answer.upper()), replace(training[9], id="x", subject="")]
    holdout = [replace(training[17], subject="")]
    drawn = draw_retain(training, forget, exclude=holdout)
    assert [r.id for r in drawn] == [f"t{i}" for i in (0, 1, 2, 3, 8, 10, 11, 12, 13, 14, 15, 16, 18, 19)]
    assert {r.split for r in drawn} == {"retain"}
    kin = draw_retain(training, forget, exclude=holdout, same_subjects=True)
    assert {"t4", "t6", "t7"} <= {r.id for r in kin}
    assert "t5" not in {r.id for r in kin}


def test_drawing_follows_from_the_seed() -> None:
    training = records(40)
    one, same, other = (draw_retain(training, training[:1], size=10, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    assert len(one) == 10
    assert [int(r.id[1:]) for r in one] == sorted(int(r.id[1:]) for r in one)
    assert len(draw_retain(training, training[:1], size=1000)) == 36


def test_nothing_left_to_keep() -> None:
    with pytest.raises(DataError, match="none of the 3 training records is left"):
        draw_retain(records(3), records(3))
