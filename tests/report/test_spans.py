"""Packing of annotated records: nothing of a text is lost, and every piece knows the spans that cover it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from expunge.core import IGNORE
from expunge.data import agreement
from expunge.data.encode import Encoder, static_names
from expunge.data.records import Annotation, Record, Span
from expunge.errors import DataError
from expunge.report import spans
from expunge.report.spans import Shown
from tests.report import annotated
from tests.report.annotated import RECORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def one() -> Shown:
    return Shown.of("first", RECORDS, annotated.first())


def two() -> list[Shown]:
    return [one(), Shown.of("second", RECORDS, annotated.second())]


def packed(shown: list[Shown]) -> dict[str, dict[str, Any]]:
    return {record["id"]: record for record in spans.pack(RECORDS, shown, agreement.words)["records"]}


def text(pieces: list[Any]) -> str:
    return "".join(piece if isinstance(piece, str) else piece[0] for piece in pieces)


def test_pieces_put_together_are_the_text() -> None:
    for record, own in zip(RECORDS, packed(two()).values(), strict=True):
        assert text(own["body"]) == record.body
        assert text(own["prompt"]) == record.prompt
        assert own["more"] == [0, 0]


def test_each_piece_names_the_spans_over_it() -> None:
    """Bo Larsen | Larsen paints: three pieces, the middle one under both."""
    own = packed([one()])["overlap"]
    assert own["body"] == [["Bo ", [[0]], 1], ["Larsen", [[0, 1]], 1], [" paints", [[1]], 0], " bridges in Oslo."]
    labels, sources = ["unwanted", "general", "place"], ["<b>llm</b>", "llm", "mlm", "ner"]
    whole = spans.pack(RECORDS, [one()], agreement.words)
    assert (whole["labels"], whole["sources"]) == (labels, sources)
    assert own["spans"] == [[[0, 1, 0.25, "answer 0–9"], [2, 3, 1.0, "answer 3–16"]]]


def test_marks_of_two_annotations_are_bits() -> None:
    own = packed(two())["plain"]
    bits = {piece[0]: piece[2] for piece in own["body"] if not isinstance(piece, str)}
    assert bits == {"was": 0, "Kuwait ": 1, "City": 3, "1956": 2}
    assert own["counts"] == [1, 1, 1, 5]


def test_a_prompt_may_have_spans_too() -> None:
    record = Record("p", "Where was Ann born?", "In Oslo.")
    marks = [Annotation("p", record.text_hash, (Span("answer", 3, 7), Span("prompt", 10, 13, source="x")))]
    [own] = spans.pack([record], [Shown.of("a", [record], marks)], agreement.words)["records"]
    assert own["prompt"] == ["Where was ", ["Ann", [[1]], 0], " born?"]
    assert own["body"] == ["In ", ["Oslo", [[0]], 1], "."]
    assert [mark[3] for mark in own["spans"][0]] == ["answer 3–7", "prompt 10–13"]


def test_only_what_both_cover_is_compared() -> None:
    own = packed(two())["code"]
    assert own["covered"] == [True, False]
    assert "counts" not in own


def test_spans_that_cut_a_word_are_found() -> None:
    found = {key: own["midword"] for key, own in packed([one()]).items()}
    assert found == {"plain": False, "overlap": False, "evil": False, "arabic": False, "code": True, "nothing": False}
    chinese = Record("zh", answer="李明出生于苏州市。")
    marks = [annotated.annotation(chinese, annotated.span(chinese, "苏州市"))]
    assert spans.overview([chinese], [Shown.of("a", [chinese], marks)], agreement.words)[0]["midword"] == 0


def test_overview_by_hand() -> None:
    [fact] = spans.overview(RECORDS, [one()], agreement.words)
    assert (fact["records"], fact["spans"], fact["empty"], fact["midword"]) == (6, 7, 1, 1)
    assert fact["labels"] == [("unwanted", 5), ("general", 1), ("place", 1)]
    assert dict(fact["sources"]) == {"llm": 4, "mlm": 1, "ner": 1, "<b>llm</b>": 1}
    words = sum(len(record.body.split()) for record in RECORDS)
    # Kuwait City, / Bo Larsen / <script>...> / Amman. / connect(port=4471):
    assert (fact["marked"], fact["units"]) == (2 + 2 + 1 + 1 + 1, words)


def test_phrases_of_two_are_what_the_other_leaves_alone() -> None:
    first, second = spans.phrases(RECORDS, two())
    assert dict(first) == {"<script>document.title='owned'</script>": 1, "عمّان": 1, "44": 1}
    assert dict(second) == {"1956": 1, "ليلى حداد": 1, "blue": 1}
    [alone] = spans.phrases(RECORDS, [one()])
    assert dict(alone)["Kuwait City"] == 1


def test_a_file_of_general_words_calls_the_rest_unwanted() -> None:
    record = Record("g", answer="Ann was born in Oslo.")
    marks = [annotated.annotation(record, annotated.span(record, "was born in", "general"))]
    shown = Shown.of("mlm", [record], marks)
    [own] = spans.pack([record], [shown], agreement.words)["records"]
    assert own["counts"] == [2, 0, 0, 3]
    assert own["body"] == [["Ann", [[]], 1], " ", ["was born in", [[0]], 0], " ", ["Oslo.", [[]], 1]]


def test_gold_of_the_records() -> None:
    record = Record("g", answer="Ann was born in Oslo.", spans=(Span("answer", 16, 20, source="gold"),))
    assert Shown.gold([record]).spans == {"g": record.spans}
    with pytest.raises(DataError, match="none of the 6 records has gold spans"):
        Shown.gold(RECORDS)


@pytest.mark.parametrize("name", ["bpe", "spm-bytes", "chat"])
def test_the_share_on_the_page_is_the_share_in_the_tensor(
    name: str, tokenizers: Mapping[str, PreTrainedTokenizerBase]
) -> None:
    """Selected answer tokens over answer tokens, as training sees them; the end token is counted by neither."""
    encoder = Encoder(tokenizers[name])
    [fact] = spans.overview(RECORDS, [one()], agreement.tokens(encoder))
    unwanted = {a.record_id: tuple(s for s in a.spans if s.label == "unwanted") for a in annotated.first()}
    selected = tokens = 0
    for record in RECORDS:
        own = Record(record.id, record.prompt, record.answer, record.text, spans=unwanted[record.id])
        item = encoder.encode(own, static_names=static_names([own]))
        inside = (item.targets != IGNORE) & (item.offsets[:, 0] >= 0)
        visible = [bool(record.body[a:b].strip()) for a, b in item.offsets[inside].tolist()]
        given = item.static.get("given", 0 * item.targets)[inside] > 0
        selected += int((given & visible).sum())
        tokens += sum(visible)
    assert (fact["marked"], fact["units"]) == (selected, tokens)


def test_long_texts_are_cut_before_records_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    records, annotations = annotated.many(40, words=600)
    shown = [Shown.of("a", records, annotations)]
    whole = spans.pack(records, shown, agreement.words)
    assert all(own["more"][1] == 0 for own in whole["records"])
    monkeypatch.setattr(spans, "MAX_BYTES", 60_000)
    cut = spans.pack(records, shown, agreement.words)
    assert len(cut["records"]) == 40
    assert all(own["more"][1] > 0 for own in cut["records"])
    assert [own["counts"] for own in cut["records"]] == [own["counts"] for own in whole["records"]]
    monkeypatch.setattr(spans, "MAX_BYTES", 8_000)
    thinned = spans.pack(records, shown, agreement.words)
    assert (thinned["total"], thinned["records"][0]["id"], thinned["records"][-1]["id"]) == (40, "r00000", "r00039")
    assert 5 < len(thinned["records"]) < 40
    assert sum(map(spans._size, thinned["records"])) <= 8_000
