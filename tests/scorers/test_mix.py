"""Sums of scores: each part scaled to [0, 1] over its own sequence first."""

from __future__ import annotations

import pytest
import torch

from expunge import registry
from expunge.core import NOTHING
from expunge.scorers.mix import Mix, Product, minmax, rank, zscore
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
    assert registry.build("scorer", "uniform+random").needs == NOTHING
    assert registry.build("scorer", "given*random").needs.labels == {"given"}


def test_parts_see_what_scorers_have_learned() -> None:
    seen = []
    known = {"learned": {"bias": torch.zeros(())}}

    class Stateful(Confidence):
        def __call__(self, forward: object, state: object) -> torch.Tensor:
            seen.append(state)
            return super().__call__(forward, None)  # type: ignore[arg-type]

    forward = forward_from_probabilities([[0.5, 0.5]], targets=[0])
    Mix(((1.0, Stateful()), (1.0, Product((Stateful(), Stateful())))))(forward, known)
    assert all(state is known for state in seen)
    assert len(seen) == 3


FLAT_TOO = torch.tensor([[2.0, 6.0, 2.0, 99.0], [5.0, 5.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]])


def test_ranks_are_shares_of_the_others_that_score_lower() -> None:
    assert rank(FLAT_TOO, MASK).tolist() == [[0.25, 1.0, 0.25, 0.0], [0.0] * 4, [0.0] * 4]


def test_zscores_have_mean_0_and_deviation_1() -> None:
    found = zscore(FLAT_TOO, MASK)
    # mean 10/3, deviations -4/3, 8/3, -4/3: their root mean square is sqrt(96/27)
    expected = [v / (96 / 27) ** 0.5 for v in (-4 / 3, 8 / 3, -4 / 3)]
    assert found[0].tolist() == pytest.approx([*expected, 0.0])
    assert found[1:].tolist() == [[0.0] * 4] * 2


def test_parts_of_a_sum_may_be_ranked_or_standardised() -> None:
    static = {"given": [0.0, 2.0, 1.0]}
    forward = forward_from_probabilities([[0.5, 0.5], [0.1, 0.9], [0.3, 0.7]], targets=[0, 0, 0], static=static)
    made = registry.build("scorer", "rank(2*given+confidence)")
    assert str(made) == "rank(2.0*given+1.0*confidence)"
    assert registry.build("scorer", str(made)) == made
    assert made(forward, None)[0].tolist() == [1.0, 2.0, 1.5, 0.0]  # 2 * (0, 1, .5) + (1, 0, .5)
    single = registry.build("scorer", "zscore( given )")(forward, None)[0]
    assert single.tolist() == pytest.approx([-(1.5**0.5), 1.5**0.5, 0.0, 0.0])


def test_scores_multiply_as_they_are() -> None:
    static = {"given": [0.0, 2.0, 1.0]}
    forward = forward_from_probabilities([[0.5, 0.5], [0.1, 0.9], [0.3, 0.7]], targets=[0, 0, 0], static=static)
    made = registry.build("scorer", "given*confidence")
    assert made(forward, None)[0].tolist() == pytest.approx([0.0, 0.2, 0.3, 0.0])
    mixed = registry.build("scorer", "0.5*given*confidence + 0.5*given")
    assert mixed.parts[0] == (0.5, made)
    assert mixed(forward, None)[0].tolist() == pytest.approx([0.0, 0.5 * 2 / 3 + 0.5, 0.5 + 0.25, 0.0])


@pytest.mark.parametrize("text", ["entropy*confidence", "0.5*entropy*novel+0.5*masking", "2.0*frequency*novel"])
def test_products_are_text_and_back(text: str) -> None:
    made = registry.build("scorer", text)
    assert str(made) == text
    assert registry.build("scorer", str(made)) == made


def test_a_product_of_three_has_three_parts() -> None:
    made = registry.build("scorer", "entropy*confidence*given")
    assert isinstance(made, Product)
    assert len(made.inner) == 3
    assert made.needs.entropy == {1.0}
