"""Scores become weights: hand-worked numbers, edges, and the controls."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from expunge import registry
from expunge.core import Selector, random_scores
from expunge.weighting.controls import MATCHED, Control, controlled
from expunge.weighting.selection import Normalised, Raw, Threshold, Top

MASK = torch.tensor([[True, True, True, True, False]])
SCORES = torch.tensor([[0.4, 0.1, 0.4, 0.1, 0.0]])


def draws(row: int) -> torch.Generator:
    return torch.Generator().manual_seed(100 + row)


def test_normalised_weights_sum_to_the_number_of_tokens() -> None:
    made = Normalised()(SCORES, MASK)
    torch.testing.assert_close(made.value, torch.tensor([[1.6, 0.4, 1.6, 0.4, 0.0]]))
    assert made.flat == 0


def test_normalised_is_uniform_where_the_scores_have_vanished_and_counts_it() -> None:
    scores = torch.tensor([[1e-8, 0.0, 0.0], [1.0, 0.0, 1.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    made = Normalised()(scores, mask)
    assert made.value.tolist() == [[1.0, 1.0, 1.0], [2.0, 0.0, 0.0]]
    assert made.flat == 1


@pytest.mark.parametrize("spec", ["raw", "normalised", "top", "threshold", "threshold:value=0.1", "top > normalised"])
def test_a_sequence_without_scored_tokens_has_no_weight_and_is_not_flat(spec: str) -> None:
    made: Selector = registry.build("selector", spec)
    weights = made(torch.zeros(2, 3), torch.tensor([[False] * 3, [True, True, False]]))
    assert weights.value[0].tolist() == [0.0, 0.0, 0.0]
    assert not weights.mask[0].any()
    assert weights.flat <= 2  # only the second row, once a selector of the chain
    empty = made(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.bool))
    assert empty.value.shape == (0, 3)


@pytest.mark.parametrize(("r", "count"), [(0.0, 1), (0.2, 1), (0.25, 1), (0.26, 2), (0.3, 2), (0.75, 3), (1.0, 4)])
def test_top_takes_the_ceiling_and_at_least_one(r: float, count: int) -> None:
    made = Top(r=r)(torch.tensor([[0.4, 0.1, 0.3, 0.2, 9.0]]), MASK)
    assert made.value.sum() == count
    assert made.mask.equal(made.value > 0)


def test_top_is_exact_where_a_share_of_the_tokens_is_a_whole_number() -> None:
    scores = torch.arange(10.0)[None]
    assert [int(Top(r=k / 10)(scores, scores >= 0).value.sum()) for k in range(1, 11)] == list(range(1, 11))


def test_top_gives_ties_to_the_earliest() -> None:
    assert Top(r=0.25)(SCORES, MASK).value.tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0]]
    assert Top(r=0.75)(SCORES, MASK).value.tolist() == [[1.0, 1.0, 1.0, 0.0, 0.0]]


@pytest.mark.parametrize("select", [Top(r=0.25), Threshold()], ids=str)
def test_flat_scores_get_uniform_weights_and_are_counted(select: Selector) -> None:
    flat = torch.tensor([[0.1, 0.1, 0.1 + 5e-7, 0.1, 3.0], [0.1, 0.2, 0.3, 0.4, 3.0]])
    made = select(flat, MASK.expand(2, 5))
    assert made.value[0].tolist() == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert 0 < made.value[1].sum() < 4
    assert made.flat == 1


@pytest.mark.parametrize("select", [Top(r=0.25), Threshold()], ids=str)
def test_one_token_is_selected_and_not_flat(select: Selector) -> None:
    made = select(torch.tensor([[0.3, 0.0]]), torch.tensor([[True, False]]))
    assert made.value.tolist() == [[1.0, 0.0]]
    assert made.flat == 0


def test_threshold_is_mean_plus_k_standard_deviations_of_the_sequence() -> None:
    scores = torch.tensor([[1.0, 3.0, 8.0, 100.0]])
    mask = torch.tensor([[True, True, True, False]])  # mean 4, population standard deviation sqrt(26/3) = 2.944
    assert Threshold()(scores, mask).value.tolist() == [[0.0, 0.0, 1.0, 0.0]]
    assert Threshold(k=-0.5)(scores, mask).value.tolist() == [[0.0, 1.0, 1.0, 0.0]]
    assert Threshold(k=1.35)(scores, mask).value.tolist() == [[0.0, 0.0, 1.0, 0.0]]
    assert Threshold(k=1.37)(scores, mask).value.tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_a_fixed_threshold_is_strict_and_may_select_nothing() -> None:
    made = Threshold(value=0.4)(SCORES, MASK)
    assert made.value.sum() == 0
    assert made.flat == 0
    assert Threshold(value=0.1)(SCORES, MASK).value.tolist() == [[1.0, 0.0, 1.0, 0.0, 0.0]]


def test_raw_refuses_scores_that_cannot_be_weights() -> None:
    with pytest.raises(ValueError, match=">= 0"):
        Raw()(torch.tensor([[-1.0, 1.0]]), torch.tensor([[True, True]]))
    assert Raw()(torch.tensor([[1.0, -1.0]]), torch.tensor([[True, False]])).value.tolist() == [[1.0, 0.0]]


def test_a_chain_reads_the_weights_before_it_as_scores() -> None:
    made = registry.build("selector", "top:r=0.5 > normalised")(torch.tensor([[0.4, 0.1, 0.3, 0.2, 0.0]]), MASK)
    assert made.value.tolist() == [[2.0, 0.0, 2.0, 0.0, 0.0]]
    assert made.mask.equal(MASK)


rows = st.lists(st.floats(0, 5, width=32), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=4), st.sampled_from(["raw", "normalised", "top:r=0.4", "threshold:k=0.3"]))
def test_shuffle_keeps_count_sum_and_histogram_of_each_sequence(values: list[list[float]], spec: str) -> None:
    width = max(map(len, values)) + 1
    scores = torch.tensor([row + [0.0] * (width - len(row)) for row in values])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in values])
    select = registry.build("selector", spec)
    true, shuffled = select(scores, mask), controlled(select, scores, mask, "shuffle", draws)
    assert shuffled.mask.sum(-1).tolist() == true.mask.sum(-1).tolist()
    assert shuffled.value.sort(-1).values.equal(true.value.sort(-1).values)
    assert shuffled.flat == true.flat


def test_shuffle_moves_weights_together_with_their_mask() -> None:
    scores, mask = torch.arange(20.0)[None], torch.ones(1, 20, dtype=torch.bool)
    made = controlled(Top(r=0.3), scores, mask, "shuffle", draws)
    assert made.mask.equal(made.value > 0)
    assert not made.mask.equal(Top(r=0.3)(scores, mask).mask)


def test_random_control_selects_as_many_tokens_whatever_the_scores() -> None:
    scores, mask = torch.arange(40.0).reshape(2, 20), torch.ones(2, 20, dtype=torch.bool)
    made = controlled(Top(r=0.3), scores, mask, "random", draws)
    assert made.value.sum(-1).tolist() == [6.0, 6.0]
    assert made.value.equal(controlled(Top(r=0.3), -scores, mask, "random", draws).value)


def test_invert_reverses_the_order_within_each_sequence() -> None:
    scores = torch.tensor([[0.2, 0.9, 0.5, 7.0], [2.0, 4.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    made = controlled(Raw(), scores, mask, "invert", draws).value
    torch.testing.assert_close(made, torch.tensor([[0.9, 0.2, 0.6, 0.0], [4.0, 2.0, 0.0, 0.0]]))
    given_spans = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    assert controlled(Threshold(value=0.5), given_spans, MASK[:, :4], "invert", draws).value.tolist() == [[1, 0, 1, 1]]


@pytest.mark.parametrize("control", MATCHED)
def test_controls_that_are_matched_elsewhere_have_uniform_weights(control: Control) -> None:
    made = controlled(Top(r=0.3), SCORES, MASK, control, draws)
    assert made.value.equal(MASK.float())
    assert made.mask.equal(MASK)


def test_no_control_is_the_selector_itself() -> None:
    assert controlled(Normalised(), SCORES, MASK, "none", draws).value.equal(Normalised()(SCORES, MASK).value)


@pytest.mark.parametrize("control", ["random", "shuffle", "invert"])
def test_a_control_depends_on_the_record_alone(control: Control) -> None:
    scores, mask = torch.rand(3, 9, generator=draws(0)), torch.ones(3, 9, dtype=torch.bool)
    mask[1, 5:] = False
    together = controlled(Top(), scores, mask, control, draws).value
    for row in range(3):
        alone = controlled(Top(), scores[row : row + 1], mask[row : row + 1], control, lambda _, row=row: draws(row))
        assert alone.value.equal(together[row : row + 1])


def test_random_scores_are_uniform_and_leave_torchs_own_generator_alone() -> None:
    mask = torch.ones(1, 20_000, dtype=torch.bool)
    mask[0, ::2] = False
    before = torch.get_rng_state()
    found: Tensor = random_scores(mask, draws)
    assert torch.get_rng_state().equal(before)
    assert found[~mask].abs().sum() == 0
    assert float(found[mask].mean()) == pytest.approx(0.5, abs=0.01)  # the mean of 10,000 has a deviation of 0.003
    assert 0 <= float(found.min()) <= float(found.max()) < 1


def test_skip_counts_scored_tokens_and_may_leave_nothing() -> None:
    mask = torch.tensor([[False, True, False, True, True], [True, False, False, False, False]])
    weights = registry.build("selector", "skip:n=2")(torch.full(mask.shape, 0.5), mask)
    assert weights.value.tolist() == [[0.0, 0.0, 0.0, 0.0, 0.5], [0.0] * 5]
    assert weights.mask.sum(-1).tolist() == [1, 0]
    whole = registry.build("selector", "skip:n=0")(torch.full(mask.shape, 0.5), mask)
    assert torch.equal(whole.mask, mask)


def test_onset_takes_the_first_tokens_of_each_run_and_a_gap_begins_a_new_one() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0, 0.0, 4.0, 5.0, 6.0, 7.0]])
    mask = torch.tensor([[True, True, True, True, True, False, True, True]])
    taken = {n: registry.build("selector", f"onset:n={n}")(scores, mask).value.tolist()[0] for n in (1, 2, 9)}
    assert taken[1] == [1.0, 0.0, 0.0, 0.0, 4.0, 0.0, 6.0, 0.0]
    assert taken[2] == [1.0, 2.0, 0.0, 0.0, 4.0, 0.0, 6.0, 7.0]
    assert taken[9] == [1.0, 2.0, 3.0, 0.0, 4.0, 0.0, 6.0, 7.0]
    spans = registry.build("selector", "threshold:value=2.5 > onset:n=1")(scores, mask)
    assert spans.value.tolist() == [[0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]]


def test_fill_closes_short_gaps_of_scored_tokens_alone() -> None:
    mask = torch.tensor([[True, True, False, False, True, True, True, True, True, True]])
    scores = torch.tensor([[0.0, 1.0, 9.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 1.0]])
    fill: Selector = registry.build("selector", "fill")
    # one scored token lies between the first two; then three, which is too many
    assert fill(scores, mask).value.tolist() == [[0.0, 1.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0, 1.0]]
    wide: Selector = registry.build("selector", "fill:gap=3")
    assert wide(scores, mask).value.tolist() == [[0.0, 1.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0]]
