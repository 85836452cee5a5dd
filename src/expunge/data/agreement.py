"""How far two annotations of the same texts agree: counts of characters, words or tokens, and what follows from them.

White space is no unit: whether a span holds the space between two of its words says nothing about knowledge.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from expunge.data.annotations import attach
from expunge.data.load import load
from expunge.data.records import Annotation, Record, Span
from expunge.errors import DataError
from expunge.recipe import Source

if TYPE_CHECKING:
    from expunge.data.encode import Encoder

Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]
Ranges = Sequence[tuple[int, int]]
Units = Callable[[Record], Ranges]
"""Cuts the body of a record into units: (start, end) character ranges."""
Call = Literal["unwanted", "not-general"]

MEASURES = ("precision", "recall", "f1", "jaccard", "kappa")
IGNORE = -100
"""As core.IGNORE; repeated so that comparing annotations needs no torch."""
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Letters of scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")


@dataclass(frozen=True)
class Reading:
    """Which characters of each record somebody calls unwanted: `marked[record id]` (characters of the body,) bool."""

    name: str
    marked: Mapping[str, Bools]


def records_of(path: str | Path, data: str | Path | None = None) -> list[Record]:
    """The records that an annotation file is about: those of the file `data`, else of the annotation file itself.

    TOFU's annotated files carry their texts; ours do not, and need `data` (DataError says so).
    """
    if data is not None:
        return load(Source(path=str(data)), "forget")
    try:
        return load(Source(path=str(path)), "forget")
    except DataError:
        if not Path(path).is_file():
            raise
        raise DataError(
            f"annotation file '{path}' holds no texts. Say with --data which records it is about."
        ) from None


def reading(
    name: str, records: Iterable[Record], annotations: Iterable[Annotation], call: Call = "unwanted"
) -> Reading:
    """The reading of an annotation file, over those of its records that are in `records`.

    `call='not-general'`: the words that no span labelled 'general' touches, which is how a list
    of general words, such as TIF's masked-LM identifier makes, says what is unwanted. Annotations find their records as
    in `annotations.attach`, with its errors.
    """
    annotations = list(annotations)
    ids = {annotation.record_id for annotation in annotations}
    texts = {annotation.text_hash for annotation in annotations if annotation.text_hash}
    bare = attach([replace(record, spans=()) for record in records], annotations)
    covered = (record for record in bare if record.id in ids or record.text_hash in texts)
    marked = {record.id: mark(record, record.spans, call) for record in covered}
    return Reading(name, marked)


def readings(name: str, records: Sequence[Record], annotations: Sequence[Annotation]) -> list[Reading]:
    """Every reading that an annotation file holds: of its unwanted spans, of its general words, or both.

    A file with spans of neither label is read as 'unwanted': it says that nothing is.
    """
    labels = {span.label for annotation in annotations for span in annotation.spans}
    calls: list[Call] = ["unwanted"] if "unwanted" in labels or "general" not in labels else []
    calls += ["not-general"] if "general" in labels else []
    return [reading(name if len(calls) == 1 else f"{name} ({call})", records, annotations, call) for call in calls]


def gold(records: Iterable[Record]) -> Reading | None:
    """What the records' own gold spans say; None if no record has any."""
    marked = {r.id: mark(r, (s for s in r.spans if s.source == "gold"), "unwanted") for r in records}
    return Reading("gold", marked) if any(bool(own.any()) for own in marked.values()) else None


def mark(record: Record, spans: Iterable[Span], call: Call = "unwanted") -> Bools:
    """(characters of the record's body,) bool: what these spans call unwanted. Spans of other fields do not count."""
    body = record.body
    label = "unwanted" if call == "unwanted" else "general"
    marked = np.zeros(len(body), np.bool_)
    for span in spans:
        if span.field == record.body_field and span.label == label:
            if not 0 <= span.start < span.end <= len(body):
                raise DataError(
                    f"record '{record.id}': span {span.start}:{span.end} is outside of its {span.field}, "
                    f"which has {len(body)} characters."
                )
            marked[span.start : span.end] = True
    if call == "unwanted":
        return marked
    rest = np.zeros(len(body), np.bool_)
    for start, end in words(record):
        rest[start:end] = not marked[start:end].any()
    return rest


def characters(record: Record) -> Ranges:
    """Every character that is not white space."""
    return [(i, i + 1) for i, character in enumerate(record.body) if not character.isspace()]


def words(record: Record) -> Ranges:
    """What stands between white space; in scripts without spaces between words, each character.

    >>> words(Record("r", answer="in Kuwait City. 你好"))
    [(0, 2), (3, 9), (10, 15), (16, 17), (17, 18)]
    """
    return [match.span() for match in _WORD.finditer(record.body)]


def tokens(encoder: Encoder) -> Units:
    """A cut into the answer tokens that training scores, leading white space stripped; pure white space is no unit.

    What `max_length` cuts off is no unit either, nor is the end token: shares are those of the training tensors.
    """

    def cut(record: Record) -> Ranges:
        item = encoder.encode(record)
        ranges = []
        for start, end in item.offsets[item.targets != IGNORE].tolist():
            piece = record.body[start:end] if start >= 0 else ""
            if piece.strip():
                ranges.append((end - len(piece.lstrip()), end))
        return ranges

    return cut


def common(first: Reading, second: Reading, records: Iterable[Record]) -> list[Record]:
    """The records that both readings cover, in the order of `records`; DataError if there is none."""
    found = [r for r in records if r.id in first.marked and r.id in second.marked]
    if not found:
        raise DataError(
            f"annotations '{first.name}' ({len(first.marked)} records) and '{second.name}' ({len(second.marked)}) have "
            "no record in common. Compare annotations of the same data."
        )
    return found


def count(first: Reading, second: Reading, records: Sequence[Record], units: Units) -> Counts:
    """(records, 4) units that both call unwanted, only the first, only the second, neither. A unit is marked if any
    character of it is.
    """
    rows = []
    for record in records:
        ranges = np.asarray(units(record), np.int64).reshape(-1, 2)
        a, b = (touched(r.marked[record.id], ranges) for r in (first, second))
        rows.append([(a & b).sum(), (a & ~b).sum(), (~a & b).sum(), (~a & ~b).sum()])
    return np.asarray(rows, np.int64).reshape(-1, 4)


def measures(counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Each of `MEASURES` from counts (..., 4) as `count` returns them; the second annotation is the one to be met.

    Two annotations that both mark nothing agree: F1 and Jaccard are 1. Precision is NaN where the first marks nothing,
    recall where the second does, Cohen's kappa where both mark everything or both nothing.

    >>> {name: round(float(value), 3) for name, value in measures(np.array([2.0, 1.0, 1.0, 4.0])).items()}
    {'precision': 0.667, 'recall': 0.667, 'f1': 0.667, 'jaccard': 0.5, 'kappa': 0.467}
    """
    both, first, second, neither = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    total = both + first + second + neither
    observed = _divide(both + neither, total)
    chance = _divide((both + first) * (both + second) + (neither + first) * (neither + second), total**2)
    return {
        "precision": _divide(both, both + first),
        "recall": _divide(both, both + second),
        "f1": _divide(2 * both, 2 * both + first + second, empty=1.0),
        "jaccard": _divide(both, both + first + second, empty=1.0),
        "kappa": _divide(observed - chance, 1 - chance),
    }


def touched(marked: Bools, ranges: NDArray[np.int64]) -> Bools:
    """(units,) bool: which of the ranges (units, 2) hold a marked character."""
    sums = np.concatenate([[0], np.cumsum(marked)])
    return np.asarray(sums[ranges[:, 1]] > sums[ranges[:, 0]])


def _divide(upper: NDArray[np.float64], lower: NDArray[np.float64], empty: float = np.nan) -> NDArray[np.float64]:
    out: NDArray[np.float64] = np.full(np.shape(upper), empty)
    np.divide(upper, lower, out=out, where=np.asarray(lower) > 1e-12)
    return out
