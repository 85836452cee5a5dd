"""Scores that look at no model: spans, uniform, random."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from expunge.core import NOTHING, Forward
from expunge.errors import MethodError
from expunge.scorers.given import Given, Gold, Random, Uniform
from expunge.testing import forward_from_probabilities
from tests.contract import harness as h

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
