"""Presidio's results become spans; without Presidio the message says how to get it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from expunge import registry
from expunge.data.records import Record, Span
from expunge.errors import MissingExtraError
from expunge.identifiers.finding import IdentifierError
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


needs_presidio = pytest.mark.skipif(not INSTALLED, reason="Presidio is not installed: pip install 'expunge[pii]'")
CARD = Record("c", "Paid?", "With 4111 1111 1111 1111 from 192.168.0.12, not 4111 1111 1111 1112, says Jane Doe.")


@needs_presidio
def test_an_address_is_recognised_without_a_language_model() -> None:
    (finding,) = registry.build("identifier", "pii:entities=EMAIL_ADDRESS").identify([RECORD])
    assert [(span.start, span.end, span.source) for span in finding.spans] == [(9, 29, "pii:EMAIL_ADDRESS")]


@needs_presidio
def test_checksums_decide_and_the_threshold_is_kept_to() -> None:
    found = {}
    for threshold in ("0.5", "0.9"):
        (finding,) = registry.build("identifier", f"pii:threshold={threshold}").identify([CARD])
        found[threshold] = [(CARD.answer[span.start : span.end], span.source) for span in finding.spans]
    assert found["0.9"] == [("4111 1111 1111 1111", "pii:CREDIT_CARD")]
    assert found["0.5"] == [*found["0.9"], ("192.168.0.12", "pii:IP_ADDRESS")]


@needs_presidio
@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("pii:entities=EMAIL_ADRESS", "unknown entity 'EMAIL_ADRESS'. Did you mean: EMAIL_ADDRESS"),
        ("pii:model=no_such_pipeline", "spaCy cannot open 'no_such_pipeline'"),
    ],
)
def test_what_presidio_does_not_know_is_said(spec: str, said: str) -> None:
    with pytest.raises(IdentifierError, match=re.escape(said)):
        list(registry.build("identifier", spec).identify([RECORD]))


@needs_presidio
def test_a_pipeline_that_knows_names_adds_them(tmp_path: Path) -> None:
    import spacy

    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PERSON", "pattern": "Jane Doe"}])  # type: ignore[attr-defined]
    pipeline.to_disk(tmp_path / "names")
    (finding,) = registry.build("identifier", f"pii:entities=PERSON,model={tmp_path / 'names'}").identify([CARD])
    assert [CARD.answer[span.start : span.end] for span in finding.spans] == ["Jane Doe"]


_OFFLINE = """
import socket, sys
asked = []
socket.getaddrinfo = lambda *a, **k: asked.append(a) or (_ for _ in ()).throw(OSError("no network"))
from expunge import registry
from expunge.data.records import Record
record = Record("r", "Reach her?", "Write to jane.doe@example.com or call.")
(finding,) = registry.build("identifier", "pii:entities=EMAIL_ADDRESS").identify([record])
assert len(finding.spans) == 1, finding
assert not asked, asked
"""


@needs_presidio
def test_nothing_is_fetched(tmp_path: Path) -> None:
    environment = {**os.environ, "TLDEXTRACT_CACHE": str(tmp_path)}
    environment.pop("TLDEXTRACT_PUBLIC_SUFFIX_LIST_URLS", None)
    done = subprocess.run([sys.executable, "-c", _OFFLINE], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
