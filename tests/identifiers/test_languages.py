"""Words as they are cut can say what the gold spans of the built-in benchmark say, in every language and in code."""

from __future__ import annotations

from typing import Any

import pytest

from expunge.data.records import Annotation, Record, Span
from expunge.data.words import Segmentation, cut
from expunge.identifiers import build
from expunge.synth import make

CASES: list[tuple[dict[str, Any], Segmentation]] = [
    ({"language": "en"}, "words"),
    ({"language": "zh"}, "words"),
    ({"language": "zh"}, "characters"),
    ({"language": "ar"}, "words"),
    ({"language": "en", "kind": "code"}, "code"),
]
IDS = ["english", "chinese", "chinese characters", "arabic", "code"]


def gold_records(case: dict[str, Any]) -> list[Record]:
    records = make(people=20, seed=0, **case).records("forget")
    return [record for record in records if gold(record)][:40]


def gold(record: Record) -> list[Span]:
    return [span for span in record.spans if span.source == "gold" and span.field == "answer"]


@pytest.mark.parametrize(("case", "segmentation"), CASES, ids=IDS)
def test_no_word_is_half_gold(case: dict[str, Any], segmentation: Segmentation) -> None:
    records = gold_records(case)
    assert len(records) >= 20
    halves = total = 0
    for record in records:
        letters = {i for span in gold(record) for i in range(span.start, span.end)}
        for start, end in cut(record.answer, segmentation):
            inside = sum(i in letters for i in range(start, end))
            total += 1
            halves += 0 < inside < end - start
    assert halves / total < 0.02


def test_white_space_does_not_do_for_chinese() -> None:
    """The sibling that must fail: without spaces, half of the 'words' are half gold."""
    records = gold_records({"language": "zh"})
    halves = 0
    for record in records:
        letters = {i for span in gold(record) for i in range(span.start, span.end)}
        words = cut(record.answer, "whitespace")
        halves += any(0 < sum(i in letters for i in range(a, b)) < b - a for a, b in words)
    assert halves / len(records) > 0.5


@pytest.mark.parametrize("case", [case for case, _ in CASES], ids=IDS)
def test_phrases_are_found_where_gold_is(case: dict[str, Any]) -> None:
    for record in gold_records(case):
        texts = {record.answer[span.start : span.end] for span in gold(record)}
        (finding,) = build({"name": "phrases", "text": "|".join(sorted(texts))}).identify([record])
        marked = {i for span in finding.spans for i in range(span.start, span.end)}
        for span in gold(record):
            assert marked >= set(range(span.start, span.end)), record


def test_a_masked_model_s_spans_are_an_annotation_of_chinese(tmp_path: Any) -> None:
    from expunge.identifiers.neural.pretrain import Schedule, Shape, train_masked_lm

    records = gold_records({"language": "zh"})
    folder = train_masked_lm(
        [f"{record.prompt} {record.answer}" for record in records], tmp_path,
        shape=Shape(vocab_size=320, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, length=64),
        schedule=Schedule(steps=3, batch_size=8),
    )  # fmt: skip
    findings = list(build(f"masked-lm:model={folder},top_k=20,device=cpu").identify(records))
    for finding in findings:
        annotation = Annotation(finding.record.id, finding.record.text_hash, finding.spans)
        assert [(s.start, s.end) for s in annotation.spans] == cut(finding.record.answer)
        # A Chinese letter is three bytes, so most words have several pieces in so small a vocabulary.
    assert sum(finding.counts["several pieces"] for finding in findings) > 0
