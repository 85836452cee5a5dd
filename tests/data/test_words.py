"""Words are where a reader of the language, or of the program, would say they are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.data.words import Segmentation, cut


@pytest.mark.parametrize(
    ("segmentation", "text", "expected"),
    [
        ("words", "Basil Al-Kuwaiti's father, 3.5 km.", ["Basil", "Al", "Kuwaiti's", "father", "3.5", "km"]),
        ("words", "他出生在北京市。1956年", ["他", "出", "生", "在", "北", "京", "市", "1956", "年"]),
        ("words", "ولد في الكويت، عام ١٩٥٦.", ["ولد", "في", "الكويت", "عام", "١٩٥٦"]),
        ("words", "東京タワー", ["東", "京", "タワー"]),
        ("words", "...!", []),
        ("whitespace", "He is  male.\n", ["He", "is", "male."]),
        ("whitespace", "他出生在北京。", ["他出生在北京。"]),
        ("characters", "ab cafe\u0301", ["a", "b", "c", "a", "f", "e\u0301"]),
        ("characters", "北京。", ["北", "京", "。"]),
        ("code", "def f(x_1): # 北京", ["def", "f", "(", "x_1", ")", ":", "#", "北", "京"]),
        ("code", 'key="a1", 0x1F', ["key", "=", '"', "a1", '"', ",", "0x1F"]),
    ],
)
def test_words_of_many_kinds_of_text(segmentation: Segmentation, text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in cut(text, segmentation)] == expected


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=40), segmentation=st.sampled_from(["words", "whitespace", "characters", "code"]))
def test_words_stand_in_order_and_hold_no_white_space(text: str, segmentation: Segmentation) -> None:
    at = 0
    for start, end in cut(text, segmentation):
        assert at <= start < end <= len(text)
        assert text[start:end].strip() == text[start:end]
        at = end
