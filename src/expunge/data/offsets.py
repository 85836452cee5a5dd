"""Tokens with the characters they stand for, and spans of characters projected on them.

What tokenizers report is mended where it is known to be wrong: a space that the tokenizer put in claims the first
character, trimmed offsets lose characters after a special token, the bytes of a run of rare characters all claim the
whole run, and characters that the normaliser dropped belong to nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from expunge.data.records import LARGEST_WEIGHT, Span
from expunge.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Boundary = Literal["any", "all"]
_SPACES = "▁Ġ"


@dataclass(frozen=True, eq=False)
class Tokens:
    """`ids` (n,) int64 of a text; token i stands for its characters `start[i]:end[i]` (int64), none where equal.

    `added` (n,) bool marks added vocabulary, which is cut out of the text before the model of the tokenizer sees it:
    special tokens among others.
    """

    text: str
    ids: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    added: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.ids)


def tokenize(
    tokenizer: PreTrainedTokenizerBase, text: str, added: frozenset[int], *, add_special_tokens: bool
) -> Tokens:
    """The tokens of `text` with mended offsets, nothing cut. `added` are the ids of the added vocabulary."""
    if not tokenizer.is_fast:
        raise DataError(
            f"tokenizer {type(tokenizer).__name__} cannot tell which characters a token stands for. "
            "Use a model with a fast tokenizer (a tokenizer.json file)."
        )
    try:
        encoded = tokenizer(
            text,
            add_special_tokens=add_special_tokens,
            return_offsets_mapping=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
    except (TypeError, UnicodeEncodeError) as error:
        raise DataError(f"the text cannot be tokenized: {_lone_surrogate(text) or error}") from None
    ids: list[int] = encoded["input_ids"]
    pieces = [str(piece) for piece in tokenizer.convert_ids_to_tokens(ids)]
    ranges = [[start, end] for start, end in encoded["offset_mapping"]]
    is_added = [i in added for i in ids]
    _split_byte_runs(text, pieces, ranges)
    _mend_spaces(text, pieces, ranges, is_added)
    _fill_gaps(text, ranges, is_added)
    bounds = np.asarray(ranges, np.int64).reshape(-1, 2)
    return Tokens(text, np.asarray(ids, np.int64), bounds[:, 0], bounds[:, 1], np.asarray(is_added, np.bool_))


def _lone_surrogate(text: str) -> str:
    """Where the text has half of a surrogate pair; empty if it has none."""
    position = next((i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff"), None)
    return "" if position is None else f"character {position} is half of a surrogate pair (U+{ord(text[position]):04X})"


def _split_byte_runs(text: str, pieces: Sequence[str], ranges: list[list[int]]) -> None:
    """Byte tokens (<0xE4>) that together claim several characters: each gets the character it is a byte of."""
    i = 0
    while i < len(pieces):
        start, end = ranges[i]
        if end - start < 2 or not _is_byte(pieces[i]):
            i += 1
            continue
        j = i
        while j < len(pieces) and _is_byte(pieces[j]) and ranges[j] == [start, end]:
            j += 1
        owners = [start + k for k, char in enumerate(text[start:end]) for _ in char.encode("utf-8")]
        if bytes(int(piece[3:5], 16) for piece in pieces[i:j]) == text[start:end].encode("utf-8"):
            for k, owner in zip(range(i, j), owners, strict=True):
                ranges[k] = [owner, owner + 1]
        i = j


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _mend_spaces(text: str, pieces: Sequence[str], ranges: list[list[int]], added: Sequence[bool]) -> None:
    """A token of nothing but space stands for white space of the text, or for nothing if the tokenizer put it in."""
    covered = 0
    for i, piece in enumerate(pieces):
        start, end = ranges[i]
        if not added[i] and piece and not piece.strip(_SPACES) and piece[0] not in text[start:end]:
            if start < end and not text[start:end].isspace():
                end = start
            while end == ranges[i][1] and start > covered and text[start - 1].isspace():
                start -= 1
            ranges[i] = [start, end]
        covered = max(covered, end)


def _fill_gaps(text: str, ranges: list[list[int]], added: Sequence[bool]) -> None:
    """Characters that no token claims go to the token before them; after an added token, to the one behind."""
    covered, previous = 0, -1
    for i, (start, end) in enumerate(ranges):
        if start == end == 0 and added[i]:
            continue
        if start > covered and text[covered:start].strip():
            gap = text[covered:start]
            if previous >= 0 and not added[previous]:
                ranges[previous][1] = covered + len(gap.rstrip())
            elif not added[i]:
                ranges[i][0] = covered + len(gap) - len(gap.lstrip())
        covered = max(covered, end)
        if ranges[i][0] < ranges[i][1]:
            previous = i
    if previous >= 0 and not added[previous] and text[covered:].strip():
        ranges[previous][1] = len(text.rstrip())


def project(
    spans: Iterable[Span], text: str, start: NDArray[np.int64], end: NDArray[np.int64], boundary: Boundary
) -> NDArray[np.float32]:
    """The weight of each token (n,) float32: the greatest among the spans it lies in, 0 if none.

    Spans and tokens lose their leading white space (spans the trailing too). `any`: the token shares a character with
    the span; `all`: every one of its characters lies in the span. White space on its own counts as inside a span that
    surrounds it.
    """
    weights = np.zeros(len(start), np.float32)
    first = np.asarray([_skip_space(text, s, e) for s, e in zip(start.tolist(), end.tolist(), strict=True)], np.int64)
    for span in spans:
        if span.weight > LARGEST_WEIGHT:
            raise DataError(f"the weight of a span must be at most {LARGEST_WEIGHT:g}; found {span.weight:g}")
        piece = text[span.start : span.end]
        low = span.start + len(piece) - len(piece.lstrip())
        high = span.start + len(piece.rstrip())
        if low >= high:
            continue
        inside = (first < high) & (end > low) if boundary == "any" else (first >= low) & (end <= high)
        inside &= start < end
        weights[inside] = np.maximum(weights[inside], np.float32(span.weight))
    return weights


def _skip_space(text: str, start: int, end: int) -> int:
    """The first character of the token that is not white space; `start` if it has none."""
    piece = text[start:end]
    stripped = piece.lstrip()
    return start + len(piece) - len(stripped) if stripped else start
