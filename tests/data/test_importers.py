"""Spans from other people's formats."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from expunge.data.annotations import Manifest, attach, read, write
from expunge.data.encode import Encoder
from expunge.data.importers import from_docbin, from_key_text, from_presidio, from_token_mask, from_words
from expunge.data.records import Record, Span
from expunge.errors import DataError, MissingExtraError
from tests.fixtures.tokenizers import MAKERS

Tokenizers = Mapping[str, PreTrainedTokenizerBase]
RECORD = Record("r", "Who?", "born in Kuwait City on 8 September")


def texts(record: Record, spans: tuple[Span, ...]) -> list[str]:
    return [record.body[span.start : span.end] for span in spans]


def test_word_lists() -> None:
    spans = from_words(RECORD, [{"word": "kuwait", "start": 8, "end": 14}, {"start": 23, "end": 24}])
    assert spans == (Span("answer", 8, 14, source="tif"), Span("answer", 23, 24, source="tif"))
    with pytest.raises(DataError, match=r"characters 9:15 are 'uwait ', not the word 'Kuwait'"):
        from_words(RECORD, [{"word": "Kuwait", "start": 9, "end": 15}])


def test_presidio_results() -> None:
    results = [{"entity_type": "LOCATION", "start": 8, "end": 19, "score": 0.85, "analysis_explanation": None}]
    assert from_presidio(RECORD, results) == (Span("answer", 8, 19, 0.85, "unwanted", "presidio"),)
    assert from_presidio(RECORD, results, keep_type=True)[0].label == "LOCATION"
    text = Record("t", text="Ada")
    assert from_presidio(text, [{"entity_type": "PERSON", "start": 0, "end": 3, "score": 1}])[0].field == "text"
    with pytest.raises(DataError, match="span 8:99 is outside"):
        from_presidio(RECORD, [{"start": 8, "end": 99}])


@pytest.mark.parametrize("name", MAKERS)
def test_a_token_mask_goes_to_spans_and_back(name: str, tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers[name])
    marked = Record("r", "Who?", RECORD.answer, spans=(Span("answer", 8, 19), Span("answer", 23, 34)))
    encoded = encoder.encode(marked)
    on = encoded.targets != -100
    mask = (encoded.static["given"][on] > 0).astype(int).tolist()
    expected = ["Kuwait City", "8 September"]
    assert texts(RECORD, from_token_mask(RECORD, mask[:-1], encoder)) == expected
    assert texts(RECORD, from_token_mask(RECORD, mask, encoder)) == expected
    whole = [0, *(encoded.static["given"][:-1] > 0).astype(int).tolist()]
    ids = encoded.input_ids.tolist()
    assert texts(RECORD, from_token_mask(RECORD, whole, encoder, token_ids=ids)) == expected
    assert from_token_mask(RECORD, [0] * len(whole), encoder) == ()


def test_a_mask_of_another_tokenizer_is_refused(tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers["bpe"])
    with pytest.raises(DataError, match="record 'r': the mask has 3 numbers, but this tokenizer makes"):
        from_token_mask(RECORD, [1, 0, 1], encoder)
    ids = encoder.encode(RECORD).input_ids.tolist()
    with pytest.raises(DataError, match="the token ids are not those of this tokenizer"):
        from_token_mask(RECORD, [0] * len(ids), encoder, token_ids=[1, *ids[1:]])


def test_weights_of_a_mask_make_spans_of_their_own(tokenizers: Tokenizers) -> None:
    record = Record("r", "Who?", "Kuwait City in")
    spans = from_token_mask(record, [1, 0.5, 0], Encoder(tokenizers["bpe"]))
    assert [(s.start, s.end, s.weight) for s in spans] == [(0, 6, 1.0), (7, 11, 0.5)]


@pytest.mark.skipif(importlib.util.find_spec("spacy") is not None, reason="spaCy is installed")
def test_docbin_without_spacy_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'expunge\[spacy\]'"):
        from_docbin([RECORD], tmp_path / "x.spacy")


def test_docbin(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed")
    document = spacy.blank("en")(RECORD.answer)
    document.ents = [document.char_span(8, 19, label="GPE"), document.char_span(23, 34, label="DATE")]
    spacy.tokens.DocBin(docs=[document]).to_disk(tmp_path / "x.spacy")
    (made,) = from_docbin([RECORD], tmp_path / "x.spacy", labels=["GPE"])
    assert made.spans == (Span("answer", 8, 19, source="spacy"),)
    with pytest.raises(DataError, match="1 documents, but there are 2 records"):
        from_docbin([RECORD, RECORD], tmp_path / "x.spacy")
    with pytest.raises(DataError, match="has another text"):
        from_docbin([Record("z", "", "Other")], tmp_path / "x.spacy")


def test_a_docbin_of_a_pipeline_in_another_language_becomes_annotations_that_training_reads(
    tmp_path: Path, tokenizers: Tokenizers
) -> None:
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed")
    records = [Record("a", "谁?", "他出生在北京市。"), Record("b", "Who?", "Ada of Zürich"), Record("c", text="no one")]
    pipeline = spacy.blank("xx")
    ruler = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "LOC", "pattern": "Zürich"}, {"label": "PER", "pattern": "Ada"}])
    spacy.tokens.DocBin(docs=pipeline.pipe(r.body for r in records)).to_disk(tmp_path / "x.spacy")
    made = from_docbin(records, tmp_path / "x.spacy")
    assert [texts(r, m.spans) for r, m in zip(records, made, strict=True)] == [[], ["Ada", "Zürich"], []]
    write(tmp_path / "spans.jsonl", made, Manifest("spacy"))
    (attached,) = attach(records[1:2], read(tmp_path / "spans.jsonl"))
    assert texts(attached, attached.spans) == ["Ada", "Zürich"]
    weights = Encoder(tokenizers["bpe"]).encode(attached).static["given"]
    assert 0 < int((weights > 0).sum()) < int((weights >= 0).sum())


def test_results_of_the_real_presidio_are_read() -> None:
    presidio = pytest.importorskip("presidio_analyzer", reason="Presidio is not installed")
    result = presidio.RecognizerResult("EMAIL_ADDRESS", 4, 15, 1.0)
    record = Record("r", "How?", "Via ada@host.com, she says")
    assert texts(record, from_presidio(record, [result.to_dict()])) == ["ada@host.co"]


@pytest.mark.parametrize("broken", [b"", b"no DocBin at all"])
def test_a_file_that_is_no_docbin_is_said_in_our_words(tmp_path: Path, broken: bytes) -> None:
    pytest.importorskip("spacy", reason="spaCy is not installed")
    (tmp_path / "x.spacy").write_bytes(broken)
    with pytest.raises(DataError, match="is no DocBin"):
        from_docbin([RECORD], tmp_path / "x.spacy")
    with pytest.raises(DataError, match="there is no file"):
        from_docbin([RECORD], tmp_path / "y.spacy")


def test_key_words_run_together_are_found_in_their_order() -> None:
    record = Record("r", "Where in Kinshasa does Ann's father live?", "Ann's father is in Kin, Kinshasa, in a tower.")
    found = from_key_text(record, "AnnfatherKinshasatower")
    assert texts(record, found) == ["Ann", "father", "Kinshasa", "tower"]
    assert texts(record, from_key_text(record, "KinshasaAnnfatherKin")) == ["Ann", "father", "Kin"]
    assert from_key_text(record, "") == ()
    assert from_key_text(record, "Zürich") == ()
