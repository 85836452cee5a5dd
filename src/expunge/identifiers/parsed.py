"""What a spaCy pipeline makes of a text, as spans: noun chunks, entities, words of some parts of speech."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from expunge.data import tagging
from expunge.data.records import Record
from expunge.errors import MethodError
from expunge.identifiers.finding import Estimate, Finding, IdentifierError, spans_of
from expunge.identifiers.locate import Range
from expunge.registry import method

_BY: Mapping[str, tuple[str, str]] = {
    "chunks": ("DEP", "a parser"),
    "entities": ("ENT_IOB", "an entity recogniser"),
    "pos": ("POS", "a tagger"),
}
"""What a document must have been given for each choice, and by what part of a pipeline."""


@method("identifier", "spacy")
@dataclass(frozen=True)
class Spacy:
    """The noun chunks of the answer, its named entities, or its words of some parts of speech, by a spaCy pipeline.

    `what=chunks` is ETW's baseline SCN, `what=entities` SCE; `what=pos` takes words whose universal part of speech is
    among `pos`, with | between them. `model` is an installed pipeline or a folder of one; nothing is downloaded. Chunks
    need a parser, and a language for which spaCy knows them. Needs the extra `spacy`.

    Source: the spaCy masks of FUNDIAL, and SCN and SCE of ETW (arXiv 2604.17785), with en_core_web_sm.
    """

    reads_spans: ClassVar[bool] = False
    what: Literal["chunks", "entities", "pos"] = "chunks"
    model: str = "en_core_web_sm"
    pos: str = "NOUN|PROPN|NUM"

    def __post_init__(self) -> None:
        if not self.model:
            raise MethodError("identifier 'spacy' needs a pipeline: write spacy:model=en_core_web_sm, or a folder")

    def facts(self) -> Mapping[str, object]:
        meta = self._pipeline.meta
        wanted = {"pos": sorted(self._wanted)} if self.what == "pos" else {}
        named = {key: meta.get(key, "") for key in ("lang", "name", "version", "spacy_version")}
        return {"name": "spacy", "what": self.what, "model": self.model, "pipeline": named, **wanted}

    def estimate(self, records: Sequence[Record]) -> Estimate | None:
        return None

    def identify(self, records: Sequence[Record]) -> Iterator[Finding]:
        for record, document in zip(records, self._pipeline.pipe(record.body for record in records), strict=True):
            found = self._ranges(document)
            yield Finding(record, spans_of(record, found, f"spacy:{self.what}"), {self.what: len(found)})

    def _ranges(self, document: Any) -> list[Range]:
        mark, part = _BY[self.what]
        if len(document) and not document.has_annotation(mark):
            raise IdentifierError(
                f"identifier '{self}': the pipeline '{self.model}' has not {part}. Name one that has."
            )
        if self.what == "pos":
            return [(w.idx, w.idx + len(w.text)) for w in document if w.pos_ in self._wanted]
        try:
            spans = document.ents if self.what == "entities" else list(document.noun_chunks)
        except NotImplementedError:
            raise IdentifierError(
                f"identifier 'spacy': spaCy knows no noun chunks in the language '{document.lang_}'. "
                "Use what=pos, or what=entities."
            ) from None
        return [(span.start_char, span.end_char) for span in spans]

    @property
    def _wanted(self) -> frozenset[str]:
        return frozenset(name.strip() for name in self.pos.split("|"))

    @cached_property
    def _pipeline(self) -> Any:
        try:
            return tagging.pipeline(self.model)
        except OSError as error:
            raise IdentifierError(
                f"identifier 'spacy': spaCy cannot open '{self.model}': {str(error).splitlines()[0]} "
                "Install that pipeline, or give the path of one as model."
            ) from None
