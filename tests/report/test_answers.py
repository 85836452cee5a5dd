from __future__ import annotations

from pathlib import Path

import pytest

from expunge.report import answers, collect
from expunge.report.answers import Piece


def styles(models: list[collect.Column]) -> dict[str, str]:
    return {model.name: model.role for model in models}


def test_forget_comes_first_and_every_model_answers(demo: Path) -> None:
    models = collect.columns(collect.views([demo]))
    sets = answers.collect(models, styles(models))
    assert [(one.name, one.total) for one in sets] == [("forget", 40), ("retain", 40)]
    question = sets[0].questions[0]
    assert question.prompt == "Where was Ilse Varnholt born?"
    assert [answer.model for answer in question.answers] == ["target", "oracle", "graddiff", "wga", "etw"]
    for answer in question.answers:
        said = "".join(piece.text for piece in answer.pieces)
        target = "".join(piece.text for piece in question.answers[0].pieces)
        assert answer.same == (answer.model not in ("target", "oracle") and said == target)


def test_at_most_forty_questions_are_shown(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_EACH", 5)
    models = collect.columns(collect.views([demo]))
    forget = answers.collect(models, styles(models))[0]
    assert [question.id[-5:] for question in forget.questions] == ["00000", "00010", "00020", "00029", "00039"]


def test_fewer_are_shown_where_all_would_be_too_much(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_CHARACTERS", 40_000)
    models = collect.columns(collect.views([demo]))
    assert [len(one.questions) for one in answers.collect(models, styles(models))] == [10, 10]


@pytest.mark.parametrize(
    ("before", "after", "pieces"),
    [
        ("a b c", "a b c", [("a b c", False)]),
        ("a b c", "a X Y c", [("a ", False), ("X Y", True), (" c", False)]),
        ("a b c", "", []),
        ("", "new", [("new", False)]),
        ("one.", "one!", [("one", False), ("!", True)]),
    ],
)
def test_new_words_are_marked(before: str, after: str, pieces: list[tuple[str, bool]]) -> None:
    assert answers.marked(before, after) == tuple(Piece(text, fresh) for text, fresh in pieces)


def test_marking_loses_no_character_and_gives_up_on_very_long_answers() -> None:
    before, after = "the cat  sat\non a mat.", "a  cat sat\non the hat!"
    assert "".join(piece.text for piece in answers.marked(before, after)) == after
    long = "word " * 10_000
    assert answers.marked(long, long + "x") == (Piece(long + "x"),)
