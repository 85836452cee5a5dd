"""Text that comes from data or models, made safe to look at: invisible and direction-changing characters are shown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

MAX_TEXT = 1500
MAX_TOKEN = 80
_NGRAM = 4
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Thai, Lao, Burmese, Khmer, kana, Han: scripts without spaces, of which every character counts as a word."""
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")
_HIDDEN = ("Cc", "Cf", "Co", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"


def visible(text: str, limit: int = MAX_TEXT) -> str:
    """`text`, cut at `limit` characters, its control and bidirectional characters written as code points.

    Joiners stay: scripts and emoji need them. Newlines and tabs stay.

    >>> visible("a\\u202eb")
    'a⟨U+202E⟩b'
    >>> visible("x" * 20, limit=5)
    'xxxxx… (15 more characters)'
    """
    if len(text) <= limit and text.isprintable():
        return text
    kept = "".join(_shown(character) for character in text[:limit])
    left = len(text) - limit
    return f"{kept}… ({left:,} more characters)" if left > 0 else kept


def token(text: str) -> str:
    """A token as the heat map shows it: a newline as ↵, unseen characters as code points, at most 80 characters."""
    return visible(text, MAX_TOKEN).replace("\n", "↵").replace("\t", "⇥") or "∅"


def joined(parts: Sequence[str]) -> str:
    """The parts as a person lists them.

    >>> joined(["a", "b", "c"]), joined(["a"]), joined([])
    ('a, b and c', 'a', '')
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


class Guard:
    """Knows the forget text by its runs of four words, and blanks any line of other text that holds one of them.

    >>> Guard(["The capital of Norway is Oslo."]).clean("a run on: the capital of norway, 2024")
    '[redacted]'
    >>> Guard(["他住在北京市"]).finds("住在北京")
    True
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._known = {gram for text in texts for gram in _ngrams(text)}

    def finds(self, text: str) -> bool:
        """True if `text` shares four words in a row with the forget text."""
        return any(gram in self._known for gram in _ngrams(text))

    def clean(self, text: str) -> str:
        """`text` with every line that holds forget text replaced; all of it if only several lines together do."""
        lines = ["[redacted]" if self.finds(line) else line for line in text.split("\n")]
        cleaned = "\n".join(lines)
        return "[redacted]" if self.finds(cleaned) else cleaned


def _ngrams(text: str) -> Iterable[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return zip(*(words[i:] for i in range(_NGRAM)), strict=False)


def _shown(character: str) -> str:
    if character in "\n\t" or character in _JOINERS:
        return character
    if unicodedata.category(character) in _HIDDEN:
        return f"⟨U+{ord(character):04X}⟩"
    return character
