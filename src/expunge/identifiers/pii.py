"""Personal data that Presidio recognises, as spans."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from expunge.data import tagging
from expunge.data.records import Record, Span
from expunge.errors import MissingExtraError, unknown
from expunge.identifiers.finding import UNWANTED, Estimate, Finding, IdentifierError
from expunge.registry import Share, method


@method("identifier", "pii")
@dataclass(frozen=True)
class Pii:
    """What Presidio takes for personal data, at or above `threshold`; the span's source says which kind.

    `entities` are Presidio's names with | between them, all it knows if empty. `model` is an installed spaCy pipeline
    or a folder of one, needed for names of people and places; without it a blank pipeline serves the recognisers
    that work by pattern and checksum (e-mail, card, IP, telephone), and nothing is downloaded. Needs the extra `pii`.
    """

    reads_spans: ClassVar[bool] = False
    entities: str = ""
    language: str = "en"
    threshold: Share = 0.5
    model: str = ""

    def facts(self) -> Mapping[str, object]:
        return {"name": "pii", "entities": self.entities, "language": self.language, "threshold": self.threshold,
                "model": self.model, "presidio": _version("presidio-analyzer"), "spacy": _version("spacy")}  # fmt: skip

    def estimate(self, records: Sequence[Record]) -> Estimate | None:
        return None

    def identify(self, records: Sequence[Record]) -> Iterator[Finding]:
        analyzer = _analyzer(self.language, self.model)
        wanted = [entity.strip() for entity in self.entities.split("|") if entity.strip()] or None
        known = sorted(analyzer.get_supported_entities(self.language))
        for entity in wanted or ():
            if entity not in known:
                raise IdentifierError(f"identifier 'pii': {unknown('entity', entity, known)}")
        for record in records:
            results = analyzer.analyze(
                text=record.body, language=self.language, entities=wanted, score_threshold=self.threshold
            )
            yield Finding(record, spans_of_results(record, results), {"recognised": len(results)})


def spans_of_results(record: Record, results: Sequence[Any]) -> tuple[Span, ...]:
    """Spans of Presidio's results (`entity_type`, `start`, `end`, `score`), weight 1 each, in order of the text."""
    where = record.body_field
    found = {(r.start, r.end, r.entity_type) for r in results if r.start < r.end}
    return tuple(Span(where, start, end, label=UNWANTED, source=f"pii:{kind}") for start, end, kind in sorted(found))


def _analyzer(language: str, model: str) -> Any:
    # else the recogniser of e-mail addresses fetches a list of domains; without it, it takes the one that it came with
    os.environ.setdefault("TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS", "")
    try:
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
    except ImportError:
        raise MissingExtraError("identifier 'pii'", "pii") from None
    engine = SpacyNlpEngine(
        models=[{"lang_code": language, "model_name": model or "blank"}],
        ner_model_configuration=NerModelConfiguration(),
    )
    try:
        pipelines: Any = {language: tagging.pipeline(model, language)}
        engine.nlp = pipelines
    except (OSError, ImportError) as error:
        raise IdentifierError(
            f"identifier 'pii': spaCy cannot open '{model or language}': {str(error).splitlines()[0]} "
            "Install that pipeline, or give the path of one as model."
        ) from None
    recognisers = RecognizerRegistry(supported_languages=[language])
    recognisers.load_predefined_recognizers(languages=[language], nlp_engine=engine)
    return AnalyzerEngine(registry=recognisers, nlp_engine=engine, supported_languages=[language])


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
