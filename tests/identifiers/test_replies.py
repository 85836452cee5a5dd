"""A reply is read however it is wrapped, and refused where it is no list of phrases."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.identifiers.replies import ReplyError, parse


def read(reply: str) -> list[tuple[str, int | None]]:
    return [(phrase.text, phrase.occurrence) for phrase in parse(reply).spans]


@pytest.mark.parametrize(
    "reply",
    [
        '{"spans": [{"text": "a b", "occurrence": null}]}',
        '{"spans": ["a b"]}',
        '["a b"]',
        '[{"phrase": "a b"}]',
        '{"target_words": ["a b"]}',
        '{"target_words": "a b"}',
        '{"result": {"spans": [{"word": "a b"}]}}',
        '{"anything": ["a b"]}',
        '{"spans": ["a b",],}',
        "{'spans': ['a b']}",
        '```json\n{"spans": ["a b"]}\n```',
        'Of course! Here it is:\n\n{"spans": ["a b"]}\n\nLet me know if [anything] is unclear.',
        '<think>perhaps ["c"]</think>\n["a b"]',
        'First I thought ["c"]. The answer: {"spans": ["a b"]}',
        '{"spans": ["c"]} No, wait: {"spans": ["a b"]}',
        '\ufeff{"spans": ["a b", "", null]}',
    ],
)
def test_the_same_phrase_is_read_from_every_wrapping(reply: str) -> None:
    assert read(reply) == [("a b", None)]


def test_occurrences_are_kept() -> None:
    assert read('{"spans": [{"text": "a", "occurrence": 2}, {"text": "b", "n": 1}]}') == [("a", 2), ("b", 1)]


@pytest.mark.parametrize("reply", ['{"spans": []}', "[]", '{"target_words": ""}'])
def test_nothing_to_mark_is_an_answer(reply: str) -> None:
    assert read(reply) == []


@pytest.mark.parametrize(
    "reply",
    ["", "   ", "I cannot do that.", '{"spans": ["a"', '{"spans": [1, 2]}', '{"a": 1, "b": 2}', '{"spans": null}',
     '{"spans": [{"start": 1, "end": 3}]}', '{"spans": [{"text": "a", "occurrence": 0}]}', '"just a string"',
     "[" * 3000],
)  # fmt: skip
def test_what_is_no_list_of_phrases_is_refused(reply: str) -> None:
    with pytest.raises(ReplyError):
        parse(reply)


def test_the_fault_does_not_quote_the_reply() -> None:
    with pytest.raises(ReplyError) as raised:
        parse("the secret is florist")
    assert "florist" not in str(raised.value)


@settings(max_examples=200, deadline=None)
@given(phrases=st.lists(st.text(min_size=1, max_size=12).map(str.strip).filter(bool), max_size=5), fence=st.booleans())
def test_any_list_of_phrases_survives_the_trip(phrases: list[str], fence: bool) -> None:
    body = json.dumps({"spans": phrases}, ensure_ascii=False)
    assert [text for text, _ in read(f"Here:\n```json\n{body}\n```" if fence else body)] == phrases
