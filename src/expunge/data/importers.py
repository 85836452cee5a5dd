"""Spans from the formats that others write: TIF, TOFU annotations, token masks, Presidio, spaCy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.data.columns import check_span, read_span
from expunge.data.records import Annotation, Record, Span
from expunge.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from expunge.data.encode import Encoder


def from_tofu(values: Mapping[str, Any]) -> Annotation:
    """One line of TOFU's *_annotated.jsonl: `target_spans` are unwanted, `mlm_common_spans` general.

    The sources are tif-llm and tif-mlm. The annotation has no id: it belongs to the record with this text.
    """
    record = Record("", _string(values, "question"), _string(values, "answer"))
    spans = []
    for column, label, source in (("target_spans", "unwanted", "tif-llm"), ("mlm_common_spans", "general", "tif-mlm")):
        for pair in values.get(column) or ():
            found = read_span(pair, "answer")
            spans.append(Span("answer", found.start, found.end, label=label, source=source))
    for span in spans:
        check_span(span, record)
    return Annotation("", record.text_hash, tuple(spans))


def from_words(
    record: Record, found: Iterable[Mapping[str, Any]], *, label: str = "unwanted", source: str = "tif"
) -> tuple[Span, ...]:
    """Spans from TIF's lists of {word, start, end}: characters of the answer (or text) of the record.

    DataError if the characters are not the word, so that a list made for another text is not taken.
    """
    spans = []
    for item in found:
        span = read_span(dict(item), record.body_field)
        span = Span(span.field, span.start, span.end, span.weight, label, source)
        check_span(span, record)
        written, word = record.body[span.start : span.end], item.get("word")
        if word is not None and written.casefold() != str(word).casefold():
            raise DataError(
                f"record '{record.id}': characters {span.start}:{span.end} are {written!r}, not the word {word!r}. "
                "The list was made for another text."
            )
        spans.append(span)
    return tuple(spans)


def from_presidio(
    record: Record, results: Iterable[Mapping[str, Any]], *, source: str = "presidio", keep_type: bool = False
) -> tuple[Span, ...]:
    """Spans from Presidio's results ({entity_type, start, end, score}) on the answer (or text) of the record.

    The score is the weight. The label is 'unwanted', or with `keep_type` the entity type.
    """
    spans = []
    for item in results:
        span = read_span({**item, "weight": item.get("score")}, record.body_field)
        label = str(item.get("entity_type")) if keep_type else "unwanted"
        spans.append(Span(span.field, span.start, span.end, span.weight, label, source))
    for span in spans:
        check_span(span, record)
    return tuple(spans)


def from_token_mask(
    record: Record,
    mask: Sequence[float],
    encoder: Encoder,
    *,
    token_ids: Sequence[int] | None = None,
    label: str = "unwanted",
    source: str = "token-mask",
) -> tuple[Span, ...]:
    """Spans from a number for each token of the answer (or text), as this encoder's tokenizer cuts it.

    `mask` is as long as the answer's tokens alone, or as the whole encoded record (then the scored tokens count; an
    end token has no characters). Neighbours of equal weight become one span; 0 is no span. `token_ids`, if given, must
    be the ids that the mask was made for: DataError if they are others, or if the length fits neither.
    """
    encoded = encoder.encode(record)
    on = encoded.targets != -100
    offsets = encoded.offsets[on]
    ids = encoded.targets[on].tolist()
    answer = [i for i, (start, _) in enumerate(offsets.tolist()) if start >= 0]
    if len(mask) == len(encoded.input_ids):
        weights = [float(mask[t + 1]) for t in on.nonzero()[0].tolist()]
        mine, theirs = encoded.input_ids.tolist(), token_ids
    elif len(mask) in (len(answer), len(ids)):
        weights = [float(x) for x in mask] + [0.0] * (len(ids) - len(mask))
        mine, theirs = ids[: len(mask)], token_ids
    else:
        raise DataError(
            f"record '{record.id}': the mask has {len(mask)} numbers, but this tokenizer makes {len(answer)} tokens of "
            f"the answer, {len(encoded.input_ids)} of the whole. Give the tokenizer and template that the mask is for."
        )
    if theirs is not None and list(theirs) != mine:
        raise DataError(f"record '{record.id}': the token ids are not those of this tokenizer and template.")
    pieces = [(int(offsets[i][0]), int(offsets[i][1]), weights[i]) for i in answer if weights[i] > 0]
    return tuple(Span(record.body_field, *piece, label, source) for piece in _joined(record.body, pieces))


def _joined(text: str, pieces: Iterable[tuple[int, int, float]]) -> Iterator[tuple[int, int, float]]:
    """Ranges without white space at their ends; those that touch, or have only spaces between them, are one."""
    last: tuple[int, int, float] | None = None
    for start, end, weight in pieces:
        piece = text[start:end]
        start, end = start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
        if start >= end:
            continue
        if last is not None and last[2] == weight and not text[last[1] : start].strip():
            last = (last[0], max(end, last[1]), weight)
            continue
        if last is not None:
            yield last
        last = (start, end, weight)
    if last is not None:
        yield last


def from_docbin(
    records: Sequence[Record], path: str | Path, *, labels: Sequence[str] | None = None, source: str = "spacy"
) -> list[Annotation]:
    """Annotations from the entities of a spaCy DocBin, a document a record, in the same order.

    `labels` keeps only entities so labelled; all become 'unwanted'. DataError if a document is not the record's text.
    """
    try:
        import spacy
        from spacy.tokens import DocBin
    except ImportError:
        raise MissingExtraError("reading a spaCy DocBin", "spacy") from None
    if not Path(path).is_file():
        raise DataError(f"there is no file {path}. Name the .spacy file that a DocBin was saved to.")
    try:
        documents = list(DocBin().from_disk(path).get_docs(spacy.blank("xx").vocab))
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is no DocBin: {str(error).splitlines()[0][:200]}") from None
    if len(documents) != len(records):
        raise DataError(f"{path} has {len(documents)} documents, but there are {len(records)} records.")
    out = []
    for record, document in zip(records, documents, strict=True):
        if document.text != record.body:
            raise DataError(f"record '{record.id}': the document in {path} has another text: {document.text[:60]!r}.")
        spans = tuple(
            Span(record.body_field, entity.start_char, entity.end_char, source=source)
            for entity in document.ents
            if labels is None or entity.label_ in labels
        )
        out.append(Annotation(record.id, record.text_hash, spans))
    return out


def from_key_text(
    record: Record, key_text: str, *, label: str = "unwanted", source: str = "satimp"
) -> tuple[Span, ...]:
    """Spans of the key words that a text names run together, without spaces: TOFU's `key_text`, from SatImp.

    The key words are taken to be words of prompt and answer in their order; among all ways to find them, the one that
    covers most of the key text, and of those the one that finds words latest (so in the answer rather than the prompt).
    Punctuation around a word, or its possessive 's, may be missing in the key text. A single letter is no key word.

    Source: SatImp (arXiv 2505.11953).
    Differs: there a token is a key if its text is anywhere in the key text, so that `in` is one beside `Kinshasa`.

    >>> record = Record("r", "Who is from Kuwait City?", "It is Basil, who is from there.")
    >>> [record.answer[s.start : s.end] for s in from_key_text(record, "KuwaitCityBasil")]
    ['Basil']
    """
    found: list[tuple[tuple[int, int] | None, str]]
    found = [(None, record.prompt[s:e]) for s, e in words(record.prompt)]
    found += [((s, e), record.body[s:e]) for s, e in words(record.body)]
    pieces = [(place, word, _without_edges(word)) for place, word in found]
    pieces = [piece for piece in pieces if len(piece[2]) > 1 or piece[2].isnumeric()]
    rest = "".join(key_text.split())
    best = [[0] * (len(rest) + 1) for _ in range(len(pieces) + 1)]
    for i in range(len(pieces) - 1, -1, -1):
        for j in range(len(rest) - 1, -1, -1):
            size = _length_at(rest, j, pieces[i][1:])
            best[i][j] = max(best[i + 1][j], best[i][j + 1], size + best[i + 1][j + size] if size else 0)
    spans: list[Span] = []
    i = j = 0
    while i < len(pieces) and j < len(rest):
        size = _length_at(rest, j, pieces[i][1:])
        if best[i][j] == best[i + 1][j]:
            i += 1
        elif size and best[i][j] == size + best[i + 1][j + size]:
            place, word, bare = pieces[i]
            if place is not None:
                start = place[0] + word.index(bare)
                spans.append(Span(record.body_field, start, start + len(bare), label=label, source=source))
            i, j = i + 1, j + size
        else:
            j += 1
    return tuple(spans)


def _length_at(text: str, place: int, forms: Iterable[str]) -> int:
    """How long the longest of a word's forms is that stands at this place; 0 if none does."""
    return max((len(form) for form in forms if form and text.startswith(form, place)), default=0)


def _without_edges(word: str) -> str:
    """The word without the punctuation around it and without a possessive 's."""
    kept = [i for i, character in enumerate(word) if character.isalnum()]
    bare = word[kept[0] : kept[-1] + 1] if kept else ""
    return re.sub(r"['’]s$", "", bare)


def words(text: str) -> Iterator[tuple[int, int]]:
    """Where the words of a text begin and end: runs of anything but white space.

    >>> list(words("a  bc"))
    [(0, 1), (3, 5)]
    """
    return (match.span() for match in re.finditer(r"\S+", text))


def _string(values: Mapping[str, Any], column: str) -> str:
    value = values.get(column)
    if not isinstance(value, str):
        raise DataError(f"'{column}' must be text; found {type(value).__name__}.")
    return value
