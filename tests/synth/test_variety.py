"""How predictable the wording is: the measure by hand, and the bounds the benchmark keeps."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from expunge.data.records import Record, Span
from expunge.synth import make
from expunge.synth.benchmark import Kind
from expunge.synth.variety import Sentence, measure, sentence


def test_words_inside_spans_and_capitals_are_no_structure() -> None:
    record = Record(
        id="r", answer="Ann was born in old Ulm.", subject="ann", spans=(Span("answer", 16, 23), Span("answer", 0, 3))
    )
    found = sentence(record, "birth", "t")
    assert found.words == ("Ann", "was", "born", "in", "old", "Ulm", ".")
    assert found.skeleton == ("_", "was", "born", "in", "_", "_", "_")
    assert (found.group, found.context, found.template, found.opening) == ("ann", "birth", "t", "_")


def test_chinese_is_measured_by_the_character() -> None:
    assert sentence(Record(id="r", answer="他住在A1。")).words == ("他", "住", "在", "A1", "。")


def _same(group: str, text: str, template: str = "") -> Sentence:
    return sentence(Record(id=group, answer=text, subject=group), "", template)


def test_one_wording_for_all_is_free() -> None:
    found = measure([_same(str(k), "he was born in a town", "t") for k in range(100)])
    assert (found.bigram_top1, found.first_word, found.no_word, found.first_word_whole) == (1.0, 1.0, 1.0, 1.0)
    assert found.bigram_bits < 0.15
    assert (found.answers, found.words, found.structure_share, found.skeletons) == (100, 6.0, 1.0, 0.01)


def test_a_first_word_that_tells_the_template_is_found_out() -> None:
    rows = [_same(str(k), "once upon a time" if k % 2 else "it was there", str(k % 2)) for k in range(200)]
    found = measure(rows)
    assert (found.first_word, found.first_word_whole) == (1.0, 1.0)
    assert found.no_word <= 0.55


def test_the_bigram_model_by_hand() -> None:
    """Five groups, so each is judged by the other four, which are eight copies of 'a b' and of 'a c'."""
    rows = [_same(str(k // 4), "a b" if k % 2 else "a c") for k in range(20)]
    found = measure(rows)
    # P(a|start): 16 of 16 with one type, backed off to the unigram; b and c: 8 of 16 with two types.
    alone = {"a": (16 + 3 / 4) / 35, "b": (8 + 3 / 4) / 35}
    expected = (-math.log2((16 + alone["a"]) / 17) - math.log2((8 + 2 * alone["b"]) / 18)) / 2
    assert found.bigram_bits == pytest.approx(expected)
    assert found.bigram_top1 == 0.75  # 'a' always, and 'b' of the two equals


def test_a_subject_is_never_judged_by_itself() -> None:
    rows = [_same(str(k), f"{chr(97 + k)}x yy zz") for k in range(20)]
    assert measure(rows).first_word_whole == 0.0


def test_rare_words_by_hand() -> None:
    """Five copies of 'rare' in five groups, each unseen by the others: all facts rarer than every other word."""
    rows = [
        sentence(Record(id=str(k), subject=str(k), prompt="who ?", answer=f"who is {w}", spans=(Span("answer", 7, 9),)))
        for k, w in enumerate(("ax", "by", "cz", "dw", "ev"))
    ]
    assert measure(rows).frequency_auc == 1.0
    common = [
        sentence(Record(id=str(k), subject=str(k), prompt="q", answer=f"{w} is ax", spans=(Span("answer", 6, 8),)))
        for k, w in enumerate(("ax", "by", "cz", "dw", "ev"))
    ]
    found = measure(common)
    # The five facts were seen 4, 5, 5, 5, 5 times elsewhere; of the ten other words six were seen 4 times, four never.
    # Only the first fact ever draws level: six halves of fifty comparisons.
    assert found.frequency_auc == pytest.approx(3 / 50)
    assert math.isnan(measure([_same(str(k), "a b") for k in range(5)]).novel_auc)


BOUNDS = {"bigram_top1": 0.5, "first_word": 0.5, "first_word_whole": 0.2}


@pytest.mark.parametrize(("kind", "language"), [("people", "en"), ("people", "zh"), ("people", "ar"), ("code", "en")])
def test_neither_a_bigram_model_nor_the_first_word_gives_the_wording_away(kind: Kind, language: str) -> None:
    made = make(people=100, language=language, kind=kind)
    rows = [sentence(e.record, e.fact, e.template) for e in made.entries("retain")]
    found = measure(rows, by_context=True)
    assert {name: getattr(found, name) for name, bound in BOUNDS.items() if getattr(found, name) >= bound} == {}
    assert found.bigram_bits > 2.5
    assert 0.6 < found.frequency_auc < 0.8


def test_tofu_by_the_same_measure(shared: Path) -> None:
    """The yardstick of the page on the benchmark: text that a large model wrote."""
    lines = (shared / "data/tofu/forget10_annotated.jsonl").read_text(encoding="utf-8").splitlines()
    rows = []
    for k, row in enumerate(map(json.loads, lines)):
        spans = tuple(Span("answer", start, end) for start, end in row["target_spans"])
        rows.append(
            sentence(Record(id=str(k), prompt=row["question"], answer=row["answer"], subject=str(k // 20), spans=spans))
        )
    found = measure(rows)
    assert found.bigram_top1 == pytest.approx(0.19, abs=0.02)
    assert found.bigram_bits == pytest.approx(7.9, abs=0.2)
    assert found.frequency_auc == pytest.approx(0.67, abs=0.02)
    assert found.novel_auc == pytest.approx(0.70, abs=0.02)
