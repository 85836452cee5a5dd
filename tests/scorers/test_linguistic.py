"""Words: how rare they are, and whether the question said them."""

from __future__ import annotations

import math

import pytest

from expunge.scorers.linguistic import Frequency, Novel, words_of
from tests.scorers.test_attribution import Told, passage

# tokens: [Who] [is] [Ann] | Ann is a Doctor .
ASKED = passage("Who is Ann", "Ann is a Doctor .", asked=[(0, 3), (4, 6), (7, 10)])


class Corpus(Told):
    def texts(self, corpus: str) -> list[str]:
        return {"": ["a doctor, a nurse"], "other": ["Ann"]}[corpus]


def test_rare_words_score_high_and_signs_nothing() -> None:
    (found,) = Frequency().prepare(Corpus([ASKED]))
    # the corpus has 4 words, 3 different: f(a) = 3/8, f(doctor) = 2/8, unseen 1/8
    expected = [math.log(8), math.log(8), math.log(8 / 3), math.log(4), 0.0]
    assert found.tolist() == pytest.approx(expected)


def test_another_corpus_gives_other_frequencies() -> None:
    (found,) = Frequency(corpus="other").prepare(Corpus([ASKED]))
    assert found[0] == pytest.approx(math.log(3 / 2))  # f(ann) = 2/3
    assert found[1] == pytest.approx(math.log(3))


def test_words_of_the_prompt_are_not_novel_whatever_their_case() -> None:
    assert Novel().prepare(Told([ASKED]))[0].tolist() == [0.0, 0.0, 1.0, 1.0, 0.0]


def test_in_a_raw_text_a_word_is_novel_once() -> None:
    text = passage("", "A cat , a dog", asked=[(-1, -1)])
    assert Novel().prepare(Told([text]))[0].tolist() == [1.0, 1.0, 0.0, 0.0, 1.0]


def test_tokens_know_their_word() -> None:
    assert words_of(ASKED) == ["ann", "is", "a", "doctor", ""]
