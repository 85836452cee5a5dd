"""Whether a text gives away what it must not: the words of records, or a span that was marked in them."""

from __future__ import annotations

from collections.abc import Iterable

from expunge.data.records import Record
from expunge.report.words import Guard

_SHORTEST = 4


def leaks(text: str, records: Iterable[Record]) -> list[str]:
    """Ids of the records that `text` gives away: four words in a row, a whole answer, or a marked span.

    Answers and spans of fewer than four characters are not looked for by themselves: '1956' is, 'Ada' is not.

    >>> record = Record("r", "Who wrote it?", "It was written by Ada Sten.")
    >>> leaks("entry 3, hash 9f3a", [record]), leaks("note: WAS WRITTEN BY ADA", [record])
    ([], ['r'])
    """
    folded = text.casefold()
    return [record.id for record in records if Guard(_texts(record)).finds(text) or _names(record, folded)]


def _texts(record: Record) -> Iterable[str]:
    return (record.prompt, record.body, record.paraphrase, *(content for _, content in record.history))


def _names(record: Record, folded: str) -> bool:
    parts = {"prompt": record.prompt, "answer": record.answer, "text": record.text}
    marked = (parts[span.field][span.start : span.end] for span in record.spans if span.label == "unwanted")
    short = (part.strip().casefold() for part in (record.answer, *marked))
    return any(len(part) >= _SHORTEST and part in folded for part in short)
