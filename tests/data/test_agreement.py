"""Agreement of annotations, counted by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from expunge.data import agreement, annotations
from expunge.data.agreement import Reading, count, mark, measures, reading, readings
from expunge.data.annotations import Manifest
from expunge.data.encode import Encoder
from expunge.data.records import Annotation, Record, Span
from expunge.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT = "Ann was born in Kuwait City, in 1956."


def span(words: str, label: str = "unwanted", text: str = TEXT, source: str = "x") -> Span:
    start = text.index(words)
    return Span("answer", start, start + len(words), label=label, source=source)


def record(*spans: Span, key: str = "r", answer: str = TEXT) -> Record:
    return Record(key, prompt="Where?", answer=answer, spans=spans)


def annotated(own: Record, *spans: Span) -> Annotation:
    return Annotation(own.id, own.text_hash, spans)


def test_words_by_hand() -> None:
    """Words: Ann was born in Kuwait City, in 1956. First marks Kuwait City, second City and 1956."""
    own = record()
    first = reading("first", [own], [annotated(own, span("Kuwait City"))])
    second = reading("second", [own], [annotated(own, span("City"), span("1956"))])
    assert count(first, second, [own], agreement.words).tolist() == [[1, 1, 1, 5]]
    found = {name: float(values[0]) for name, values in measures(count(first, second, [own], agreement.words)).items()}
    kappa = (6 / 8 - (2 * 2 + 6 * 6) / 64) / (1 - (2 * 2 + 6 * 6) / 64)
    assert found == pytest.approx({"precision": 0.5, "recall": 0.5, "f1": 0.5, "jaccard": 1 / 3, "kappa": kappa})


def test_characters_leave_white_space_out() -> None:
    """`Kuwait City` in one span or in two: the same reading."""
    own = record()
    one = reading("one", [own], [annotated(own, span("Kuwait City"))])
    two = reading("two", [own], [annotated(own, span("Kuwait"), span("City"))])
    characters = len(TEXT.replace(" ", ""))
    assert count(one, two, [own], agreement.characters).tolist() == [[10, 0, 0, characters - 10]]


def test_general_words_turned_round_are_whole_words() -> None:
    """A general span that touches a word keeps all of it; a mark beside an unwanted word goes with the word."""
    own = record()
    marked = mark(own, [span("Ann", "general"), span("as", "general"), span("born in", "general")], "not-general")
    assert [TEXT[a:b] for a, b in agreement.words(record()) if marked[a:b].any()] == ["Kuwait", "City,", "in", "1956."]
    assert not marked[TEXT.index(" Kuwait")]


def test_a_file_with_both_labels_has_two_readings() -> None:
    own = record()
    both = [annotated(own, span("Kuwait City"), span("was", "general"), span("born", "general"))]
    assert [r.name for r in readings("tofu", [own], both)] == ["tofu (unwanted)", "tofu (not-general)"]
    assert [r.name for r in readings("llm", [own], [annotated(own, span("1956"))])] == ["llm"]
    nothing = readings("none", [own], [annotated(own)])
    assert [r.name for r in nothing] == ["none"]
    assert not nothing[0].marked["r"].any()


def test_gold_spans_of_the_records_are_a_reading() -> None:
    own = record(span("1956", source="gold"), span("Ann", source="phrases"))
    found = agreement.gold([own])
    assert found is not None
    assert [TEXT[a:b] for a, b in agreement.words(record()) if found.marked["r"][a:b].any()] == ["1956."]
    assert agreement.gold([record(span("Ann"))]) is None


def test_nothing_marked_has_defined_results() -> None:
    found = {name: float(value) for name, value in measures(np.array([0.0, 0, 0, 8])).items()}
    assert (found["f1"], found["jaccard"]) == (1.0, 1.0)
    assert all(math.isnan(found[name]) for name in ("precision", "recall", "kappa"))
    one_sided = {name: float(value) for name, value in measures(np.array([0.0, 0, 3, 5])).items()}
    assert (one_sided["recall"], one_sided["f1"], one_sided["jaccard"], one_sided["kappa"]) == (0, 0, 0, 0)
    assert math.isnan(one_sided["precision"])


def test_kappa_is_one_for_equal_and_negative_for_opposite_annotations() -> None:
    assert float(measures(np.array([3.0, 0, 0, 5]))["kappa"]) == pytest.approx(1)
    assert float(measures(np.array([0.0, 4, 4, 0]))["kappa"]) == pytest.approx(-1)


@pytest.mark.parametrize("name", ["bpe", "unigram", "spm-bytes", "bert-like"])
def test_tokens_of_a_tokenizer_as_units(name: str, tokenizers: Mapping[str, PreTrainedTokenizerBase]) -> None:
    """Units cover the text but for white space, and a span marks exactly the tokens it touches."""
    cut = agreement.tokens(Encoder(tokenizers[name], template="{prompt} {answer}"))
    ranges = cut(record())
    covered = {c for start, end in ranges for c in range(start, end)}
    assert {c for c in range(len(TEXT)) if not TEXT[c].isspace()} <= covered
    assert all(not TEXT[start].isspace() for start, _ in ranges)
    own = record()
    first = reading("first", [own], [annotated(own, span("Kuwait City"))])
    [[both, only, other, neither]] = count(first, first, [own], cut).tolist()
    low = TEXT.index("Kuwait")
    assert both == sum(start < low + 11 and end > low for start, end in ranges)
    assert (only, other, both + neither) == (0, 0, len(ranges))


def test_faults_are_named() -> None:
    own, other = record(), record(answer="Another text.")
    with pytest.raises(DataError, match=r"another text.*'r'"):
        reading("a", [other], [annotated(own)])
    with pytest.raises(DataError, match=r"span 30:99 is outside of its answer, which has 37 characters"):
        mark(own, [Span("answer", 30, 99)])
    empty = Reading("empty", {})
    with pytest.raises(DataError, match=r"'one' \(1 records\) and 'empty' \(0\) have no record in common"):
        agreement.common(reading("one", [own], [annotated(own)]), empty, [own])


def test_scripts_without_spaces_are_counted_by_character() -> None:
    own = Record("zh", answer="李明出生于苏州市，1987年。")
    ranges = agreement.words(own)
    assert [own.answer[a:b] for a, b in ranges] == [*"李明出生于苏州市", "，1987", "年", "。"]
    first = reading("first", [own], [annotated(own, span("苏州市", text=own.answer))])
    assert count(first, first, [own], agreement.words).tolist() == [[3, 0, 0, len(ranges) - 3]]


def test_spans_of_the_prompt_do_not_count() -> None:
    own = record()
    assert not mark(own, [Span("prompt", 0, 5)]).any()


def test_an_annotation_file_without_texts_asks_for_its_data(tmp_path: Path) -> None:
    own = record()
    annotations.write(tmp_path / "a.jsonl", [annotated(own, span("1956"))], Manifest("hand"))
    (tmp_path / "data.jsonl").write_text(json.dumps({"id": "r", "question": "Where?", "answer": TEXT}) + "\n")
    [found] = agreement.records_of(tmp_path / "a.jsonl", tmp_path / "data.jsonl")
    assert reading("a", [found], annotations.read(tmp_path / "a.jsonl")).marked["r"].sum() == 4
    with pytest.raises(DataError, match=r"a.jsonl' holds no texts. Say with --data"):
        agreement.records_of(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="absent"):
        agreement.records_of(tmp_path / "absent.jsonl")
    rows = [{"question": "Where?", "answer": TEXT, "target_spans": [[0, 3]], "mlm_common_spans": []}]
    (tmp_path / "tofu.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    [own_text] = agreement.records_of(tmp_path / "tofu.jsonl")
    assert own_text.answer == TEXT


def test_tofu_spans_of_two_identifiers(shared: Path) -> None:
    """The published LLM spans of forget01 against the published masked-LM words: the figures, re-counted here."""
    rows = [json.loads(line) for line in (shared / "data/tofu/forget01_annotated.jsonl").read_text().splitlines()]
    records = [Record(str(i), prompt=row["question"], answer=row["answer"]) for i, row in enumerate(rows)]
    marks = [
        Annotation(
            r.id,
            r.text_hash,
            tuple(Span("answer", a, b) for a, b in row["target_spans"])
            + tuple(Span("answer", a, b, label="general") for a, b in row["mlm_common_spans"]),
        )
        for r, row in zip(records, rows, strict=True)
    ]
    llm, mlm = readings("tofu", records, marks)
    both, first, second, neither = count(llm, mlm, records, agreement.words).sum(0).tolist()
    words = unwanted = common = 0
    for row in rows:
        position = 0
        for word in row["answer"].split():
            start = row["answer"].index(word, position)
            position = end = start + len(word)
            is_unwanted = any(a < end and b > start for a, b in row["target_spans"])
            is_general = any(a < end and b > start for a, b in row["mlm_common_spans"])
            words, unwanted, common = words + 1, unwanted + is_unwanted, common + (is_unwanted and not is_general)
    assert (both + first, both, both + first + second + neither) == (unwanted, common, words)
