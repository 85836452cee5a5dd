"""Sums of scores: each part scaled to [0, 1] over its own sequence first."""

from __future__ import annotations

import pytest
import torch

from expunge import registry
from expunge.core import NOTHING
from expunge.scorers.mix import Mix, minmax
from expunge.scorers.uncertainty import Confidence
from expunge.testing import forward_from_probabilities

MASK = torch.tensor([[True, True, True, False], [True, True, False, False], [False] * 4])


def test_minmax_scales_each_sequence_to_the_unit_interval() -> None:
    scores = torch.tensor([[2.0, 6.0, 3.0, 99.0], [5.0, -5.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]])
    expected = [[0.0, 1.0, 0.25, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0] * 4]
    assert minmax(scores, MASK).tolist() == expected


def test_minmax_of_flat_scores_is_zero() -> None:
    scores = torch.tensor([[1.0, 1.0 + 5e-7, 1.0, 7.0], [1.0, 1.0 + 5e-6, 0.0, 0.0], [0.0] * 4])
    found = minmax(scores, MASK)
    assert found[0].tolist() == [0.0] * 4
    assert found[1].tolist() == [0.0, 1.0, 0.0, 0.0]


def test_a_sum_weighs_the_scaled_parts() -> None:
    static = {"given": [0.0, 2.0, 1.0]}
    rows = [[0.5, 0.5], [0.1, 0.9], [0.3, 0.7]]
    forward = forward_from_probabilities(rows, targets=[0, 0, 0], static=static)
    made = registry.build("scorer", "2*given + -0.5*confidence")
    # given scaled: 0, 1, 0.5; confidence 0.5, 0.1, 0.3 scaled: 1, 0, 0.5
    assert made(forward, None)[0].tolist() == pytest.approx([-0.5, 2.0, 0.75, 0.0])


def test_needs_are_those_of_all_parts() -> None:
    made = registry.build("scorer", "entropy:temperature=3+0.1*entropy+given")
    assert made.needs.entropy == {1.0, 3.0}
    assert made.needs.policy
    assert registry.build("scorer", "given+random").needs == NOTHING


def test_parts_get_their_own_state() -> None:
    seen = []

    class Stateful(Confidence):
        def __call__(self, forward: object, state: object) -> torch.Tensor:
            seen.append(state)
            return super().__call__(forward, None)  # type: ignore[arg-type]

    forward = forward_from_probabilities([[0.5, 0.5]], targets=[0])
    Mix(((1.0, Stateful()), (1.0, Stateful())))(forward, ("a", "b"))
    assert seen == ["a", "b"]
