"""Spans that a masked language model tells from general words: what it can fill in, anybody knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from expunge.data.records import Record, Span
from expunge.data.words import Segmentation, cut
from expunge.identifiers.finding import GENERAL, UNWANTED, Estimate, Finding
from expunge.registry import Share, method

Count = Annotated[int, Gt(0)]
Case = Literal["ignore", "match"]
Pieces = Literal["all", "joint", "single"]


@method("identifier", "masked-lm")
@dataclass(frozen=True)
class MaskedLM:
    """A span for every word of the answer: 'general' if the model, shown the rest, predicts it, else 'unwanted'.

    Each word is masked in turn, with the question (`context=prompt`) or without it (`context=answer`) in front. A
    word of one piece is predicted if it is among the `top_k` likeliest and has at least the probability `threshold`.
    A word of several pieces has all of them masked at once; 'all' asks this of each piece, 'joint' asks top_k of each
    and the threshold of the product of their probabilities, 'single' puts one mask for the word, so that only words
    which are one entry of the vocabulary can be general (as published). With `case=ignore` a prediction that differs
    in case counts. `words` says what a word is: Unicode words, whitespace, characters, code. `max_tokens` is the
    window around the masked word where a text is longer; `token_budget` the size of a batch, padding included.

    Source: TIF's discriminative identifier (arXiv 2506.03142): words=whitespace, top_k=1, threshold=0,
    pieces=single. Differs: by default Unicode words, so a full stop does not make a word unpredictable, and words of
    several pieces have a chance.
    """

    reads_spans: ClassVar[bool] = False
    model: str = "distilroberta-base"
    top_k: Count = 1
    threshold: Share = 0.0
    case: Case = "ignore"
    pieces: Pieces = "all"
    words: Segmentation = "words"
    context: Literal["prompt", "answer"] = "prompt"
    max_tokens: Annotated[int, Ge(8)] = 512
    token_budget: Count = 8192
    device: str = "auto"

    def facts(self) -> Mapping[str, object]:
        from expunge.identifiers.neural.folder import identity

        return {
            "name": "masked-lm", "model": identity(self.model), "top_k": self.top_k, "threshold": self.threshold,
            "case": self.case, "pieces": self.pieces, "words": self.words, "context": self.context,
            "max_tokens": self.max_tokens,
        }  # fmt: skip

    def estimate(self, records: Sequence[Record]) -> Estimate | None:
        return None

    def identify(self, records: Sequence[Record]) -> Iterator[Finding]:
        from expunge.identifiers.neural.fillmask import Filler, Question

        filler = Filler.load(
            self.model, top_k=self.top_k, threshold=self.threshold, case=self.case, pieces=self.pieces,
            max_tokens=self.max_tokens, token_budget=self.token_budget, device=self.device,
        )  # fmt: skip
        questions = [
            Question(
                record.prompt if self.context == "prompt" else "", record.body, tuple(cut(record.body, self.words))
            )
            for record in records
        ]
        for record, question, verdict in zip(records, questions, filler.judge(questions), strict=True):
            spans = labelled(record, question.words, verdict.general, "masked-lm")
            yield Finding(record, spans, {
                "words": len(question.words), "general": sum(verdict.general), "several pieces": verdict.several,
            })  # fmt: skip


def labelled(
    record: Record, ranges: Sequence[tuple[int, int]], general: Sequence[bool], source: str
) -> tuple[Span, ...]:
    """A span for every word: 'general' or 'unwanted'."""
    where = record.body_field
    return tuple(
        Span(where, start, end, label=GENERAL if known else UNWANTED, source=source)
        for (start, end), known in zip(ranges, general, strict=True)
    )
