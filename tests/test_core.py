"""The nouns: alignment, union of needs, the one check of weights, and the reductions worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from expunge.core import (
    IGNORE,
    NOTHING,
    Batch,
    Denominator,
    Forward,
    Needs,
    Reduction,
    Weights,
    row_sum,
    scatter,
    weighted,
    weighted_count,
)
from expunge.objectives.retain import KLToReference

MASK = torch.tensor([[True, True, False], [True, True, True], [True, True, False]])


def batch() -> Batch:
    ids = torch.tensor([[5, 6, 7], [5, 8, 2]])
    targets = torch.tensor([[IGNORE, 7, IGNORE], [8, 2, IGNORE]])
    static = {"gold": torch.ones(2, 3)}
    return Batch(ids, targets, torch.ones(2, 3, dtype=torch.bool), ("a", "b"), static, torch.tensor([3, 4]))


def test_the_mask_is_where_there_is_a_target() -> None:
    assert batch().mask.tolist() == [[False, True, False], [True, True, False]]
    assert len(batch()) == 2


def test_a_rows_generator_depends_on_its_draw_alone_and_is_fresh_each_time() -> None:
    b = batch()
    first = torch.rand(3, generator=b.generator(0))
    assert torch.rand(3, generator=b.generator(0)).equal(first)
    assert not torch.rand(3, generator=b.generator(1)).equal(first)
    assert torch.rand(3, generator=torch.Generator().manual_seed(3)).equal(first)


def test_a_batch_without_draws_cannot_be_asked_for_randomness() -> None:
    b = batch()
    bare = Batch(b.input_ids, b.targets, b.attention_mask, b.ids)
    with pytest.raises(ValueError, match="no draws"):
        bare.generator(0)


def test_a_batch_moves_with_all_it_holds() -> None:
    b = batch()
    inner = Batch(b.input_ids, b.targets, b.attention_mask, b.ids)
    there = Batch(b.input_ids, b.targets, b.attention_mask, b.ids, b.static, b.draws, inner).to("meta")
    assert there.alternative is not None
    assert there.draws is not None
    moved = [there.input_ids, there.targets, there.attention_mask, there.static["gold"], there.draws]
    assert {t.device.type for t in [*moved, there.alternative.input_ids]} == {"meta"}
    assert there.alternative.draws is None


def test_needs_unite_field_by_field() -> None:
    kl = frozenset({KLToReference("forward")})
    everything = Needs(
        everywhere=True,
        reference=True,
        second_moment=True,
        entropy=frozenset({2.0}),
        hidden=frozenset({(3, "own")}),
        vocab=kl,
        alternative=frozenset({"own"}),
        smoothing=frozenset({(2.0, 1.0)}),
    )
    assert NOTHING | everything == everything == everything | NOTHING == everything | everything
    both = Needs(entropy=frozenset({1.0}), hidden=frozenset({(0.5, "before")})) | everything
    assert both.entropy == {1.0, 2.0}
    assert both.hidden == {(3, "own"), (0.5, "before")}
    assert not (NOTHING | NOTHING).policy
    assert (NOTHING | Needs()).policy


def test_needs_know_whether_they_read_the_reference() -> None:
    assert not Needs().any_reference
    assert Needs(reference=True).any_reference
    assert Needs(vocab=frozenset({KLToReference("reverse")})).any_reference


def test_before_a_model_has_run_all_statistics_are_zero() -> None:
    forward = Forward.before(batch())
    assert forward.mask.equal(batch().mask)
    for values in (forward.policy.logp, forward.policy.label_logit, forward.policy.lse, forward.policy.top1):
        assert values.shape == (2, 3)
        assert not values.any()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[1.0, math.nan, 0.0]], "not finite"),
        ([[1.0, math.inf, 0.0]], "not finite"),
        ([[1.0, -0.5, 0.0]], "must be >= 0; found -0.5"),
        ([[1.0, 1.0, 0.5]], "0 outside their mask"),
        ([[1.0, 1.0]], r"shape \(1, 2\), their mask \(1, 3\)"),
    ],
)
def test_weights_are_checked_where_they_are_made(value: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Weights(torch.tensor(value), MASK[:1])


def test_weights_must_be_detached() -> None:
    with pytest.raises(ValueError, match="detached"):
        Weights(torch.zeros(1, 3, requires_grad=True), MASK[:1])


def test_ones_are_one_on_the_mask() -> None:
    assert Weights.ones(MASK).value.tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 0]]


# Three rows: two of two tokens, one of three. The last has no token selected.
VALUES = torch.tensor([[1.0, 2.0, 9.0], [3.0, 4.0, 5.0], [7.0, 7.0, 9.0]])
HALF = Weights(
    torch.tensor([[0.5, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 0.0]]),
    torch.tensor([[True, True, False], [False, True, True], [False, False, False]]),
)


@pytest.mark.parametrize(
    ("reduction", "denominator", "value", "count"),
    [
        ("token", "scored", [2.5, 13.0, 0.0], [2.0, 3.0, 0.0]),
        ("token", "selected", [2.5, 13.0, 0.0], [1.5, 3.0, 0.0]),
        ("sequence", "scored", [1.25, 13 / 3, 0.0], [1.0, 1.0, 0.0]),
        ("sequence", "selected", [2.5 / 1.5, 13 / 3, 0.0], [1.0, 1.0, 0.0]),
        ("sum", "scored", [2.5, 13.0, 0.0], [1.0, 1.0, 0.0]),
        ("sum", "selected", [2.5, 13.0, 0.0], [1.0, 1.0, 0.0]),
    ],
)
def test_reductions(reduction: Reduction, denominator: Denominator, value: list[float], count: list[float]) -> None:
    loss = weighted(VALUES, HALF, MASK, reduction, denominator)
    assert loss.value.tolist() == pytest.approx(value)
    assert loss.count.tolist() == pytest.approx(count)
    assert weighted_count(HALF, MASK, reduction, denominator).tolist() == pytest.approx(count)


def test_a_sum_skips_infinite_values_at_weight_zero_and_their_gradient() -> None:
    values = torch.tensor([[1.0, -math.inf, math.nan]], requires_grad=True)
    total = row_sum(values, torch.tensor([[2.0, 0.0, 0.0]]))
    total.sum().backward()
    assert total.tolist() == [2.0]
    assert values.grad is not None
    assert values.grad.tolist() == [[2.0, 0.0, 0.0]]


def test_scatter_puts_rows_at_the_mask_and_exact_zeros_elsewhere() -> None:
    mask = torch.tensor([[True, False, True], [False, True, False]])
    rows: Tensor = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], requires_grad=True)
    assert scatter(rows[:, 0], mask).tolist() == [[1, 0, 3], [0, 5, 0]]
    full = scatter(rows, mask)
    assert full.shape == (2, 3, 2)
    assert full[0, 2].tolist() == [3, 4]
    (full * 2).sum().backward()
    assert rows.grad is not None
    assert (rows.grad == 2).all()
    assert scatter(torch.zeros(0), torch.zeros(2, 3, dtype=torch.bool)).tolist() == [[0] * 3] * 2
