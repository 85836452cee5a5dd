"""Presidio's results become spans; without Presidio the message says how to get it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import pytest

from expunge import registry
from expunge.data.records import Record, Span
from expunge.errors import MissingExtraError
from expunge.identifiers.pii import spans_of_results

RECORD = Record("r", "Reach her?", "Write to jane.doe@example.com or call.")
INSTALLED = importlib.util.find_spec("presidio_analyzer") is not None


@dataclass
class Result:
    entity_type: str
    start: int
    end: int
    score: float


def test_results_become_spans_that_say_their_kind() -> None:
    results = [Result("EMAIL_ADDRESS", 9, 29, 1.0), Result("URL", 18, 29, 0.5), Result("URL", 18, 29, 0.5)]
    assert spans_of_results(RECORD, results) == (
        Span("answer", 9, 29, source="pii:EMAIL_ADDRESS"),
        Span("answer", 18, 29, source="pii:URL"),
    )


@pytest.mark.skipif(INSTALLED, reason="Presidio is installed")
def test_without_presidio_the_extra_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'expunge\[pii\]'"):
        list(registry.build("identifier", "pii").identify([RECORD]))


@pytest.mark.skipif(not INSTALLED, reason="Presidio is not installed: pip install 'expunge[pii]'")
def test_an_address_is_recognised_without_a_language_model() -> None:
    (finding,) = registry.build("identifier", "pii:entities=EMAIL_ADDRESS").identify([RECORD])
    assert [(span.start, span.end, span.source) for span in finding.spans] == [(9, 29, "pii:EMAIL_ADDRESS")]
