"""Long documents as records that fit into a model's context."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from expunge.data.encode import Encoder
from expunge.data.offsets import Tokens
from expunge.data.records import Record, Span
from expunge.errors import DataError

_TRIES = 32
_WINDOW = 16


def chunk_all(records: Iterable[Record], encoder: Encoder) -> list[Record]:
    """Every record, those of raw text that are longer than the encoder's `max_length` as their pieces."""
    return [piece for record in records for piece in chunk(record, encoder)]


def chunk(record: Record, encoder: Encoder) -> list[Record]:
    """The record alone if it fits, or is no raw text; else consecutive pieces that do.

    A piece is called ID#0000, names its document and the character it begins at there, and has the spans that fall
    into it. Cutting in the wrong place changes tokens, so the cut is made at one of the last 32 borders of words where
    the pieces have the very tokens that the document has, if there is one. Only white space at a cut may be lost. Only
    the last piece is followed by an end-of-text token, and no piece holds text of two documents.
    """
    if not record.text:
        return [record]
    tokens = encoder.whole(record)
    if len(tokens) <= encoder.max_length:
        return [record]
    body = encoder.tokens(record.text)
    capacity = encoder.max_length - (len(tokens) - len(body))
    if capacity < 1:
        raise DataError(
            f"record '{record.id}': max_length {encoder.max_length} leaves no room beside the special tokens. Raise it."
        )
    pieces: list[Record] = []
    cut = _Cut(0, 0, 0)
    while cut.token < len(body):
        start, cut = cut.start, _next_cut(body, cut, capacity, encoder)
        if record.text[start : cut.end].strip():
            pieces.append(_piece(record, start, cut.end, len(pieces), last=cut.token == len(body)))
    return pieces


@dataclass(frozen=True)
class _Cut:
    """A piece ends before character `end`, and the next begins at character `start`, with the token `token`."""

    token: int
    end: int
    start: int


def _next_cut(body: Tokens, last: _Cut, capacity: int, encoder: Encoder) -> _Cut:
    """Where the piece that begins at `last` should end: at the end of the text if the rest fits."""
    text, first = body.text, last.token
    if len(body) - first <= capacity and len(encoder.tokens(text[last.start :])) <= capacity:
        return _Cut(len(body), len(text), len(text))
    latest = min(first + capacity, len(body) - 1)
    clean = [i for i in range(latest, first, -1) if last.start < body.end[i - 1] <= body.start[i]]
    borders = [i for i in clean if text[body.start[i]].isspace() or text[body.start[i] - 1].isspace()]
    for i in borders[:_TRIES]:
        cut = _exact_cut(body, last, i, capacity, encoder)
        if cut is not None:
            return cut
    for i in (*borders, *clean):
        end = int(body.end[i - 1])
        if len(encoder.tokens(text[last.start : end])) <= capacity:
            return _Cut(i, end, int(body.start[i]))
    return _Cut(first + 1, int(body.end[first]), int(body.end[first]))


def _exact_cut(body: Tokens, last: _Cut, token: int, capacity: int, encoder: Encoder) -> _Cut | None:
    """The cut in front of `token` that changes no token on either side of it; None if every one does."""
    end, start = int(body.end[token - 1]), int(body.start[token])
    ids = encoder.tokens(body.text[last.start : end]).ids
    before = min(_WINDOW, token - last.token)
    if len(ids) > capacity or ids[-before:].tolist() != body.ids[token - before : token].tolist():
        return None
    stop = next((i for i in range(token + 1, len(body)) if body.text[body.start[i]].isspace()), len(body))
    stop = min(stop, token + _WINDOW)
    wanted = body.ids[token:stop].tolist()
    for begin in dict.fromkeys((end, start, start + 1)):
        if (
            body.text[end:begin].strip() == ""
            and encoder.tokens(body.text[begin : body.end[stop - 1]]).ids.tolist() == wanted
        ):
            return _Cut(token, end, begin)
    return None


def _piece(record: Record, start: int, end: int, number: int, *, last: bool) -> Record:
    document = record.document or record.id
    return replace(
        record,
        id=f"{record.id}#{number:04d}",
        text=record.text[start:end],
        spans=tuple(_inside(record.spans, start, end)),
        subject=record.subject or document,
        document=document,
        offset=record.offset + start,
        continues=record.continues or not last,
    )


def _inside(spans: Iterable[Span], start: int, end: int) -> Iterable[Span]:
    """The parts of the spans that fall into characters `start:end`, counted from `start`."""
    for span in spans:
        low, high = max(span.start, start), min(span.end, end)
        if low < high:
            yield replace(span, start=low - start, end=high - start)
