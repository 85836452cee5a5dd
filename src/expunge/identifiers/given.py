"""Spans that the user gives: phrases, regular expressions, names, gold spans that came with the data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import regex

from expunge.data.records import Record
from expunge.errors import DataError, MethodError
from expunge.identifiers.finding import Estimate, Finding, IdentifierError, spans_of
from expunge.identifiers.locate import Range, locate
from expunge.registry import NonNegative, method

_PARTICLES = frozenset(
    ("al", "bin", "ben", "ibn", "abu", "da", "de", "del", "della", "den", "der", "di", "dos", "du", "el", "la", "le",
     "van", "von", "y")
)  # fmt: skip


@method("identifier", "phrases")
@dataclass(frozen=True)
class Phrases:
    """Every occurrence of the given phrases: one a line in `file`, or `text` with | between them.

    A phrase is found as written, else with other Unicode forms, case, quotes, dashes and white space; never inside a
    word unless `whole_words=False`. Lines that are empty or begin with # are left out.

    >>> record = Record("r", "Who?", "He is Basil Al-Kuwaiti of Kuwait.")
    >>> [span.start for span in next(Phrases(text="kuwait").identify([record])).spans]
    [26]
    """

    reads_spans: ClassVar[bool] = False
    file: str = ""
    text: str = ""
    ignore_case: bool = True
    whole_words: bool = True

    def facts(self) -> Mapping[str, object]:
        hashed = _lines_hash(self._phrases())
        return {"name": "phrases", "phrases": hashed, "case": self.ignore_case, "words": self.whole_words}

    def estimate(self, records: Sequence[Record]) -> Estimate | None:
        return None

    def identify(self, records: Sequence[Record]) -> Iterator[Finding]:
        phrases = self._phrases()
        for record in records:
            hits = _all_hits(phrases, record.body, self.ignore_case, self.whole_words)
            yield Finding(record, spans_of(record, hits, "phrases"))

    def _phrases(self) -> tuple[str, ...]:
        return _given("phrases", self.file, self.text)


@method("identifier", "names")
@dataclass(frozen=True)
class Names:
    """Every occurrence of the given names, and, with `parts`, of each part of them: first name, surname.

    `file` holds one name a line; `text` holds names with | between them. Parts shorter than `shortest` letters and
    particles (de, van, bin, ...) are not searched for by themselves. Case counts: names are written with capitals.

    >>> record = Record("r", "", "Basil Al-Kuwaiti's father knew that basil is a herb; Basil did not.")
    >>> finding = next(Names(text="Basil Al-Kuwaiti").identify([record]))
    >>> [record.answer[span.start : span.end] for span in finding.spans]
    ['Basil Al-Kuwaiti', 'Basil']
    """

    reads_spans: ClassVar[bool] = False
    file: str = ""
    text: str = ""
    parts: bool = True
    shortest: int = 3
    ignore_case: bool = False

    def facts(self) -> Mapping[str, object]:
        hashed = _lines_hash(self._names())
        return {"name": "names", "names": hashed, "parts": self.parts, "shortest": self.shortest,
                "case": self.ignore_case}  # fmt: skip

    def estimate(self, records: Sequence[Record]) -> Estimate | None:
        return None

    def identify(self, records: Sequence[Record]) -> Iterator[Finding]:
        names = self._names()
        wanted = list(dict.fromkeys([*names, *(part for name in names for part in self._parts(name))]))
        for record in records:
            hits = _all_hits(wanted, record.body, self.ignore_case, whole_words=True)
            yield Finding(record, spans_of(record, _outermost(hits), "names"))

    def _names(self) -> tuple[str, ...]:
        return _given("names", self.file, self.text)

    def _parts(self, name: str) -> Iterator[str]:
        for part in name.split() if self.parts else ():
            bare = part.strip(".,;:'\"()")
            if len(bare) >= self.shortest and bare.casefold() not in _PARTICLES:
                yield bare


@method("identifier", "regex")
@dataclass(frozen=True)
class Regex:
    """Every match of regular expressions: `pattern`, or one a line in `file`.

    A group named `unwanted` narrows a match to that part. Patterns are those of the `regex` package. A search that
    takes longer than `timeout` seconds on one record (a pattern that backtracks without end) is an error that names
    the pattern and the record.

    >>> record = Record("r", "", "Born on 8 September 1956, died 12/03/2001.")
    >>> [(span.start, span.end) for span in next(Regex(pattern=r"[0-9]{4}").identify([record])).spans]
    [(20, 24), (37, 41)]
    """

    reads_spans: ClassVar[bool] = False
    pattern: str = ""
    file: str = ""
    ignore_case: bool = False
    timeout: NonNegative = 2.0

    def facts(self) -> Mapping[str, object]:
        return {"name": "regex", "patterns": _lines_hash(self._patterns()), "case": self.ignore_case,
                "engine": regex.__version__}  # fmt: skip

    def estimate(self, records: Sequence[Record]) -> Estimate | None:
        return None

    def identify(self, records: Sequence[Record]) -> Iterator[Finding]:
        compiled = [(pattern, _compiled(pattern, self.ignore_case)) for pattern in self._patterns()]
        for record in records:
            hits = [hit for text, pattern in compiled for hit in self._matches(text, pattern, record)]
            yield Finding(record, spans_of(record, hits, "regex"))

    def _patterns(self) -> tuple[str, ...]:
        if self.pattern and self.file:
            raise MethodError("identifier 'regex' has both a pattern and a file. Give one of them.")
        return (self.pattern,) if self.pattern else _given("regex", self.file, "", comments=False)

    def _matches(self, text: str, pattern: regex.Pattern[str], record: Record) -> Iterator[Range]:
        group: int | str = "unwanted" if "unwanted" in pattern.groupindex else 0
        try:
            for match in pattern.finditer(record.body, timeout=self.timeout or None):
                start, end = match.span(group)
                if 0 <= start < end:
                    yield start, end
        except TimeoutError:
            raise IdentifierError(
                f"pattern '{text}' took longer than {self.timeout:g} s on record '{record.id}'. "
                "Write it without nested repetition, or raise timeout."
            ) from None


@method("identifier", "gold")
@dataclass(frozen=True)
class Gold:
    """The spans that came with the data: those whose source is `source`, or all of them if it is 'any'.

    >>> from expunge.data.records import Span
    >>> record = Record("r", "", "He is a florist.", spans=(Span("answer", 8, 15, source="gold"),))
    >>> len(next(Gold().identify([record])).spans)
    1
    """

    reads_spans: ClassVar[bool] = True
    source: str = "gold"
    label: Literal["unwanted", "general", "any"] = "any"

    def facts(self) -> Mapping[str, object]:
        return {"name": "gold", "source": self.source, "label": self.label}

    def estimate(self, records: Sequence[Record]) -> Estimate | None:
        return None

    def identify(self, records: Sequence[Record]) -> Iterator[Finding]:
        for record in records:
            kept = (span for span in record.spans if self.source in (span.source, "any"))
            yield Finding(record, tuple(span for span in kept if self.label in (span.label, "any")))


def _given(name: str, file: str, text: str, comments: bool = True) -> tuple[str, ...]:
    """The lines that the user gave, each once; an error where there are none, or two sources of them."""
    if bool(file) == bool(text):
        what = "both file and text" if file else "neither a file nor a text"
        raise MethodError(f"identifier '{name}' has {what}. Give one: {name}:file=PATH.")
    lines = _read(file) if file else text.split("|")
    kept = dict.fromkeys(line.strip() if comments else line for line in lines if line.strip())
    given = tuple(line for line in kept if not (comments and line.startswith("#")))
    if not given:
        raise DataError(f"identifier '{name}': '{file or text}' holds nothing to search for. Write one a line.")
    return given


def _read(file: str) -> list[str]:
    try:
        return Path(file).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"file '{file}' cannot be read as UTF-8 text: {error}. Check the path.") from None


def _lines_hash(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _all_hits(phrases: Iterable[str], text: str, ignore_case: bool, whole_words: bool) -> list[Range]:
    return [hit for phrase in phrases for hit in locate(phrase, text, ignore_case=ignore_case, whole_words=whole_words)]


def _outermost(hits: Sequence[Range]) -> list[Range]:
    """The ranges that lie in no other one: 'Basil' inside 'Basil Al-Kuwaiti' goes."""
    unique = set(hits)
    return [a for a in unique if not any(b != a and b[0] <= a[0] and a[1] <= b[1] for b in unique)]


def _compiled(pattern: str, ignore_case: bool) -> regex.Pattern[str]:
    try:
        return regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
    except regex.error as error:
        raise MethodError(f"identifier 'regex': '{pattern}' is no regular expression: {error}") from None
