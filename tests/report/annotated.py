"""Annotated records for the inspector's tests: ordinary ones, hostile ones, and many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from expunge.data.records import Annotation, Record, Span

EVIL = "The answer is <script>document.title='owned'</script> & \u202ereversed\u202c."
ARABIC = "وُلدت ليلى حداد في مدينة عمّان."
CODE = "def connect(port=4471):\n    return Session(port)\n"

RECORDS = (
    Record("plain", "Where was Ann born?", "Ann was born in Kuwait City, in 1956.", subject="ann"),
    Record("overlap", "Who is Bo?", "Bo Larsen paints bridges in Oslo.", subject="bo"),
    Record("evil", "</script><img src=x onerror=alert(1)>?", EVIL),
    Record("arabic", "أين وُلدت ليلى؟", ARABIC),
    Record("code", text=CODE),
    Record("nothing", "What is the sky?", "It is blue."),
)


def span(record: Record, words: str, label: str = "unwanted", source: str = "llm", weight: float = 1.0) -> Span:
    """The first occurrence of `words` in the record's body."""
    start = record.body.index(words)
    return Span(record.body_field, start, start + len(words), weight, label, source)


def annotation(record: Record, *spans: Span) -> Annotation:
    return Annotation(record.id, record.text_hash, spans)


def first() -> list[Annotation]:
    plain, overlap, evil, arabic, code, nothing = RECORDS
    return [
        annotation(plain, span(plain, "Kuwait City"), span(plain, "was", "general", "mlm", 0.5)),
        annotation(overlap, span(overlap, "Bo Larsen", weight=0.25), span(overlap, "Larsen paints", "place", "ner")),
        annotation(evil, span(evil, "<script>document.title='owned'</script>", source="<b>llm</b>")),
        annotation(arabic, span(arabic, "عمّان")),
        annotation(code, span(code, "44")),
        annotation(nothing),
    ]


def second() -> list[Annotation]:
    plain, overlap, evil, arabic, _, nothing = RECORDS
    return [
        annotation(plain, span(plain, "City"), span(plain, "1956")),
        annotation(overlap, span(overlap, "Bo Larsen")),
        annotation(evil),
        annotation(arabic, span(arabic, "ليلى حداد")),
        annotation(nothing, span(nothing, "blue")),
    ]


def many(number: int, words: int = 30, seed: int = 0) -> tuple[list[Record], list[Annotation]]:
    """Records of invented words with three spans each."""
    rng = np.random.default_rng(seed)
    records, annotations = [], []
    for i in range(number):
        text = " ".join(f"w{n}" for n in rng.integers(0, 5000, words))
        record = Record(f"r{i:05d}", prompt=f"Question number {i}?", answer=text, subject=f"person-{i // 20}")
        records.append(record)
        annotations.append(annotation(record, *_three(record, rng)))
    return records, annotations


def _three(record: Record, rng: np.random.Generator) -> Sequence[Span]:
    starts = [0, *(i + 1 for i, character in enumerate(record.answer) if character == " ")]
    chosen = sorted(int(n) for n in rng.choice(len(starts) - 1, 3, replace=False))
    return [Span("answer", starts[i], starts[i + 1] - 1, source="llm") for i in chosen]
