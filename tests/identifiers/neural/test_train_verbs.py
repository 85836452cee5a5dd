"""The verbs that train identifiers, from files on disk to an annotation made by what they trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from expunge.cli import app
from expunge.data.annotations import read
from tests.identifiers.neural.conftest import sentences

TINY = ("--vocab-size", "400", "--hidden-size", "32", "--layers", "2", "--heads", "2", "--length", "64")


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.split())


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """General texts, records about other towns, and the towns of half of them; entered."""
    for name, seed, count in (("general", 1, 300), ("records", 11, 40)):
        rows = [{"question": q, "answer": a} for q, a, _ in sentences(count, seed)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    towns = [town for _, _, town in sentences(40, 11)]
    (tmp_path / "towns.txt").write_text("\n".join(towns), encoding="utf-8")
    half = (tmp_path / "records.jsonl").read_text(encoding="utf-8").splitlines()[:30]
    (tmp_path / "half.jsonl").write_text("\n".join(half), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_texts_to_a_masked_model_to_a_classifier_to_marks(files: Path) -> None:
    shown = call("annotations", "train-mlm", "general.jsonl", "--out", "mlm", "--steps", "200", "--batch-size", "16",
                 "--rate", "5e-3", *TINY)  # fmt: skip
    assert "masked-lm:model=mlm" in shown
    call("annotate", "records.jsonl", "--with", "masked-lm:model=mlm", "--out", "by-mlm.jsonl")
    towns = [town for _, _, town in sentences(40, 11)]
    texts = [answer for _, answer, _ in sentences(40, 11)]
    marked = [
        {text[s.start : s.end] for s in one.spans if s.label == "unwanted"}
        for text, one in zip(texts, read("by-mlm.jsonl"), strict=True)
    ]
    assert sum(town in found for town, found in zip(towns, marked, strict=True)) >= 36
    assert not any("town" in found for found in marked)

    call("annotate", "half.jsonl", "--with", "phrases:file=towns.txt", "--out", "half-spans.jsonl")
    shown = call("annotations", "train-classifier", "records.jsonl", "half-spans.jsonl", "--out", "marks", "--base",
                 "mlm", "--epochs", "6", "--batch-size", "8", "--rate", "3e-3")  # fmt: skip
    assert "Learnt from 27 records. On 3 held out: precision 1.00" in shown
    call("annotate", "records.jsonl", "--with", "classifier:model=marks", "--out", "all.jsonl")
    unwanted = [
        [t[s.start : s.end] for s in a.spans if s.label == "unwanted"]
        for t, a in zip(texts, read("all.jsonl"), strict=True)
    ]
    assert sum(found == [town] for found, town in zip(unwanted, towns, strict=True)) >= 38


def test_what_cannot_be_trained_is_said(files: Path) -> None:
    (files / "full").mkdir()
    (files / "full" / "note.txt").write_text("mine")
    assert "not empty" in call("annotations", "train-mlm", "general.jsonl", "--out", "full", code=2)
    assert (files / "full" / "note.txt").read_text() == "mine"
    assert "multiple of their number" in call(
        "annotations", "train-mlm", "general.jsonl", "--out", "m", "--hidden-size", "30", "--heads", "4", code=2
    )
    call("annotate", "half.jsonl", "--with", "phrases:file=towns.txt", "--out", "spans.jsonl")
    asked = ("annotations", "train-classifier", "records.jsonl", "spans.jsonl", "--out", "c")
    assert "unknown segmentation 'word'. Did you mean: words" in call(*asked, "--words", "word", code=2)
    assert "no-such-model" in call(*asked, "--base", "./no-such-model", code=2)
