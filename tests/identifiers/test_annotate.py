"""Annotating resumes, keeps what is paid for, and asks before it spends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest

from expunge.data import annotations as files
from expunge.data.records import Record, Span
from expunge.errors import DataError
from expunge.identifiers import Estimate, Finding, IdentifierError, annotate, build

RECORDS = [Record(f"r{i}", f"Q{i}?", f"Answer number {i} is secret{i}.") for i in range(6)]


@dataclass(frozen=True)
class Counting:
    """Marks the last word; remembers whom it was asked about; breaks at `breaks_at`; may want to be paid."""

    reads_spans: ClassVar[bool] = False
    version: int = 1
    breaks_at: str = ""
    paid: bool = False
    asked: list[str] = field(default_factory=list)

    def facts(self) -> Mapping[str, object]:
        return {"name": "counting", "version": self.version}

    def estimate(self, records: Sequence[Record]) -> Estimate | None:
        return Estimate("https://example.org", len(records), 0, 100, 10, 0.5) if self.paid else None

    def identify(self, records: Sequence[Record]) -> Iterator[Finding]:
        for record in records:
            if record.id == self.breaks_at:
                raise IdentifierError("broken")
            self.asked.append(record.id)
            start = record.answer.rindex(" ") + 1
            spans = (Span("answer", start, len(record.answer) - 1, source="counting"),)
            yield Finding(record, spans, {"phrases": 2, "not found": 1}, (f"ghost of {record.id}",))

    def __str__(self) -> str:
        return f"counting:version={self.version}"


def test_every_record_is_annotated_and_the_manifest_says_how(tmp_path: Path) -> None:
    out, steps = tmp_path / "new" / "a.jsonl", []
    summary = annotate(RECORDS, Counting(), out, progress=lambda done, total: steps.append((done, total)))
    found = files.read(out)
    assert [a.record_id for a in found] == [r.id for r in RECORDS]
    assert [r.answer[s.start : s.end] for r, a in zip(RECORDS, found, strict=True) for s in a.spans] == [
        f"secret{i}" for i in range(6)
    ]
    manifest = files.read_manifest(out)
    assert manifest is not None
    assert (manifest.identifier, manifest.records) == ("counting:version=1", 6)
    assert manifest.parameters["facts"] == {"name": "counting", "version": 1}
    assert manifest.parameters["counts"] == {"phrases": 12, "not found": 6}
    assert manifest.parameters["environment"]["packages"]["transformers"]
    assert steps == [(i, 6) for i in range(7)]
    # "Answer number 0 is secret0." has 23 letters without its spaces, 7 of them marked.
    assert summary.share == pytest.approx(7 / 23)
    assert (summary.new, summary.resumed, summary.kept, summary.without, summary.spans) == (6, 0, 0, 0, 6)
    assert summary.missing[0] == ("r0", "ghost of r0")
    assert [p.name for p in out.parent.iterdir()] == ["a.jsonl"]


def test_the_same_text_is_annotated_once(tmp_path: Path) -> None:
    twins = [RECORDS[0], replace(RECORDS[0], id="twin"), RECORDS[1]]
    identifier = Counting()
    summary = annotate(twins, identifier, tmp_path / "a.jsonl")
    assert identifier.asked == ["r0", "r1"]
    assert (summary.texts, summary.records, summary.counts["phrases"]) == (2, 3, 4)
    assert [len(a.spans) for a in files.read(tmp_path / "a.jsonl")] == [1, 1, 1]


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    with pytest.raises(IdentifierError, match="broken"):
        annotate(RECORDS, Counting(breaks_at="r3"), out)
    assert not out.exists()
    (progress,) = tmp_path.iterdir()
    with progress.open("ab") as stream:
        stream.write(b'{"text": "torn')  # what a kill in the middle of a line leaves
    again = Counting()
    summary = annotate(RECORDS, again, out)
    assert again.asked == ["r3", "r4", "r5"]
    assert (summary.new, summary.resumed) == (3, 3)
    assert summary.counts == {"phrases": 12, "not found": 6}
    assert len(summary.missing) == 6
    whole = tmp_path / "whole.jsonl"
    annotate(RECORDS, Counting(), whole)
    assert whole.read_bytes() == out.read_bytes()


def test_a_finished_file_grows_and_keeps_edits_by_hand(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    annotate(RECORDS[:3], Counting(), out)
    lines = out.read_text().splitlines()
    edited = json.loads(lines[1])
    edited["spans"][0]["weight"] = 0.25
    out.write_text("\n".join([lines[0], json.dumps(edited), *lines[2:]]) + "\n")
    again = Counting()
    summary = annotate(RECORDS, again, out)
    assert again.asked == ["r3", "r4", "r5"]
    assert (summary.kept, summary.new, summary.counts["phrases"]) == (3, 3, 12)
    assert [a.spans[0].weight for a in files.read(out)] == [0.25, 1, 1, 1, 1, 1]


def test_a_file_by_another_identifier_is_not_overwritten_unasked(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    annotate(RECORDS, Counting(), out)
    before = out.read_bytes()
    with pytest.raises(DataError, match="by 'counting:version=1'"):
        annotate(RECORDS, Counting(version=2), out)
    with pytest.raises(DataError, match="also holds annotations of 1 texts"):
        annotate(RECORDS[1:], Counting(), out)
    assert out.read_bytes() == before
    other = Counting(version=2)
    annotate(RECORDS, other, out, overwrite=True)
    assert len(other.asked) == 6


def test_gold_spans_are_read_anew_when_they_change(tmp_path: Path) -> None:
    out, gold = tmp_path / "a.jsonl", build("gold")
    with_span = replace(RECORDS[0], spans=(Span("answer", 0, 6, source="gold"),))
    assert annotate([with_span], gold, out).spans == 1
    assert annotate([RECORDS[0]], gold, out).spans == 0
    assert annotate([with_span, replace(RECORDS[0], id="bare")], gold, out).texts == 2


def test_nothing_is_spent_without_agreement(tmp_path: Path) -> None:
    out, paid = tmp_path / "a.jsonl", Counting(paid=True)
    seen: list[Estimate] = []
    with pytest.raises(IdentifierError, match=r"6 requests to https://example\.org.*about 0\.50.*Nothing was sent"):
        annotate(RECORDS, paid, out)
    with pytest.raises(IdentifierError, match="Not agreed to"):
        annotate(RECORDS, paid, out, confirm=lambda estimate: bool(seen.append(estimate)))
    assert paid.asked == []
    assert list(tmp_path.iterdir()) == []
    annotate(RECORDS, paid, out, confirm=lambda estimate: True)
    assert len(paid.asked) == 6
    assert seen[0].requests == 6
    # Nothing is left to ask, so nobody is asked to agree.
    annotate(RECORDS, paid, out)


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    from expunge.identifiers.progress import journal

    path = tmp_path / "x.progress"
    with journal(path), pytest.raises(IdentifierError, match="another process"), journal(path):
        pass
    assert not path.exists()


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    from expunge.identifiers.progress import journal

    path = tmp_path / "x.progress"
    path.write_text('{"text": "a", "spans": [], "counts": {}, "missing": []}\nnonsense\n')
    with pytest.raises(IdentifierError, match="line 2 of"), journal(path):
        pass


@dataclass(frozen=True)
class Careless:
    """Says what it should not: spans outside, records unasked, nothing at all."""

    reads_spans: ClassVar[bool] = False
    what: str = "outside"

    def facts(self) -> Mapping[str, object]:
        return {"name": "careless"}

    def estimate(self, records: Sequence[Record]) -> Estimate | None:
        return None

    def identify(self, records: Sequence[Record]) -> Iterator[Finding]:
        if self.what == "outside":
            yield Finding(records[0], (Span("answer", 0, 999),))
        elif self.what == "unasked":
            yield Finding(Record("stranger", "", "text"), ())
        elif self.what == "twice":
            yield from (Finding(records[0], ()), Finding(records[0], ()))


@pytest.mark.parametrize(
    ("what", "says"),
    [("outside", "0:999 of the answer of record 'r0', which has 27"), ("unasked", "unasked, or twice"),
     ("twice", "unasked, or twice"), ("nothing", "said nothing of 6 records, such as 'r0'")],
)  # fmt: skip
def test_a_careless_identifier_is_caught(tmp_path: Path, what: str, says: str) -> None:
    with pytest.raises(IdentifierError, match=says):
        annotate(RECORDS, Careless(what), tmp_path / "a.jsonl")


def test_no_records_are_no_annotation(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no records"):
        annotate([], Counting(), tmp_path / "a.jsonl")


def test_parquet_resumes_like_lines(tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    annotate(RECORDS[:2], Counting(), out)
    again = Counting()
    assert annotate(RECORDS, again, out).kept == 2
    assert again.asked == ["r2", "r3", "r4", "r5"]
