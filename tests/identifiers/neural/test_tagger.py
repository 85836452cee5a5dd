"""A classifier learns from part of the data what to mark in the rest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge.data.records import Annotation, Record, Span
from expunge.errors import DataError, ModelError
from expunge.identifiers import annotate, build
from expunge.identifiers.neural.folder import load_tokenizer
from expunge.identifiers.neural.tagger import (
    Lessons,
    Tagger,
    _examples,
    encode,
    marked_words,
    train_classifier,
    word_means,
)  # fmt: skip
from tests.identifiers.neural.conftest import sentences

RECORDS = [Record(f"r{i}", q, a) for i, (q, a, _) in enumerate(sentences(60, seed=11))]
TOWNS = [town for _, _, town in sentences(60, seed=11)]
LESSONS = Lessons(epochs=6, batch_size=8, rate=3e-3, device="cpu")


def annotations(records: Sequence[Record]) -> list[Annotation]:
    marks = []
    for record, town in zip(records, TOWNS, strict=False):
        start = record.answer.index(town)
        marks.append(Annotation(record.id, record.text_hash, (Span("answer", start, start + len(town)),)))
    return marks


@pytest.fixture(scope="module")
def classifier(masked_lm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("classifier")
    return train_classifier(RECORDS, annotations(RECORDS[:40]), out, base=str(masked_lm), lessons=LESSONS)


def test_it_marks_what_it_was_taught_on_texts_it_has_not_seen(classifier: Path, tmp_path: Path) -> None:
    summary = annotate(RECORDS[40:], build(f"classifier:model={classifier}"), tmp_path / "a.jsonl")
    assert summary.without == 0
    from expunge.data.annotations import read

    for record, town, annotation in zip(RECORDS[40:], TOWNS[40:], read(tmp_path / "a.jsonl"), strict=True):
        unwanted = [record.answer[s.start : s.end] for s in annotation.spans if s.label == "unwanted"]
        assert unwanted == [town]
        assert {s.label for s in annotation.spans} == {"unwanted", "general"}


def test_it_says_how_well_it_does_on_texts_held_out(classifier: Path) -> None:
    notes = json.loads((classifier / "training.json").read_text())
    assert (notes["texts"], notes["held_out"]["texts"]) == (36, 4)
    assert notes["held_out"]["f1"] > 0.9
    assert notes["losses"][-1] < notes["losses"][0]


def test_the_same_seed_makes_the_same_weights(masked_lm: Path, tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    short = Lessons(epochs=1, batch_size=8, rate=1e-3, device="cpu")
    one, two = (
        train_classifier(RECORDS, annotations(RECORDS[:12]), tmp_path / name, base=str(masked_lm), lessons=short)
        for name in ("one", "two")
    )
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_threshold_moves_the_border(classifier: Path) -> None:
    def marked(threshold: float) -> int:
        identifier = build(f"classifier:model={classifier},threshold={threshold}")
        return sum(s.label == "unwanted" for f in identifier.identify(RECORDS[:5]) for s in f.spans)

    words = sum(len(record.answer.split()) for record in RECORDS[:5])
    assert marked(0.0) == words
    assert marked(1.0) == 0


def test_a_text_beyond_the_window_is_read_in_pieces(masked_lm: Path) -> None:
    tokenizer = load_tokenizer(str(masked_lm))
    record = Record("long", "Where does anna live?", " ".join(answer for _, answer, _ in sentences(12, seed=5)))
    text = encode(tokenizer, record, 40)
    assert len(text.windows) > 5
    assert all(len(window.ids) <= 40 for window in text.windows)
    covered = np.concatenate([window.place[window.place >= 0] for window in text.windows])
    assert sorted(set(covered.tolist())) == list(range(len(text.offsets)))
    for window in text.windows:
        body = [token for token, place in zip(window.ids, window.place, strict=True) if place >= 0]
        places = window.place[window.place >= 0]
        start, end = text.offsets[places[0]][0], text.offsets[places[-1]][1]
        assert tokenizer.decode(body).strip() == record.answer[start:end].strip()


def test_labels_are_those_of_words_and_the_prompt_has_none(masked_lm: Path) -> None:
    tokenizer = load_tokenizer(str(masked_lm))
    record = Record("r", "Where?", "He lives in Veltria.", spans=(Span("answer", 14, 16),))
    ((ids, labels),) = _examples(encode(tokenizer, record, 64), record, "words")
    taught = [(tokenizer.decode([token]).strip(), label) for token, label in zip(ids, labels, strict=True)]
    assert all(label == -100 for token, label in taught if token in ("<s>", "</s>", "Where", "?", "."))
    # The span touches two letters of the word; the whole word is unwanted.
    assert "".join(token for token, label in taught if label == 1) == "Veltria"
    assert "".join(token for token, label in taught if label == 0) == "Helivesin"


def test_a_word_s_probability_is_the_mean_of_its_tokens() -> None:
    offsets = np.array([[0, 2], [2, 5], [6, 9], [9, 10]])
    chances = np.array([0.2, 0.6, 0.9, 0.1])
    assert word_means(chances, offsets, [(0, 5), (6, 9), (20, 22)]) == [pytest.approx(0.4), 0.9, 0.0]
    assert marked_words(Record("r", "", "ab cd", spans=(Span("answer", 1, 3),)), [(0, 2), (3, 5)]) == [True, False]


def test_what_cannot_be_learnt_from_is_said(masked_lm: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 of the 60 records are annotated"):
        train_classifier(RECORDS, [], tmp_path, base=str(masked_lm))
    empty = [Annotation(record.id, record.text_hash, ()) for record in RECORDS]
    with pytest.raises(DataError, match="nothing to learn"):
        train_classifier(RECORDS, empty, tmp_path, base=str(masked_lm))
    with pytest.raises(ModelError, match="general and unwanted words was expected"):
        Tagger.load(str(masked_lm), device="cpu")
