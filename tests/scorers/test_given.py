"""Scores that look at no model: spans, uniform, random."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from expunge import registry
from expunge.core import NOTHING, Forward
from expunge.data.collate import collate
from expunge.data.encode import Encoder
from expunge.data.records import Record, Span
from expunge.errors import MethodError
from expunge.scorers.given import Given, Gold, Random, Uniform
from expunge.sides import encode_all
from expunge.testing import forward_from_probabilities
from tests.contract import harness as h
from tests.fixtures.tokenizers import bpe

STATIC = {"given": [0.0, 1.0, 0.5], "gold": [1.0, 0.0, 0.0], "not-general": [1.0, 1.0, 0.0]}
FORWARD = forward_from_probabilities([[0.5, 0.5]] * 3, targets=[0, 1, 0], static=STATIC)


def test_each_reads_its_own_spans() -> None:
    assert Given()(FORWARD, None).tolist() == [[0.0, 1.0, 0.5, 0.0]]
    assert Given(label="not-general")(FORWARD, None).tolist() == [[1.0, 1.0, 0.0, 0.0]]
    assert Gold()(FORWARD, None).tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert Uniform()(FORWARD, None).tolist() == [[1.0, 1.0, 1.0, 0.0]]


def test_nothing_is_asked_of_a_model() -> None:
    for scorer in (Given(), Gold(), Uniform(), Random()):
        assert dataclasses.replace(scorer.needs, labels=frozenset()) == NOTHING


def test_a_span_value_where_nothing_is_scored_does_not_count() -> None:
    static = {"given": torch.ones_like(FORWARD.policy.logp)}
    forward = Forward(dataclasses.replace(FORWARD.batch, static=static), FORWARD.policy)
    assert Given()(forward, None).tolist() == [[1.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (Given(), "scorer 'given' needs an annotation with spans labelled 'unwanted': set data.forget.annotations"),
        (Given(label="not-general"), "scorer 'given' needs an annotation with spans labelled 'general'"),
        (Gold(), "scorer 'gold' needs records with gold spans"),
    ],
)
def test_missing_spans_are_an_error_that_says_what_to_give(scorer: Given | Gold, message: str) -> None:
    bare = Forward(dataclasses.replace(FORWARD.batch, static={}), FORWARD.policy)
    with pytest.raises(MethodError, match=message):
        scorer(bare, None)


def test_random_scores_belong_to_the_record_not_to_its_place() -> None:
    records = h.items(4)
    whole = Random()(Forward.before(h.batch_of(records)), None)
    for row, item in enumerate(records):
        alone = Random()(Forward.before(h.batch_of([item])), None)
        assert torch.equal(alone[0], whole[row, : len(item)])
    rows = [whole[row][whole[row] > 0] for row in range(4)]
    assert all(not torch.equal(rows[0][:3], other[:3]) for other in rows[1:])


def test_random_without_draws_is_refused() -> None:
    with pytest.raises(ValueError, match="no draws"):
        Random()(Forward.before(dataclasses.replace(FORWARD.batch, draws=None)), None)


@pytest.mark.parametrize("label", ["unwanted", "not-general"])
def test_spans_are_chosen_by_the_source_that_marked_them(label: str) -> None:
    """Gold spans that an annotation file holds are read where they are asked for by name."""
    marked = "general" if label == "not-general" else "unwanted"
    spans = (Span("answer", 0, 3, label=marked, source="gold"), Span("answer", 9, 15, label=marked, source="chat"))
    record = Record("r", "Who?", "Ann is a doctor.", spans=spans)
    item = encode_all(Encoder(bpe(), template="{prompt} {answer}"), [record])[0]
    batch = collate([item], pad_id=0)

    def scored(source: str) -> set[str]:
        spec = f"given:label={label}" + (f",source={source}" if source else "")
        scores = registry.build("scorer", spec)(Forward.before(batch), None)[0].numpy()
        marks = (scores > 0) == (label == "unwanted")
        ranges = item.offsets[marks & (item.offsets[:, 0] < item.offsets[:, 1])].tolist()
        places = {"Ann": (0, 3), "doctor": (9, 15)}
        return {word for word, (start, end) in places.items() if any(a < end and start < b for a, b in ranges)}

    assert scored("gold") == {"Ann"}
    assert scored("chat") == scored("") == {"doctor"}
    with pytest.raises(MethodError, match="from the source 'nobody'"):
        scored("nobody")
