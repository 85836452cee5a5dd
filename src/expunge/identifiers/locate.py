"""Where a phrase that somebody named stands in a text: exact first, then ever more tolerant, never guessed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import regex

Range = tuple[int, int]
Form = Literal["exact", "composed", "loose"]

_CLUSTER = regex.compile(r"\X")
_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}ー]"
)
"""Scripts in which words stand, or take particles, without a space between: no word boundary can be asked for."""
_SAME = {
    **dict.fromkeys("‘’‚‛ʼ′`´", "'"),
    **dict.fromkeys("“”„‟″«»", '"'),
    **dict.fromkeys("‐‑‒–—―−﹘﹣－", "-"),
}
_INVISIBLE = frozenset("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff") | {chr(c) for c in range(0xFE00, 0xFE10)}


@dataclass(frozen=True)
class Folded:
    """A text in another form, and for each of its characters the range of the original that it came from.

    `first[i]` and `last[i]` are True where character i begins or ends what one original piece became, so half of a
    ligature or of a composed letter is never taken for the whole.
    """

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    first: tuple[bool, ...]
    last: tuple[bool, ...]


def locate(
    phrase: str, text: str, occurrence: int | None = None, *, ignore_case: bool = True, whole_words: bool = True
) -> list[Range]:
    """Character ranges of the phrase in the text: all of them, or the one numbered `occurrence` (from 1); [] if none.

    Tried in order, the first that finds something wins: the characters as they are; composed letters (NFC);
    compatible letters (NFKC), any case, any kind of quote, dash and white space; the same without the phrase's outer
    punctuation. `whole_words` refuses a hit inside a word, in scripts that separate words.

    >>> locate("Kuwait", "A Kuwaiti born in Kuwait.")
    [(18, 24)]
    >>> locate("'basil  MAHFOUZ'", "It is Basil Mahfouz.")
    [(6, 19)]
    """
    for wanted, form in _tries(phrase, ignore_case):
        hits = list(_hits(wanted, fold(text, form, ignore_case), text, whole_words))
        if occurrence is not None:
            hits = hits[occurrence - 1 : occurrence] if occurrence > 0 else []
        if hits:
            return hits
    return []


def fold(text: str, form: Form, ignore_case: bool = True) -> Folded:
    """The text in a form for comparison, with the way back: 'exact' (as it is), 'composed' (NFC) or 'loose'."""
    if form == "exact":
        return Folded(text, *_identity(len(text)))
    out: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    first: list[bool] = []
    last: list[bool] = []
    for start, end, piece in _pieces(text, form, ignore_case):
        if form == "loose" and piece == " " and out and out[-1] == " ":
            ends[-1] = end
            continue
        for index, letter in enumerate(piece):
            out.append(letter)
            starts.append(start)
            ends.append(end)
            first.append(index == 0)
            last.append(index == len(piece) - 1)
    return Folded("".join(out), tuple(starts), tuple(ends), tuple(first), tuple(last))


def _tries(phrase: str, ignore_case: bool) -> Iterator[tuple[str, Form]]:
    yield phrase.strip(), "exact"
    yield unicodedata.normalize("NFC", phrase.strip()), "composed"
    loose = fold(phrase, "loose", ignore_case).text.strip()
    yield loose, "loose"
    yield _bare(loose), "loose"


def _bare(phrase: str) -> str:
    """The phrase without punctuation at its ends; brackets inside stay."""
    start, end = 0, len(phrase)
    while start < end and not _wordlike(phrase[start]):
        start += 1
    while end > start and not _wordlike(phrase[end - 1]):
        end -= 1
    return phrase[start:end]


def _hits(wanted: str, folded: Folded, text: str, whole_words: bool) -> Iterator[Range]:
    at = 0
    while wanted and (found := folded.text.find(wanted, at)) >= 0:
        stop = found + len(wanted)
        start, end = folded.starts[found], folded.ends[stop - 1]
        whole = folded.first[found] and folded.last[stop - 1]
        if whole and (not whole_words or (not _joined(text, start) and not _joined(text, end))):
            yield start, end
            at = stop
        else:
            at = found + 1


def _joined(text: str, at: int) -> bool:
    """True if position `at` lies inside a word."""
    if not 0 < at < len(text):
        return False
    before, after = text[at - 1], text[at]
    if not (_wordlike(before) and _wordlike(after)):
        return False
    return not (_UNSPACED.match(before) or _UNSPACED.match(after))


def _wordlike(letter: str) -> bool:
    return letter.isalnum() or letter == "_" or unicodedata.category(letter)[0] == "M"


def _pieces(text: str, form: Form, ignore_case: bool) -> Iterator[tuple[int, int, str]]:
    """(start, end, what it becomes) of every grapheme cluster; letter by letter where the cluster stays as it is."""
    for match in _CLUSTER.finditer(text):
        start, end = match.span()
        cluster = match[0]
        changed = unicodedata.normalize("NFC" if form == "composed" else "NFKC", cluster)
        if changed == cluster:
            for index, letter in enumerate(cluster):
                yield start + index, start + index + 1, _letter(letter, form, ignore_case)
        else:
            yield start, end, "".join(_letter(letter, form, ignore_case) for letter in changed)


def _letter(letter: str, form: Form, ignore_case: bool) -> str:
    if form == "composed":
        return letter
    if letter in _INVISIBLE:
        return ""
    if letter.isspace():
        return " "
    letter = _SAME.get(letter, letter)
    return letter.casefold() if ignore_case else letter


def _identity(length: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[bool, ...], tuple[bool, ...]]:
    ones = (True,) * length
    return tuple(range(length)), tuple(range(1, length + 1)), ones, ones
