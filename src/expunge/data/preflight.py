"""What is wrong with the data, found before a run and named, instead of wrong numbers after it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from expunge.data import drift, overlap
from expunge.data.encode import Encoded, Encoder
from expunge.data.records import Record
from expunge.errors import DataError

_EXAMPLES = 5
_NEAR = 0.8
_ENOUGH = 20
"""Subjects in each set from which their drift is judged."""
_LONGER = 1.5
"""Medians of length that differ by more than this factor are told."""


@dataclass(frozen=True)
class Finding:
    """One kind of defect: how many records have it, the ids of a few, and what it means. Errors stop a run."""

    name: str
    severity: Literal["error", "warning"]
    count: int
    examples: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        ids = (
            f" ({', '.join(self.examples)}{', ...' if self.count > len(self.examples) else ''})"
            if self.examples
            else ""
        )
        return f"{self.name}: {self.message}{ids}"


def check(
    forget: Sequence[Record],
    retain: Sequence[Record],
    holdout: Sequence[Record],
    encoder: Encoder,
    probes: Sequence[Record] = (),
) -> list[Finding]:
    """The defects of a run's data, errors first; an empty list for clean data.

    Errors: an empty forget set; a record in forget and retain; answers that are all cut off. Warnings: everything else
    that makes numbers mean something other than they seem to. A defect is counted under one name only. `probes` are
    records that the model is asked about and never trained on.
    """
    splits = {"forget": forget, "retain": retain, "holdout": holdout}
    encoded = {name: [encoder.encode(record) for record in records] for name, records in splits.items()}
    found = [
        *_empty(forget),
        *_overlaps(forget, retain, holdout),
        *_near(forget, retain, holdout, probes),
        *_drifted(forget, holdout),
        *_repeated(splits),
        *_lengths(splits, encoded, encoder),
        *_spans(forget, encoded["forget"]),
        *_template(splits, encoded, encoder),
    ]
    return sorted(found, key=lambda finding: finding.severity)


def require(findings: Sequence[Finding]) -> None:
    """DataError with all errors among the findings; nothing if there is none."""
    errors = [str(finding) for finding in findings if finding.severity == "error"]
    if errors:
        raise DataError("\n  ".join(["the data cannot be used:", *errors]))


def _finding(name: str, severity: Literal["error", "warning"], ids: Sequence[str], message: str) -> Iterator[Finding]:
    """The finding, if any record has it."""
    if ids:
        yield Finding(name, severity, len(ids), tuple(ids[:_EXAMPLES]), message)


def _empty(forget: Sequence[Record]) -> Iterator[Finding]:
    if not forget:
        yield Finding("empty-forget", "error", 0, (), "there is no record to forget. Set data.forget.")


def _overlaps(forget: Sequence[Record], retain: Sequence[Record], holdout: Sequence[Record]) -> Iterator[Finding]:
    keys = {name: {overlap.key(r) for r in records} for name, records in (("forget", forget), ("retain", retain))}
    both = [record.id for record in forget if overlap.key(record) in keys["retain"]]
    yield from _finding(
        "forget-in-retain",
        "error",
        both,
        f"{len(both)} records are to be forgotten and to be kept. Take them out of the retain set",
    )
    seen = [record.id for record in holdout if overlap.key(record) in keys["forget"] | keys["retain"]]
    yield from _finding(
        "holdout-seen",
        "warning",
        seen,
        f"{len(seen)} holdout records are in the forget or retain set: membership tests against them mean nothing",
    )


def _near(
    forget: Sequence[Record], retain: Sequence[Record], holdout: Sequence[Record], probes: Sequence[Record]
) -> Iterator[Finding]:
    """Records of one set that are nearly records of another; equal ones are found by their keys."""
    again = "forget records share {} of their text with a retain record, which teaches them again"
    seen = "holdout records share {} of their text with a record that is trained on: the model has seen them"
    taught = "probes share {} of their text with a retain record: the model is taught their answers"
    for name, left, right, meaning in (
        ("near-duplicate", forget, retain, again),
        ("holdout-near", holdout, [*forget, *retain], seen),
        ("probe-near", probes, retain, taught),
    ):
        ids = list(dict.fromkeys(one.id for one, _, _ in overlap.near_duplicates(left, right, _NEAR)))
        yield from _finding(name, "warning", ids, f"{len(ids)} " + meaning.format(f"{_NEAR:.0%}"))


def _drifted(forget: Sequence[Record], holdout: Sequence[Record]) -> Iterator[Finding]:
    """Forget and holdout records that differ in length or words, which membership tests would take for memory."""
    sides = [forget, holdout]
    subjects = [[record.subject for record in side] for side in sides]
    if min(map(_units, subjects)) < _ENOUGH:
        return
    middle = [float(np.median([len(record.body) for record in side])) for side in sides]
    if max(middle) > _LONGER * min(middle):
        message = (
            f"holdout answers have {middle[1]:.0f} characters and forget answers {middle[0]:.0f} (medians), which "
            "membership tests notice. Take holdout records of like length"
        )
        yield Finding("length-drift", "warning", len(holdout), (), message)
    own, other = drift.separation([r.body for r in forget], [r.body for r in holdout], *subjects)
    area = float(((own[:, None] > other) + 0.5 * (own[:, None] == other)).mean())
    error = math.sqrt(area * (1 - area) / min(map(_units, subjects)))
    if area - 1.96 * error > drift.LEVEL:
        message = f"words alone tell forget from holdout records in {area:.0%} of pairs: membership tests mean nothing"
        yield Finding("style-drift", "warning", len(holdout), (), message)


def _units(subjects: Sequence[str]) -> int:
    """How many subjects there are; a record without one is its own."""
    return len({name for name in subjects if name}) + sum(not name for name in subjects)


def _repeated(splits: Mapping[str, Sequence[Record]]) -> Iterator[Finding]:
    ids = []
    for records in splits.values():
        seen: set[str] = set()
        for record in records:
            key = overlap.key(record)
            ids += [record.id] if key in seen else []
            seen.add(key)
    yield from _finding(
        "repeated", "warning", ids, f"{len(ids)} records stand in the same set more than once, and count so often"
    )


def _lengths(
    splits: Mapping[str, Sequence[Record]], encoded: Mapping[str, Sequence[Encoded]], encoder: Encoder
) -> Iterator[Finding]:
    limit = f"max_length {encoder.max_length}"
    gone = {name: [item.id for item in items if item.truncated and not item.scored] for name, items in encoded.items()}
    total = len(splits["forget"])
    if total and len(gone["forget"]) == total:
        message = f"every answer of the forget set lies beyond {limit}. Raise data.max_length"
        yield from _finding("all-cut-off", "error", gone["forget"], message)
        gone["forget"] = []
    lost = [id for ids in gone.values() for id in ids]
    message = f"the answers of {len(lost)} records lie wholly beyond {limit} and are left out. Raise data.max_length"
    yield from _finding("cut-off", "warning", lost, message)
    every = [item for items in encoded.values() for item in items]
    part = [item.id for item in every if item.truncated and item.scored]
    message = f"{len(part)} of {len(every)} records are longer than {limit} and lose their ends"
    yield from _finding("truncated", "warning", part, message)
    bare = [item.id for item in every if not item.truncated and not item.scored]
    yield from _finding("nothing-scored", "warning", bare, f"{len(bare)} records have no token that is scored")


def _spans(forget: Sequence[Record], encoded: Sequence[Encoded]) -> Iterator[Finding]:
    """Records that a method which reads spans would leave alone."""
    marked = [any(s.label == "unwanted" for s in record.spans) for record in forget]
    if not any(marked):
        return
    without = [record.id for record, yes in zip(forget, marked, strict=True) if not yes]
    message = f"{len(without)} of {len(forget)} forget records have no unwanted span: scorers of spans leave them alone"
    yield from _finding("no-span", "warning", without, message)
    missed = [
        item.id
        for item, yes in zip(encoded, marked, strict=True)
        if yes and item.scored and not item.truncated and not _selects(item)
    ]
    message = f"the spans of {len(missed)} forget records select no token (white space, the prompt, or boundary=all)"
    yield from _finding("span-without-token", "warning", missed, message)


def _selects(item: Encoded) -> bool:
    """True if an unwanted or gold span selects a token of the record."""
    return any(item.static[name].any() for name in ("given", "gold") if name in item.static)


def _template(
    splits: Mapping[str, Sequence[Record]], encoded: Mapping[str, Sequence[Encoded]], encoder: Encoder
) -> Iterator[Finding]:
    records = [record for items in splits.values() for record in items]
    asked = [record.id for record in records if not record.text]
    chat = str(encoder.tokenizer.chat_template or "")
    if chat and asked and not encoder.uses_chat_template:
        message = "the tokenizer has a chat template, but data.template is a text: the model may never have read it"
        yield Finding("template-mismatch", "warning", len(asked), (), message)
    dated = encoder.uses_chat_template and asked and encoder.date_string is None
    if dated and "strftime_now" in chat:
        message = "the chat template prints today's date: prompts change overnight. Set data.date_string"
        yield Finding("template-date", "warning", len(asked), (), message)
    shared = [item.id for items in encoded.values() for item in items if item.shares_token]
    message = f"{len(shared)} answers share a token with the template around them. Put a space or a special token there"
    yield from _finding("shared-token", "warning", shared, message)
    special = sorted(map(str, encoder.tokenizer.all_special_tokens), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, special))) if special else None
    hits = [r.id for r in records if pattern and any(map(pattern.search, (r.prompt, r.answer, r.text)))]
    message = f"{len(hits)} records contain special tokens of the tokenizer as text, which are read as such"
    yield from _finding("special-token", "warning", hits, message)
