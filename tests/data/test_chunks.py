"""Documents cut into pieces keep their tokens, characters, spans and borders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from expunge.data.chunks import chunk, chunk_all
from expunge.data.encode import Encoder
from expunge.data.load import load
from expunge.data.records import Record, Span
from expunge.errors import DataError
from expunge.recipe import Source
from tests.fixtures.tokenizers import CORPUS, MAKERS

Tokenizers = Mapping[str, PreTrainedTokenizerBase]
TEXT = "\n\n".join(line for line in CORPUS * 3 if "京" not in line)


@pytest.mark.parametrize("name", MAKERS)
def test_pieces_have_the_tokens_of_the_document(name: str, tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers[name], max_length=60)
    pieces = chunk(Record("doc", text=TEXT), encoder)
    encoded = [encoder.encode(piece) for piece in pieces]
    assert len(pieces) > 5
    assert not any(item.truncated for item in encoded)
    assert sum(len(item) for item in encoded[:-1]) > 0.8 * 60 * (len(pieces) - 1)
    joined = [token for piece in pieces for token in encoder.tokens(piece.text).ids.tolist()]
    assert joined == encoder.tokens(TEXT).ids.tolist()
    place = 0
    for number, piece in enumerate(pieces):
        assert TEXT[piece.offset : piece.offset + len(piece.text)] == piece.text
        assert TEXT[place : piece.offset].strip() == ""
        assert (piece.id, piece.document, piece.subject) == (f"doc#{number:04d}", "doc", "doc")
        place = piece.offset + len(piece.text)
    assert place == len(TEXT)


def test_only_the_last_piece_ends(tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers["llama2"], max_length=60)
    pieces = chunk(Record("doc", text=TEXT), encoder)
    end = encoder.tokenizer.eos_token_id
    assert [end in encoder.encode(piece).input_ids for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    begin = encoder.tokenizer.bos_token_id
    assert all(encoder.encode(piece).input_ids[0] == begin for piece in pieces)
    going_on = chunk(Record("doc", text=TEXT, continues=True), encoder)
    assert all(piece.continues for piece in going_on)


@pytest.mark.parametrize("name", MAKERS)
def test_text_without_white_space_is_cut_too(name: str, tokenizers: Tokenizers) -> None:
    text = "东京是日本的首都作者出生于科威特城她的母亲是医生" * 5
    encoder = Encoder(tokenizers[name], max_length=40)
    pieces = chunk(Record("doc", text=text), encoder)
    assert "".join(piece.text for piece in pieces) == text
    one_word = len(encoder.tokens(text).ids) < 40  # a run of unknown characters can be one token
    assert one_word or len(pieces) > 2
    assert not any(encoder.encode(piece).truncated for piece in pieces)


def test_spans_go_with_their_characters(tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers["bpe"], max_length=60)
    first = chunk(Record("doc", text=TEXT), encoder)[1].offset
    spans = (
        Span("text", 4, 8, 0.5, "x", "y"),
        Span("text", first - 3, first + 3),
        Span("text", len(TEXT) - 2, len(TEXT)),
    )
    pieces = chunk(Record("doc", text=TEXT, spans=spans), encoder)
    assert pieces[0].spans == (spans[0], Span("text", first - 3, first))
    assert pieces[1].spans == (Span("text", 0, 3),)
    length = len(pieces[-1].text)
    assert pieces[-1].spans == (Span("text", length - 2, length),)


def test_what_fits_stays_as_it_is(tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers["bpe"], max_length=60)
    records = [Record("a", text="short"), Record("b", "P", "long " * 100), Record("c", text=TEXT)]
    pieces = chunk_all(records, encoder)
    assert pieces[:2] == records[:2]
    assert {piece.document for piece in pieces[2:]} == {"c"}


def test_a_piece_of_a_piece_counts_from_the_document(tokenizers: Tokenizers) -> None:
    encoder = Encoder(tokenizers["bpe"], max_length=60)
    record = Record("doc#0003", text=TEXT, document="doc", offset=1000, subject="s")
    pieces = chunk(record, encoder)
    assert (pieces[0].document, pieces[0].offset, pieces[0].subject) == ("doc", 1000, "s")
    assert pieces[1].offset > 1000


def test_no_room(tokenizers: Tokenizers) -> None:
    with pytest.raises(DataError, match="record 'doc': max_length 2 leaves no room"):
        chunk(Record("doc", text=TEXT), Encoder(tokenizers["llama2"], max_length=2))
    assert len(chunk(Record("doc", text="a b c"), Encoder(tokenizers["llama2"], max_length=3))) >= 3


def test_news_articles(shared: Path) -> None:
    from transformers import AutoTokenizer

    encoder = Encoder(AutoTokenizer.from_pretrained(shared / "models/tiny-english"), max_length=128)
    records = load(Source(path=str(shared / "data/muse_news/forget.jsonl"), limit=3), "forget")
    for record in records:
        pieces = chunk(record, encoder)
        joined = [token for piece in pieces for token in encoder.tokens(piece.text).ids.tolist()]
        assert joined == encoder.tokens(record.text).ids.tolist()
