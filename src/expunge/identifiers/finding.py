"""What an identifier is, what it says of a record, and what asking it costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

from expunge.data.records import Record, Span
from expunge.errors import ExpungeError

UNWANTED = "unwanted"
GENERAL = "general"


class IdentifierError(ExpungeError):
    """An identifier cannot be used, was not allowed to go on, or gave nothing usable; what it did say is kept."""


class RefusedError(IdentifierError):
    """A server answered that it does not do what it was asked for."""


@dataclass(frozen=True)
class Finding:
    """The spans of one record, and what was counted on the way.

    `counts` are added up over records (phrases, not found, requests, ...). `missing` are phrases that were named but
    do not occur in the text: reported, never guessed.
    """

    record: Record
    spans: tuple[Span, ...]
    counts: Mapping[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """What a paid service would be asked: shown, and to be agreed to, before anything is sent.

    `tokens_in` and `tokens_out` are rough (from the length of the texts); `cost` is None where no price was given.
    """

    service: str
    requests: int
    cached: int
    tokens_in: int
    tokens_out: int
    cost: float | None = None

    def __str__(self) -> str:
        price = "" if self.cost is None else f", about {self.cost:.2f} at the given price"
        cached = f" ({self.cached} more are cached)" if self.cached else ""
        tokens = f"about {self.tokens_in:,} tokens in and {self.tokens_out:,} out"
        return f"{self.requests:,} requests to {self.service}{cached}: {tokens}{price}"


@runtime_checkable
class Identifier(Protocol):
    """Says which characters of a record carry the unwanted information; a frozen dataclass, registered by name.

    `facts` holds all that decides what it says (settings, versions, hashes of models and files) and nothing else:
    two identifiers with equal facts may share annotations. `reads_spans` is True for one that reads the record's own
    spans, not only its text. `estimate` is None where nothing is paid and nothing leaves the machine. `identify`
    yields one finding a record, in any order; what it yielded stays if it fails later.
    """

    reads_spans: ClassVar[bool]

    def facts(self) -> Mapping[str, object]: ...
    def estimate(self, records: Sequence[Record]) -> Estimate | None: ...
    def identify(self, records: Sequence[Record]) -> Iterator[Finding]: ...


def fingerprint(identifier: Identifier) -> str:
    """SHA-256 (16 hex digits) of the identifier's facts."""
    facts = json.dumps(identifier.facts(), sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def spans_of(record: Record, ranges: Sequence[tuple[int, int]], source: str, label: str = UNWANTED) -> tuple[Span, ...]:
    """Spans of the record's answer (or text) at these character ranges, in order, each once."""
    where = record.body_field
    return tuple(Span(where, start, end, label=label, source=source) for start, end in sorted(set(ranges)))
