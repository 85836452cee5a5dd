"""Annotation files: written, read, edited, bound to texts, merged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from expunge.data.annotations import Manifest, annotate, attach, complement, merge, read, read_manifest, write
from expunge.data.load import load
from expunge.data.records import Annotation, Record, Span
from expunge.errors import DataError
from expunge.recipe import Source

RECORDS = [
    Record("a", "Who?", "Ada Lovelace, “the” 🎉 first"),
    Record("b", "Where?", "in London"),
    Record("c", text="A text about Ada."),
]
SPANS = {
    "a": [Span("answer", 0, 12, 0.5, "unwanted", "me"), Span("prompt", 0, 3, source="me")],
    "c": [Span("text", 13, 16, source="me")],
}


@pytest.fixture
def annotations() -> list[Annotation]:
    return annotate(RECORDS, SPANS)


@pytest.mark.parametrize("name", ["spans.jsonl", "spans.parquet"])
def test_what_is_written_is_read(name: str, annotations: list[Annotation], tmp_path: Path) -> None:
    manifest = Manifest.of(RECORDS, "phrases", "1.2", {"phrases": ["Ada", "“x”"], "case": False})
    write(tmp_path / name, annotations, manifest)
    assert read(tmp_path / name) == annotations
    assert read_manifest(tmp_path / name) == manifest
    assert (manifest.records, len(manifest.data_hash)) == (3, 16)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_attach_adds_spans_to_their_records(annotations: list[Annotation]) -> None:
    gold = Span("answer", 0, 3, source="gold")
    records = [replace(RECORDS[0], spans=(gold,)), *RECORDS[1:]]
    attached = attach(records, annotations)
    assert attached[0].spans == (gold, *SPANS["a"])
    assert attached[1] is records[1]
    assert attached[2].spans == tuple(SPANS["c"])
    assert attach(attached, annotations) == attached
    assert attach(RECORDS[1:], annotations)[1].spans == tuple(SPANS["c"])


def test_an_annotation_without_id_finds_its_text(annotations: list[Annotation]) -> None:
    moved = [replace(record, id=f"other-{record.id}") for record in RECORDS]
    assert [r.spans for r in attach(moved, annotations)] == [r.spans for r in attach(RECORDS, annotations)]
    nameless = [replace(annotation, record_id="") for annotation in annotations]
    twice = [*RECORDS, replace(RECORDS[0], id="again")]
    assert attach(twice, nameless)[3].spans == tuple(SPANS["a"])


def test_changed_texts_are_named(annotations: list[Annotation]) -> None:
    changed = [RECORDS[0], replace(RECORDS[1], answer="in Paris"), replace(RECORDS[2], text="Another")]
    with pytest.raises(DataError, match=r"2 annotations belong to another text .*: 'b', 'c'\. "):
        attach(changed, annotations)
    swapped = [replace(RECORDS[0], id="b"), replace(RECORDS[1], id="a")]
    with pytest.raises(DataError, match="'a', 'b'"):
        attach(swapped, annotations)
    strange = [Record("z", "Q", "A")]
    with pytest.raises(DataError, match="none of the 3 annotations belongs to any of the 1 records"):
        attach(strange, annotations)
    assert attach(strange, []) == strange


def test_a_span_outside_of_its_field_names_the_record() -> None:
    with pytest.raises(DataError, match="record 'b': span 3:40 is outside of the answer, which has 9 characters"):
        annotate(RECORDS, {"b": [Span("answer", 3, 40)]})
    wrong = Annotation("b", RECORDS[1].text_hash, (Span("text", 0, 1),))
    with pytest.raises(DataError, match="record 'b': span 0:1 is outside of the text, which has 0 characters"):
        attach(RECORDS, [wrong])


def test_files_made_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"record_id": "b", "spans": [[3, 9]]}\n')
    assert attach(RECORDS, read(path))[1].spans == (Span("answer", 3, 9),)
    assert read_manifest(path) is None
    path.write_text(path.read_text() + '{"record_id": "c", "spans": [{"start": 1}]}\n')
    with pytest.raises(DataError, match=r"mine.jsonl, line 2: a span needs start and end"):
        read(path)
    path.write_text('{"record_id": "b", "spans": []}\n{"spans": []}\n')
    with pytest.raises(DataError, match="line 2: neither record_id nor text_hash"):
        read(path)
    path.write_text('{"word": "Ada", "start": 0}\n')
    with pytest.raises(DataError, match=r"holds no annotations: .*columns found: word, start"):
        read(path)
    with pytest.raises(DataError, match="there is no annotation file"):
        read(tmp_path / "none.jsonl")


def test_a_file_of_a_later_format_is_refused(annotations: list[Annotation], tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", annotations, Manifest("x"))
    head, *rest = (tmp_path / "a.jsonl").read_text().splitlines()
    later = {**json.loads(head), "expunge_annotations": 2}
    (tmp_path / "a.jsonl").write_text("\n".join([json.dumps(later), *rest]))
    for reader in (read, read_manifest):
        with pytest.raises(DataError, match=r"of format 2; this version reads 1\. Update expunge"):
            reader(tmp_path / "a.jsonl")


def test_a_failed_write_leaves_the_old_file(annotations: list[Annotation], tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", annotations, Manifest("x"))

    def broken() -> object:
        yield annotations[0]
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write(tmp_path / "a.jsonl", broken(), Manifest("y"))  # type: ignore[arg-type]
    assert read(tmp_path / "a.jsonl") == annotations
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_merging(annotations: list[Annotation]) -> None:
    other = annotate(RECORDS, {"a": [SPANS["a"][0], Span("answer", 14, 19, source="you")], "b": [Span("answer", 3, 9)]})
    merged = {annotation.record_id: annotation.spans for annotation in merge(annotations, other)}
    assert merged["a"] == (SPANS["a"][1], SPANS["a"][0], Span("answer", 14, 19, source="you"))
    assert merged["b"] == (Span("answer", 3, 9),)
    assert merge(annotations) == merge(annotations, annotations)
    with pytest.raises(DataError, match="record 'a' is annotated with two different texts"):
        merge(annotations, [Annotation("a", "0" * 16)])


def test_the_complement_of_general_words_is_unwanted() -> None:
    record = Record("a", "Who?", "The author is Ada.")
    general = annotate([record], {"a": [Span("answer", 0, 3, label="general", source="mlm"), Span("answer", 11, 12)]})
    (made,) = complement([record, RECORDS[1]], general)
    assert [record.answer[s.start : s.end] for s in made.spans] == ["author", "is", "Ada."]
    assert {(s.label, s.source) for s in made.spans} == {("unwanted", "complement:mlm")}


def test_tofu_annotations(shared: Path) -> None:
    folder = shared / "data/tofu"
    for split, without in (("forget01", 0), ("forget05", 4), ("forget10", 12)):
        records = load(Source(path=str(folder / f"{split}.json")), "forget")
        annotations = read(folder / f"{split}_annotated.jsonl")
        attached = attach(records, annotations)
        unwanted = [[s for s in r.spans if s.label == "unwanted"] for r in attached]
        assert sum(not spans for spans in unwanted) == without
        assert {s.source for r in attached for s in r.spans} == {"tif-llm", "tif-mlm"}
        assert attach(attached, read(folder / f"{split}_annotated.jsonl")) == attached
    first = load(Source(path=str(folder / "forget01.json")), "forget")[:4]
    made = attach(first, complement(first, read(folder / "forget01_annotated.jsonl")))
    assert [made[3].answer[s.start : s.end] for s in made[3].spans] == [
        "Basil", "Mahfouz", "Al-Kuwaiti's", "florist", "mother", "game", "developer.",
    ]  # fmt: skip


@pytest.mark.parametrize("manifest", [{}, {"identifier": 3}, {"identifier": "x", "parameters": [1]}])
def test_a_manifest_that_says_nothing_is_refused(tmp_path: Path, manifest: dict[str, object]) -> None:
    file = tmp_path / "spans.jsonl"
    file.write_text(json.dumps({"expunge_annotations": 1, **manifest}), encoding="utf-8")
    with pytest.raises(DataError, match="does not say which identifier"):
        read_manifest(file)
