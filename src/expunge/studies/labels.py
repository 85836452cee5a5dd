"""What scores are held against: gold spans, the recipe's annotation, annotation files, key words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from expunge.data import agreement, files
from expunge.data import annotations as annotation_files
from expunge.data.agreement import Reading
from expunge.data.importers import from_key_text
from expunge.data.records import Record
from expunge.errors import DataError


def readings(records: Sequence[Record], labels: Sequence[str]) -> list[Reading]:
    """What each label marks: 'gold', 'given' (the recipe's annotation), or an annotation file; gold and given if none.

    A file of TOFU's *_annotated.jsonl is a reading of its unwanted spans, one of its general words turned round, and
    one of its key words. DataError if a label marks nothing.
    """
    own = {"gold": agreement.gold(records), "given": _given(records)}
    if not labels:
        found = [reading for reading in own.values() if reading is not None]
        if not found:
            raise DataError("the forget records have no spans to compare with. Name an annotation file with --label")
        return found
    out: list[Reading] = []
    for label in labels:
        if label in own:
            reading = own[label]
            if reading is None:
                raise DataError(f"label '{label}': the forget records have no such spans. Name an annotation file")
            out.append(reading)
        else:
            out += agreement.readings(Path(label).stem, records, annotation_files.read(label))
            out += _key_words(records, label)
    return out


def _given(records: Sequence[Record]) -> Reading | None:
    marked = {r.id: agreement.mark(r, (s for s in r.spans if s.source != "gold")) for r in records}
    return Reading("given", marked) if any(bool(own.any()) for own in marked.values()) else None


def _key_words(records: Sequence[Record], path: str) -> list[Reading]:
    """The reading of the key words that a file names run together, if it does."""
    texts = {
        Record("", str(row.values["question"]), str(row.values["answer"])).text_hash: str(row.values["key_text"])
        for row in files.rows(Path(path))
        if {"question", "answer", "key_text"} <= set(row.values)
    }
    marked = {
        record.id: agreement.mark(record, from_key_text(record, texts[record.text_hash]))
        for record in records
        if record.text_hash in texts
    }
    return [Reading(f"{Path(path).stem} (key words)", marked)] if marked else []
