"""Phrases are found where they stand, in any Unicode form, and never where they do not."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.identifiers.locate import fold, locate


def found(phrase: str, text: str, occurrence: int | None = None, **options: bool) -> list[str]:
    return [text[start:end] for start, end in locate(phrase, text, occurrence, **options)]


def test_a_phrase_inside_a_word_is_not_the_phrase() -> None:
    text = "Basil Al-Kuwaiti was born in Kuwait City, Kuwait."
    assert locate("Kuwait", text) == [(29, 35), (42, 48)]
    assert locate("Kuwait", text, whole_words=False) == [(9, 15), (29, 35), (42, 48)]


def test_one_of_several_occurrences_is_found_by_its_number() -> None:
    text = "red, Red and red"
    assert locate("red", text) == [(0, 3), (13, 16)]
    assert locate("red", text, 2) == [(13, 16)]
    # Three if case is not asked for; the exact form has only two, so the tolerant one answers.
    assert locate("red", text, 3) == [(13, 16)]
    assert locate("red", text, 4) == []
    assert locate("red", text, 0) == []


@pytest.mark.parametrize(
    ("phrase", "text", "expected"),
    [
        ("BASIL mahfouz", "It was Basil Mahfouz.", ["Basil Mahfouz"]),
        ("Basil  \n Mahfouz", "It was Basil Mahfouz.", ["Basil Mahfouz"]),
        ("Basil Mahfouz", "It was Basil\u00a0\n Mahfouz.", ["Basil\u00a0\n Mahfouz"]),
        ("“The Silent Hill,”", 'He wrote "The Silent Hill" then.', ["The Silent Hill"]),
        ("writer's", "The writer’s home", ["writer’s"]),
        ("2001-2005", "from 2001–2005 on", ["2001–2005"]),
        ("caf\u00e9", "the cafe\u0301 there", ["cafe\u0301"]),
        ("cafe\u0301", "the caf\u00e9 there", ["caf\u00e9"]),
        ("office", "the o\ufb03ce there", ["o\ufb03ce"]),
        ("한국", unicodedata.normalize("NFD", "그는 한국에 산다"), [unicodedata.normalize("NFD", "한국")]),
        ("straße", "in der STRASSE dort", ["STRASSE"]),
        ("secret", "the se\u00adcret thing", ["se\u00adcret"]),
        ("北京", "他出生在北京市。", ["北京"]),
        ("الكويت", "ولد في الكويت.", ["الكويت"]),
        ("LGBTQ+", "the LGBTQ+ community", ["LGBTQ+"]),
        ("x + y", "return x + y;", ["x + y"]),
    ],
)
def test_other_forms_of_the_same_words_are_found(phrase: str, text: str, expected: list[str]) -> None:
    assert found(phrase, text) == expected


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("", "text"),
        ("  ", "text  more"),
        ("...", "no dots here"),
        ("i", "the \ufb01nal"),  # half of the ligature fi
        ("e", "the caf\u00e9"),
        ("cafe", "the cafe\u0301"),  # the accent belongs to the last letter
        ("florist", "He is a doctor."),
        ("Kuwait", "the Kuwaiti people"),
        ("8", "on the 8th"),
    ],
)
def test_what_is_not_there_is_not_guessed(phrase: str, text: str) -> None:
    assert locate(phrase, text) == []


def test_case_can_be_made_to_count() -> None:
    assert locate("basil", "Basil grows.", ignore_case=False) == []
    assert found("basil", "Basil grows.") == ["Basil"]


TEXTS = st.text(alphabet=st.sampled_from("aAbée\u0301ﬁßİ 한\u1112\u1161\u11ab北’'\u00a0\u200b-–.𝔘"), max_size=30)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, form=st.sampled_from(["exact", "composed", "loose"]))
def test_every_letter_of_a_folded_text_knows_its_way_back(text: str, form: str) -> None:
    folded = fold(text, form)  # type: ignore[arg-type]
    assert len(folded.text) == len(folded.starts) == len(folded.ends) == len(folded.first) == len(folded.last)
    assert all(0 <= a < b <= len(text) for a, b in zip(folded.starts, folded.ends, strict=True))
    assert list(folded.starts) == sorted(folded.starts)
    if form == "composed":
        assert folded.text == unicodedata.normalize("NFC", text)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS, cut=st.tuples(st.integers(0, 30), st.integers(0, 30)))
def test_what_was_copied_out_is_found_again(text: str, cut: tuple[int, int]) -> None:
    phrase = text[min(cut) : max(cut)].strip()
    hits = found(phrase, text, whole_words=False)
    assert all(hit == phrase for hit in hits)
    assert bool(hits) == bool(phrase)
