"""Spans from a classifier that was taught on part of the data what another identifier, or a person, would mark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt

from expunge.data.records import Record
from expunge.data.words import cut
from expunge.identifiers.finding import Estimate, Finding
from expunge.identifiers.masked import labelled
from expunge.registry import Share, method


@method("identifier", "classifier")
@dataclass(frozen=True)
class Classifier:
    """A span for every word of the answer: 'unwanted' if its probability is at least `threshold`, else 'general'.

    `model` is a folder that `train_classifier` made from an annotation file, for example from a chat model's labels
    of a tenth of the data. A word's probability is the mean over its tokens. `words` says what a word is, by default
    what the classifier was taught. Texts beyond `max_tokens` are read in windows that overlap.
    """

    reads_spans: ClassVar[bool] = False
    model: str
    threshold: Share = 0.5
    words: Literal["taught", "words", "whitespace", "characters", "code"] = "taught"
    max_tokens: Annotated[int, Ge(8)] = 512
    token_budget: Annotated[int, Gt(0)] = 8192
    device: str = "auto"

    def facts(self) -> Mapping[str, object]:
        from expunge.identifiers.neural.folder import identity

        return {"name": "classifier", "model": identity(self.model), "threshold": self.threshold, "words": self.words,
                "max_tokens": self.max_tokens}  # fmt: skip

    def estimate(self, records: Sequence[Record]) -> Estimate | None:
        return None

    def identify(self, records: Sequence[Record]) -> Iterator[Finding]:
        from expunge.identifiers.neural.tagger import Tagger

        tagger = Tagger.load(self.model, device=self.device, max_tokens=self.max_tokens)
        words = tagger.words if self.words == "taught" else self.words
        for record, chances in zip(records, tagger.unwanted(records, self.token_budget, words), strict=True):
            general = [chance < self.threshold for chance in chances]
            spans = labelled(record, cut(record.body, words), general, "classifier")
            yield Finding(record, spans, {"words": len(general), "general": sum(general)})
