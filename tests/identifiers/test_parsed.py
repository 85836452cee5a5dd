"""Noun chunks, entities and parts of speech, from pipelines made here: no trained one is needed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from expunge import identifiers
from expunge.data.records import Record, Span
from expunge.errors import MethodError, MissingExtraError
from expunge.identifiers.finding import IdentifierError, fingerprint

INSTALLED = importlib.util.find_spec("spacy") is not None
needs_spacy = pytest.mark.skipif(not INSTALLED, reason="spaCy is not installed: pip install 'expunge[spacy]'")
RECORD = Record("r", "Where?", "The old man lives in Kuwait City.")
OTHER = Record("o", "Who?", "")


@pytest.mark.skipif(INSTALLED, reason="spaCy is installed")
def test_without_spacy_the_extra_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'expunge\[spacy\]'"):
        list(identifiers.build("spacy").identify([RECORD]))


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A blank pipeline that knows one place by rule, as a folder."""
    import spacy

    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns([{"label": "GPE", "pattern": "Kuwait City"}])  # type: ignore[attr-defined]
    folder = tmp_path_factory.mktemp("pipeline") / "ruled"
    pipeline.to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline whose parser knows the one sentence, as a folder."""
    import spacy
    from spacy.language import Language

    def tree(document: Any) -> Any:
        heads, deps = (2, 2, 3, 3, 3, 6, 4, 3), ("det", "amod", "nsubj", "ROOT", "prep", "compound", "pobj", "punct")
        tags = ("DET", "ADJ", "NOUN", "VERB", "ADP", "PROPN", "PROPN", "PUNCT")
        for token, head, dep, tag in zip(document, heads, deps, tags, strict=False):
            token.head, token.dep_, token.pos_ = document[head], dep, tag
        return document

    Language.component("one_sentence", func=tree)
    pipeline = spacy.blank("en")
    pipeline.add_pipe("one_sentence")
    folder = tmp_path_factory.mktemp("pipeline") / "parsed"
    pipeline.to_disk(folder)
    return folder


@needs_spacy
def test_entities_become_spans(ruled: Path) -> None:
    made = identifiers.build("spacy:what=entities", [f"model={ruled}"])
    found, empty = made.identify([RECORD, OTHER])
    assert found.spans == (Span("answer", 21, 32, source="spacy:entities"),)
    assert (found.counts, empty.spans) == ({"entities": 1}, ())


@needs_spacy
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], ["The old man", "Kuwait City"]),
        (["what=pos"], ["man", "Kuwait", "City"]),
        (["what=pos", "pos=ADJ | VERB"], ["old", "lives"]),
    ],
)
def test_chunks_and_parts_of_speech_become_spans(parsed: Path, settings: list[str], expected: list[str]) -> None:
    made = identifiers.build("spacy", [f"model={parsed}", *settings])
    (found,) = made.identify([RECORD])
    assert [RECORD.answer[span.start : span.end] for span in found.spans] == expected


@needs_spacy
@pytest.mark.parametrize(("what", "part"), [("chunks", "a parser"), ("pos", "a tagger")])
def test_a_pipeline_that_cannot_is_refused(ruled: Path, what: str, part: str) -> None:
    with pytest.raises(IdentifierError, match=f"has not {part}. Name one that has"):
        list(identifiers.build("spacy", [f"what={what}", f"model={ruled}"]).identify([RECORD]))


@needs_spacy
def test_a_pipeline_that_is_not_there_is_named() -> None:
    with pytest.raises(IdentifierError, match=r"cannot open 'no_such_pipeline'.*Install that pipeline"):
        list(identifiers.build("spacy:model=no_such_pipeline").identify([RECORD]))
    with pytest.raises(MethodError, match="needs a pipeline: write spacy:model=en_core_web_sm"):
        identifiers.build("spacy", ["model="])


@needs_spacy
def test_what_is_marked_and_by_which_pipeline_decides_the_annotation(ruled: Path, parsed: Path) -> None:
    specs = [["what=entities", f"model={ruled}"], ["what=pos", f"model={parsed}"], [f"model={parsed}"]]
    specs.append(["what=pos", "pos=NOUN", f"model={parsed}"])
    marks = [fingerprint(identifiers.build("spacy", spec)) for spec in specs]
    assert len(set(marks)) == len(specs)
    assert marks[0] == fingerprint(identifiers.build("spacy", specs[0]))


def test_an_installed_english_pipeline_finds_chunks_and_entities() -> None:
    if not INSTALLED or importlib.util.find_spec("en_core_web_sm") is None:
        pytest.skip("en_core_web_sm is not installed: python -m spacy download en_core_web_sm")
    (chunks,) = identifiers.build("spacy").identify([RECORD])
    (entities,) = identifiers.build("spacy:what=entities").identify([RECORD])
    assert [RECORD.answer[span.start : span.end] for span in chunks.spans] == ["The old man", "Kuwait City"]
    assert [RECORD.answer[span.start : span.end] for span in entities.spans] == ["Kuwait City"]
