"""Records, spans and annotations: plain values, no torch. Loaders are in `expunge.data.load`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Literal

Split = Literal["forget", "retain", "holdout", "general"]
Field = Literal["prompt", "answer", "text"]


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

    `perturbed` are wrong answers, `paraphrase` a right answer in other words, `prompt_paraphrase` the question in
    other words. `subject` groups records about one person or topic (clusters of the bootstrap). `spans` are spans
    that came with the data (gold, or an annotation's).
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
    spans: tuple[Span, ...] = ()

    @property
    def text_hash(self) -> str:
        """SHA-256 over prompt, answer and text (16 hex digits): what an annotation is bound to."""
        joined = "\x1f".join((self.prompt, self.answer, self.text))
        return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Annotation:
    """The spans of one record: `record_id` names it, `text_hash` binds it to the exact characters."""

    record_id: str
    text_hash: str
    spans: tuple[Span, ...] = field(default_factory=tuple)
