"""What the user gives is found in the text; what cannot work is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from expunge import registry
from expunge.data.records import Record, Span
from expunge.errors import DataError, MethodError
from expunge.identifiers.finding import Identifier, IdentifierError, fingerprint

RECORD = Record("r1", "Where was he born?", "Basil Al-Kuwaiti was born in Kuwait on 8 September 1956.")


def words(spec: str | dict[str, object], record: Record = RECORD) -> list[str]:
    (finding,) = registry.build("identifier", spec).identify([record])
    return [record.body[span.start : span.end] for span in finding.spans]


def test_phrases_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "phrases.txt"
    file.write_text("# what must go\n\nkuwait\n8 September 1956\nKuwait\n", encoding="utf-8")
    assert words(f"phrases:file={file}") == ["Kuwait", "8 September 1956"]


def test_phrases_mark_the_text_of_a_raw_record() -> None:
    record = Record("t", text="In Kuwait.")
    (finding,) = registry.build("identifier", "phrases:text=Kuwait").identify([record])
    assert finding.spans == (Span("text", 3, 9, source="phrases"),)


def test_names_bring_their_parts_but_not_their_particles() -> None:
    record = Record("n", "", "Ludwig van Beethoven left the van; Beethoven's Ludwig stayed. ludwig did not.")
    assert words({"name": "names", "text": "Ludwig van Beethoven"}, record) == [
        "Ludwig van Beethoven", "Beethoven", "Ludwig",
    ]  # fmt: skip
    assert words({"name": "names", "text": "Ludwig van Beethoven", "parts": False}, record) == ["Ludwig van Beethoven"]


def test_a_pattern_with_a_comma_and_a_group_stands_in_a_spec() -> None:
    spec = r'regex:pattern="on (?<unwanted>\d{1,2} \w+ \d{4})",ignore_case=True'
    assert words(spec) == ["8 September 1956"]
    identifier = registry.build("identifier", spec)
    assert registry.build("identifier", str(identifier)) == identifier


def test_a_pattern_without_end_is_stopped_and_named() -> None:
    record = Record("slow", "", "a" * 40 + "!")
    with pytest.raises(IdentifierError, match=r"pattern '\(a\|aa\)\+\$' took longer than 0.05 s on record 'slow'"):
        words("regex:pattern=(a|aa)+$,timeout=0.05", record)


def test_gold_spans_are_told_from_others() -> None:
    spans = (Span("answer", 0, 5, source="gold"), Span("answer", 6, 16, label="general", source="gold"),
             Span("answer", 29, 35, source="llm"))  # fmt: skip
    record = Record("g", RECORD.prompt, RECORD.answer, spans=spans)
    assert words("gold", record) == ["Basil", "Al-Kuwaiti"]
    assert words("gold:label=unwanted", record) == ["Basil"]
    assert words("gold:source=any", record) == ["Basil", "Al-Kuwaiti", "Kuwait"]


def test_the_fingerprint_follows_the_content_of_the_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("Kuwait\n")
    other.write_text("Kuwait\n\n")
    same = [fingerprint(registry.build("identifier", f"phrases:file={file}")) for file in (one, other)]
    assert same[0] == same[1]
    other.write_text("Basil\n")
    assert fingerprint(registry.build("identifier", f"phrases:file={other}")) != same[0]


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("phrases", MethodError, "neither a file nor a text"),
        ("phrases:file=a,text=b", MethodError, "both file and text"),
        ("phrases:file=/no/such/file", DataError, "cannot be read"),
        ("phrases:text=|", DataError, "nothing to search for"),
        ("regex:pattern=(", MethodError, "no regular expression"),
        ("regex:pattern=a,file=b", MethodError, "both a pattern and a file"),
        ("phrase", MethodError, "Did you mean: phrases"),
    ],
)
def test_what_cannot_work_is_said(spec: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        words(spec)


@pytest.mark.parametrize("name", registry.names("identifier"))
def test_every_registered_identifier_keeps_the_protocol(name: str) -> None:
    settings = {"chat": {"model": "m", "base_url": "http://127.0.0.1:1/v1"}, "regex": {"pattern": "a"},
                "phrases": {"text": "a"}, "names": {"text": "a"}, "classifier": {"model": "."}}  # fmt: skip
    identifier = registry.build("identifier", {"name": name, **settings.get(name, {})})
    assert isinstance(identifier, Identifier)
    assert registry.build("identifier", str(identifier)) == identifier
