"""Records, spans and annotations: plain values, no torch. Loaders are in `expunge.data.load`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Split = Literal["forget", "retain", "holdout", "general"]
Field = Literal["prompt", "answer", "text"]


LARGEST_WEIGHT = 1e30
"""The largest weight of a span: what single precision holds, with room for a sum."""


@dataclass(frozen=True)
class Span:
    """Characters `start:end` of one field of a record, with a weight, a label and who said so.

    Python string offsets (code points), end exclusive; 0 <= start < end.
    """

    field: Field
    start: int
    end: int
    weight: float = 1.0
    label: str = "unwanted"
    source: str = ""


@dataclass(frozen=True)
class Record:
    """One piece of training text: a prompt and an answer, or a raw `text` (then prompt and answer are empty).

    `alternatives` are other answers that a method may teach instead, `perturbed` wrong answers for judging,
    `paraphrase` a right answer in other words, `prompt_paraphrase` the question in other words. `subject` groups
    records about one person or topic (clusters of the bootstrap). `spans` are spans that came with the data (gold, or
    an annotation's). `history` holds the turns of a conversation before the prompt, (role, content) each. A piece of a
    longer text names its `document` and the character `offset` of its beginning there, and `continues` if more of the
    document follows (then no end-of-text token does).
    """

    id: str
    prompt: str = ""
    answer: str = ""
    text: str = ""
    split: Split = "forget"
    subject: str = ""
    paraphrase: str = ""
    prompt_paraphrase: str = ""
    perturbed: tuple[str, ...] = ()
    alternatives: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    history: tuple[tuple[str, str], ...] = ()
    document: str = ""
    offset: int = 0
    continues: bool = False

    @property
    def body(self) -> str:
        """What is scored: the text of a raw record, else the answer."""
        return self.text or self.answer

    @property
    def body_field(self) -> Field:
        """The name of the field that `body` is."""
        return "text" if self.text else "answer"

    @property
    def content(self) -> bytes:
        """Prompt, answer, text and the turns before them, as the bytes that hashes are over."""
        joined = "\x1f".join((self.prompt, self.answer, self.text, *(part for turn in self.history for part in turn)))
        return joined.encode("utf-8", "surrogatepass")

    @property
    def text_hash(self) -> str:
        """SHA-256 over `content` (16 hex digits): what an annotation is bound to."""
        return hashlib.sha256(self.content).hexdigest()[:16]


@dataclass(frozen=True)
class Annotation:
    """The spans of one record: `record_id` names it, `text_hash` binds it to the exact characters."""

    record_id: str
    text_hash: str
    spans: tuple[Span, ...] = field(default_factory=tuple)


def data_hash(records: Iterable[Record]) -> str:
    """SHA-256 over the ids and texts of the records in their order (16 hex digits)."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(f"{record.id}\x1f{record.text_hash}\x1e".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def static_name(kind: str, source: str = "") -> str:
    """How the score is called of spans from one source; without one it is of all but gold spans.

    >>> static_name("given"), static_name("given", "gold")
    ('given', 'given@gold')
    """
    return f"{kind}@{source}" if source else kind
