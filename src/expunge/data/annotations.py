"""Annotations as a file: which characters of which records carry what, made once, edited by people, for any tokenizer.

JSON lines: a manifest in the first line, then a line a record,
`{"record_id", "text_hash", "spans": [{"field", "start", "end", "weight", "label", "source"}]}`. Parquet: the same
columns, the manifest in the schema's metadata. Offsets are code points of Python strings, ends exclusive.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from expunge.data import importers
from expunge.data.columns import check_span, read_span
from expunge.data.files import Row, rows
from expunge.data.records import Annotation, Record, Span, data_hash
from expunge.errors import DataError

FORMAT = 1
_KEY = "expunge_annotations"
_SHOWN = 5


@dataclass(frozen=True)
class Manifest:
    """How an annotation file came about: who marked the spans, with which parameters, in which records."""

    identifier: str
    version: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    data_hash: str = ""
    records: int = 0

    @classmethod
    def of(
        cls, records: Sequence[Record], identifier: str, version: str = "", parameters: Mapping[str, Any] | None = None
    ) -> Manifest:
        """The manifest of an annotation of these records."""
        return cls(identifier, version, dict(parameters or {}), data_hash(records), len(records))


def annotate(records: Iterable[Record], spans: Mapping[str, Iterable[Span]]) -> list[Annotation]:
    """An annotation of every record: the spans under its id, none where there are none; DataError if one is outside."""
    out = []
    for record in records:
        mine = tuple(spans.get(record.id, ()))
        for span in mine:
            _check(span, record)
        out.append(Annotation(record.id, record.text_hash, mine))
    return out


def write(path: str | Path, annotations: Iterable[Annotation], manifest: Manifest) -> None:
    """Writes an annotation file whole or not at all: Parquet if the name ends so, else JSON lines."""
    path = Path(path)
    staged = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.suffix.lower() == ".parquet":
            _write_parquet(staged, annotations, manifest)
        else:
            with staged.open("w", encoding="utf-8") as stream:
                for line in chain([{_KEY: FORMAT, **asdict(manifest)}], map(asdict, annotations)):
                    stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def read(path: str | Path) -> list[Annotation]:
    """The annotations of a file that `write` made, or people did by hand, or TOFU's *_annotated.jsonl.

    Without a manifest, lines need record_id or text_hash (an annotation without an id finds its record by the text).
    DataError names the line that is wrong.
    """
    path = _existing(path)
    read_manifest(path)
    table = [row for row in rows(path) if _KEY not in row.values]
    if not table:
        return []
    first = table[0].values
    if "target_spans" in first:
        return [_at(row, importers.from_tofu) for row in table]
    if "spans" in first and {"record_id", "text_hash"} & set(first):
        return [_at(row, _annotation) for row in table]
    raise DataError(
        f"{path} holds no annotations: expected record_id, text_hash and spans; columns found: {', '.join(first)}. "
        "Other formats come in through expunge.data.importers."
    )


def read_manifest(path: str | Path) -> Manifest | None:
    """The manifest of an annotation file; None if it has none."""
    path = _existing(path)
    values: dict[str, Any] | None
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        stored = (pq.read_schema(path).metadata or {}).get(_KEY.encode())
        values = None if stored is None else json.loads(stored)
    else:
        values = next((row.values for row in rows(path)), {})
    if values is None or _KEY not in values:
        return None
    if values[_KEY] != FORMAT:
        raise DataError(
            f"{path} is an annotation file of format {values[_KEY]}; this version reads {FORMAT}. Update expunge."
        )
    known = {name: value for name, value in values.items() if name in Manifest.__dataclass_fields__}
    if not isinstance(known.get("identifier"), str) or not isinstance(known.get("parameters", {}), Mapping):
        raise DataError(f"the manifest of {path} does not say which identifier made it, or how. Annotate again.")
    return Manifest(**known)


def attach(records: Sequence[Record], annotations: Iterable[Annotation]) -> list[Record]:
    """The records with the spans of their annotations added to their own.

    An annotation belongs to the record of its id, whose text must have its hash; without an id, or if no record has
    it, to the records with its text. DataError names records whose text has changed since, spans that lie outside of
    their field, and says so if not one annotation belongs to any of the records.
    """
    place = {record.id: i for i, record in enumerate(records)}
    by_text: dict[str, list[int]] = {}
    for i, record in enumerate(records):
        by_text.setdefault(record.text_hash, []).append(i)
    added: dict[int, list[Span]] = {}
    changed: list[str] = []
    total = matched = 0
    for annotation in annotations:
        total += 1
        here = place.get(annotation.record_id)
        if here is not None and annotation.text_hash not in ("", records[here].text_hash):
            changed.append(annotation.record_id)
            continue
        targets = by_text.get(annotation.text_hash, []) if here is None else [here]
        matched += bool(targets)
        for i in targets:
            added.setdefault(i, []).extend(annotation.spans)
    if changed:
        names = ", ".join(f"'{name}'" for name in changed[:_SHOWN]) + (", ..." if len(changed) > _SHOWN else "")
        raise DataError(
            f"{len(changed)} annotations belong to another text than the record of their id has: {names}. "
            "The data has changed since they were made, or ids have: annotate it again."
        )
    if total and not matched:
        raise DataError(
            f"none of the {total} annotations belongs to any of the {len(records)} records, by id or by text. "
            "Check that data and annotations go together."
        )
    return [_with(record, added.get(i, [])) for i, record in enumerate(records)]


def merge(*files: Iterable[Annotation]) -> list[Annotation]:
    """One annotation a record, with the spans of all of them, each once, in the order of the text.

    DataError if two annotations of one record id belong to different texts.
    """
    texts: dict[str, str] = {}
    spans: dict[tuple[str, str], dict[Span, None]] = {}
    for annotation in (annotation for file in files for annotation in file):
        known = texts.setdefault(annotation.record_id, annotation.text_hash)
        if annotation.record_id and known != annotation.text_hash:
            raise DataError(
                f"record '{annotation.record_id}' is annotated with two different texts ({known} and "
                f"{annotation.text_hash}). Merge only annotations of the same data."
            )
        spans.setdefault((annotation.record_id, annotation.text_hash), {}).update(dict.fromkeys(annotation.spans))
    order = ("prompt", "answer", "text")
    return [
        Annotation(id, text, tuple(sorted(found, key=lambda s: (order.index(s.field), s.start, s.end, s.label))))
        for (id, text), found in spans.items()
    ]


def complement(
    records: Iterable[Record], annotations: Iterable[Annotation], *, of: str = "general", source: str = ""
) -> list[Annotation]:
    """Annotations that mark as unwanted every word of white-space-separated text that no span labelled `of` touches.

    Makes a general-words identifier, such as TIF's masked language model, a source of unwanted spans.
    """
    annotations = list(annotations)
    by_id = {annotation.record_id: annotation for annotation in annotations if annotation.record_id}
    by_text = {annotation.text_hash: annotation for annotation in annotations}
    out = []
    for record in records:
        annotation = by_id.get(record.id, by_text.get(record.text_hash))
        if annotation is None:
            continue
        (record,) = attach([replace(record, spans=())], [annotation])
        taken = [span for span in record.spans if span.label == of and span.field == record.body_field]
        name = source or f"complement:{taken[0].source if taken else of}"
        words = tuple(
            Span(record.body_field, start, end, label="unwanted", source=name)
            for start, end in importers.words(record.body)
            if not any(span.start < end and span.end > start for span in taken)
        )
        out.append(Annotation(record.id, record.text_hash, words))
    return out


def _with(record: Record, spans: Iterable[Span]) -> Record:
    spans = list(spans)
    for span in spans:
        _check(span, record)
    return replace(record, spans=tuple(dict.fromkeys((*record.spans, *spans)))) if spans else record


def _check(span: Span, record: Record) -> None:
    try:
        check_span(span, record)
    except DataError as error:
        raise DataError(f"record '{record.id}': {error}") from None


def _annotation(values: Mapping[str, Any]) -> Annotation:
    spans = values["spans"] or []
    if not isinstance(spans, list):
        raise DataError(f"'spans' must be a list; found {type(spans).__name__}.")
    record_id, text_hash = (str(values.get(name) or "") for name in ("record_id", "text_hash"))
    if not record_id and not text_hash:
        raise DataError("neither record_id nor text_hash says which record this belongs to.")
    return Annotation(record_id, text_hash, tuple(read_span(span, "answer") for span in spans))


def _at(row: Row, make: Callable[[Mapping[str, Any]], Annotation]) -> Annotation:
    try:
        return make(row.values)
    except DataError as error:
        raise DataError(f"{row.where}: {error}") from None


def _existing(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"there is no annotation file {path}.")
    return path


def _write_parquet(path: Path, annotations: Iterable[Annotation], manifest: Manifest) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    number = pa.int64()
    parts = [("field", text), ("start", number), ("end", number), ("weight", pa.float64())]
    span = pa.struct([*parts, ("label", text), ("source", text)])
    schema = pa.schema([("record_id", text), ("text_hash", text), ("spans", pa.list_(span))])
    stored = json.dumps({_KEY: FORMAT, **asdict(manifest)}, ensure_ascii=False)
    table = pa.Table.from_pylist([asdict(a) for a in annotations], schema.with_metadata({_KEY: stored}))
    pq.write_table(table, path)
