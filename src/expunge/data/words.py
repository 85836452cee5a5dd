"""Where the words of a text are, in four senses of the word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import regex

Range = tuple[int, int]
Segmentation = Literal["words", "whitespace", "characters", "code"]

_BOUNDARY = regex.compile(r"(?V1w)\b")
_HAS_LETTER = regex.compile(r"[\p{L}\p{N}]")
_CODE = regex.compile(r"[\p{L}\p{N}\p{M}_]+|[^\s\x1c-\x1f]")
_PLAIN = regex.compile(r"[\p{Latin}\p{Cyrillic}\p{Greek}\p{N}_]+")


def cut(text: str, segmentation: Segmentation = "words") -> list[Range]:
    """Character ranges of the words of a text, in order; white space belongs to none.

    'words': by Unicode's rules (a Chinese character is a word, "don't" is one, punctuation is none). 'whitespace':
    what stands between white space, punctuation included. 'characters': every visible character as a reader counts
    them. 'code': names, numbers, and every other sign by itself.

    >>> [("It's 3.5 km.")[a:b] for a, b in cut("It's 3.5 km.")]
    ["It's", '3.5', 'km']
    >>> [("f(x_1)=2")[a:b] for a, b in cut("f(x_1)=2", "code")]
    ['f', '(', 'x_1', ')', '=', '2']
    """
    return list(_CUTS[segmentation](text))


def _unicode(text: str, offset: int = 0) -> Iterator[Range]:
    at = 0
    for piece in _BOUNDARY.split(text):
        if _HAS_LETTER.search(piece):
            yield offset + at, offset + at + len(piece)
        at += len(piece)


def _whitespace(text: str) -> Iterator[Range]:
    return (match.span() for match in regex.finditer(r"[^\s\x1c-\x1f]+", text))


def _characters(text: str) -> Iterator[Range]:
    for match in regex.finditer(r"\X", text):
        seen = match[0].lstrip()  # a mark without a letter sits on the white space before it
        if seen:
            yield match.end() - len(seen), match.end()


def _code(text: str) -> Iterator[Range]:
    for match in _CODE.finditer(text):
        if _HAS_LETTER.search(match[0]) and not _PLAIN.fullmatch(match[0]):
            yield from _unicode(match[0], match.start())
        else:
            yield match.span()


_CUTS = {"words": _unicode, "whitespace": _whitespace, "characters": _characters, "code": _code}
