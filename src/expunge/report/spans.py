"""Annotated records packed small for the inspector's page: texts cut into pieces, each with the spans that cover it."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.data import agreement
from expunge.data.agreement import Reading, Units
from expunge.data.annotations import Manifest, attach
from expunge.data.records import Annotation, Field, Record, Span
from expunge.errors import DataError

MAX_BYTES = 4_600_000
MAX_PHRASES = 14
_LENGTHS = (12_000, 6_000, 3_000, 1_500, 800, 400)
_PHRASE = 60
_SPACE = re.compile(r"\s+")
_UNSPACED = re.compile(f"[{agreement.UNSPACED}]")

Packed = dict[str, Any]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Shown:
    """One annotation as the page shows it: its name, the spans it gives to each record, and what it calls unwanted."""

    name: str
    spans: Mapping[str, tuple[Span, ...]]
    reading: Reading
    manifest: Manifest | None = None

    @classmethod
    def of(
        cls, name: str, records: Sequence[Record], annotations: Sequence[Annotation], manifest: Manifest | None = None
    ) -> Shown:
        """An annotation file, over the records that it covers. Files of general words alone call the rest unwanted."""
        first = agreement.readings(name, records, annotations)[0]
        bare = attach([replace(record, spans=()) for record in records], annotations)
        spans = {record.id: record.spans for record in bare if record.id in first.marked}
        return cls(name, spans, replace(first, name=name), manifest)

    @classmethod
    def gold(cls, records: Sequence[Record]) -> Shown:
        """The gold spans that the records bring along; DataError if they have none."""
        reading = agreement.gold(records)
        if reading is None:
            raise DataError(f"none of the {len(records)} records has gold spans, so there is no gold to show.")
        spans = {record.id: tuple(s for s in record.spans if s.source == "gold") for record in records}
        return cls("gold", spans, reading)


def pack(records: Sequence[Record], shown: Sequence[Shown], units: Units) -> Packed:
    """What the page's script draws, at most `MAX_BYTES` as JSON: long texts are cut first, then records thinned.

    Shares, agreement and phrases are of all records, whatever is cut.
    """
    seen = [record for record in records if any(record.id in one.spans for one in shown)]
    counts = _counts(seen, shown, units)
    tables = _Tables.of(shown)
    packed: list[Packed] = []
    size = 0
    for longest in _LENGTHS:
        packed = [_record(record, shown, tables, counts[i], longest) for i, record in enumerate(seen)]
        size = sum(map(_size, packed))
        if size <= MAX_BYTES:
            break
    if size > MAX_BYTES:
        kept = np.linspace(0, len(packed) - 1, max(1, int(0.97 * len(packed) * MAX_BYTES / size))).round().astype(int)
        packed = [packed[i] for i in kept]
    return {
        "names": [one.name for one in shown],
        "labels": tables.labels,
        "sources": tables.sources,
        "total": len(seen),
        "records": packed,
    }


def _size(packed: Packed) -> int:
    """Bytes on the page, near enough: `shell.embedded` writes <, > and & in six."""
    text = json.dumps(packed, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "replace")) + 5 * sum(map(text.count, "<>&")) + 1


def overview(records: Sequence[Record], shown: Sequence[Shown], units: Units) -> list[dict[str, Any]]:
    """Of each annotation: records, spans, the share of units it marks, and how many spans each label and source has."""
    out = []
    for one in shown:
        mine = [record for record in records if record.id in one.spans]
        alone = agreement.count(one.reading, one.reading, mine, units).sum(0)
        spans = [span for record in mine for span in one.spans[record.id]]
        out.append(
            {
                "name": one.name,
                "manifest": one.manifest,
                "records": len(mine),
                "empty": sum(not one.reading.marked[record.id].any() for record in mine),
                "spans": len(spans),
                "marked": int(alone[0]),
                "units": int(alone.sum()),
                "each": _each(mine, spans),
                "labels": sorted(Counter(s.label for s in spans).items(), key=lambda pair: _label_order(pair[0])),
                "sources": Counter(span.source or "no source" for span in spans).most_common(),
                "midword": sum(_cuts_a_word(record, span) for record in mine for span in one.spans[record.id]),
            }
        )
    return out


def _each(records: Sequence[Record], spans: Sequence[Span]) -> str:
    """'3.5 spans a record, 1 to 12 characters, 6 in the middle.'"""
    if not spans:
        return "No spans."
    lengths = sorted(span.end - span.start for span in spans)
    return (
        f"{len(spans) / len(records):.1f} spans a record, of {lengths[0]} to {lengths[-1]:,} characters; "
        f"half of them of {lengths[len(lengths) // 2]} or fewer."
    )


def phrases(records: Sequence[Record], shown: Sequence[Shown]) -> list[list[tuple[str, int]]]:
    """What each annotation marks most often, with its count; of two, only what the other does not touch at all."""
    out = []
    for i, one in enumerate(shown):
        counts: Counter[str] = Counter()
        written: dict[str, Counter[str]] = {}
        for record in records:
            other = shown[1 - i].reading.marked.get(record.id) if len(shown) == 2 else None
            for start, end in _runs(record.body, one.reading.marked.get(record.id)):
                text = " ".join(record.body[start:end].split())
                if (other is None or not other[start:end].any()) and 0 < len(text) <= _PHRASE:
                    counts[text.casefold()] += 1
                    written.setdefault(text.casefold(), Counter())[text] += 1
        out.append([(written[key].most_common(1)[0][0], n) for key, n in counts.most_common(MAX_PHRASES)])
    return out


def agree(records: Sequence[Record], shown: Sequence[Shown], units: Mapping[str, Units]) -> list[dict[str, Any]]:
    """A row a unit with every measure of `agreement.MEASURES`, pooled over the records that both cover."""
    first, second = (one.reading for one in shown)
    both = agreement.common(first, second, records)
    rows = []
    for name, cut in units.items():
        total = agreement.count(first, second, both, cut).sum(0).astype(np.float64)
        rows.append({"unit": name, "records": len(both)} | {k: float(v) for k, v in agreement.measures(total).items()})
    return rows


@dataclass(frozen=True)
class _Tables:
    """Labels and sources in the order in which pieces name them."""

    labels: list[str]
    sources: list[str]

    @classmethod
    def of(cls, shown: Sequence[Shown]) -> _Tables:
        spans = [span for one in shown for own in one.spans.values() for span in own]
        labels = sorted({span.label for span in spans}, key=_label_order)
        return cls(labels, sorted({span.source for span in spans}))

    def span(self, span: Span, place: str) -> list[Any]:
        return [self.labels.index(span.label), self.sources.index(span.source), span.weight, place]


def _label_order(label: str) -> tuple[bool, bool, str]:
    return label != "unwanted", label != "general", label


def _counts(records: Sequence[Record], shown: Sequence[Shown], units: Units) -> npt.NDArray[np.int64]:
    """(records, 4) as `agreement.count`, of the first with the second, or one with itself; -1 where one is absent."""
    first, second = shown[0].reading, shown[-1].reading
    out = np.full((len(records), 4), -1, np.int64)
    known = [i for i, record in enumerate(records) if record.id in first.marked and record.id in second.marked]
    out[known] = agreement.count(first, second, [records[i] for i in known], units)
    return out


def _record(
    record: Record, shown: Sequence[Shown], tables: _Tables, counts: npt.NDArray[np.int64], longest: int
) -> Packed:
    fields = ("prompt", record.body_field)
    spans = [[s for s in one.spans.get(record.id, ()) if s.field in fields] for one in shown]
    marked = [_filled(record.body, one.reading.marked.get(record.id)) for one in shown]
    packed: Packed = {
        "id": record.id,
        "subject": record.subject,
        "prompt": _pieces(record.prompt, "prompt", spans, [], longest // 4),
        "body": _pieces(record.body, record.body_field, spans, marked, longest),
        "more": [max(0, len(record.prompt) - longest // 4), max(0, len(record.body) - longest)],
        "spans": [[tables.span(s, f"{s.field} {s.start}–{s.end}") for s in own] for own in spans],
        "midword": any(_cuts_a_word(record, span) for own in spans for span in own),
        "covered": [record.id in one.spans for one in shown],
    }
    return packed | ({"counts": counts.tolist()} if counts[0] >= 0 else {})


def _pieces(
    text: str, field: Field, spans: Sequence[Sequence[Span]], marked: Sequence[Bools], longest: int
) -> list[Any]:
    """Pieces of the text that the same spans cover: the text alone, or [text, span indices by annotation, marked bits].

    Bit k is set where annotation k calls the piece unwanted.
    """
    end = min(len(text), longest)
    here = [[(i, s) for i, s in enumerate(own) if s.field == field and s.start < end] for own in spans]
    edges = {0, end} | {min(place, end) for own in here for _, s in own for place in (s.start, s.end)}
    edges |= {int(i) + 1 for one in marked for i in np.flatnonzero(np.diff(one[:end].astype(np.int8)))}
    out: list[Any] = []
    for start, stop in itertools.pairwise(sorted(edges)):
        cover = [[i for i, s in own if s.start <= start and stop <= s.end] for own in here]
        bits = sum(1 << k for k, one in enumerate(marked) if one[start])
        out.append([text[start:stop], cover, bits] if any(cover) or bits else text[start:stop])
    return out


def _filled(text: str, marked: Bools | None) -> Bools:
    """The marks, with the white space between two marked characters marked too, as a reader sees it."""
    if marked is None:
        return np.zeros(len(text), np.bool_)
    out: Bools = marked.copy()
    for gap in _SPACE.finditer(text):
        start, end = gap.span()
        out[start:end] = start > 0 and end < len(text) and bool(marked[start - 1] and marked[end])
    return out


def _runs(text: str, marked: Bools | None) -> Iterator[tuple[int, int]]:
    """(start, end) of each stretch of marked text, white space between marks included."""
    filled = _filled(text, marked).astype(np.int8)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], filled, [0]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _cuts_a_word(record: Record, span: Span) -> bool:
    """True if the span begins or ends inside a word, in a script that puts spaces between words."""
    text = {"prompt": record.prompt, "answer": record.answer, "text": record.text}[span.field]
    return any(0 < i < len(text) and _spaced(text[i - 1]) and _spaced(text[i]) for i in (span.start, span.end))


def _spaced(character: str) -> bool:
    return character.isalnum() and not _UNSPACED.match(character)
