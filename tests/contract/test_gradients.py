"""Where gradients go: nowhere but to the tokens a term reads, never to the reference, never through scores."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator

import pytest
import torch
from torch import Tensor, nn

from expunge import registry
from expunge.core import Forward, Objective, Scorer, Selector, Weights
from expunge.fused import Head
from tests.contract import harness as h

RECORDS = h.items(5)
BATCH = h.batch_of(RECORDS)


def _by_token(found: dict[str, Tensor]) -> Tensor:
    """(B, T) the largest gradient entry at each position of BATCH; padding belongs to no record and is left at 0."""
    out = torch.zeros(BATCH.targets.shape, dtype=torch.float64)  # a saturated loss leaves less than float32 can say
    for row, item in enumerate(RECORDS):
        out[row, : len(item)] = found[item.id].abs().amax(-1)
    return out


@pytest.mark.parametrize("naive", [False, True], ids=["fused", "naive"])
@h.cells
def test_gradient_is_exactly_zero_where_nothing_is_read_and_not_where_something_is(
    objective: Objective, score: Scorer, select: Selector, naive: bool
) -> None:
    made, model, reference = h.term(objective, score, select), h.Leaves(RECORDS, naive=naive), h.reference_of(RECORDS)
    forward = h.forward_of(model, BATCH, made.needs, reference)
    h.allowed(made, forward)
    weights = made.weights(forward)
    chosen = h.read_by(objective, weights)
    read = h.touched(objective, chosen)
    found = _by_token(h.gradients([made], model, [BATCH], reference)[0])
    real = BATCH.attention_mask
    assert (found[real & ~read] == 0).all()
    assert (found[real & read] > 0).all(), "the method must be active on these inputs, or the test says nothing"
    assert read.any() or objective.needs.alternative
    if select.hard and not h.rectangular(objective) and not weights.flat:
        assert (real & ~chosen & BATCH.mask).any(), "a hard selector must have left something out"


@h.objectives
def test_zero_weights_give_zero_gradient_and_no_value_where_nothing_is_read(objective: Objective) -> None:
    if h.rectangular(objective):
        pytest.skip("weights have no meaning there")
    model = h.Leaves(RECORDS)
    forward = h.forward_of(model, BATCH, objective.needs, h.reference_of(RECORDS))
    nothing = torch.zeros(BATCH.targets.shape)
    loss = objective(forward, Weights(nothing, BATCH.mask))
    loss.value.sum().backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in model.parameters())
    loss = objective(forward, Weights(nothing, torch.zeros_like(BATCH.mask)))
    assert loss.value.tolist() == loss.count.tolist() == [0.0] * len(BATCH)


@h.objectives
def test_no_gradient_reaches_the_reference(objective: Objective) -> None:
    made, model, reference = h.term(objective), h.Leaves(RECORDS), h.reference_of(RECORDS)
    h.gradients([made], model, [BATCH], reference)
    assert all(p.requires_grad and p.grad is None for p in reference.module.parameters())


@h.objectives
def test_no_gradient_reaches_reference_rows_that_carry_one(objective: Objective) -> None:
    """Whoever hands over hidden states with a graph behind them does not train the reference by it."""
    if not any(m.reads_reference for m in objective.needs.vocab):
        pytest.skip("reads no rows of the reference")
    for naive in (False, True):
        model, other = h.Leaves(RECORDS, naive=naive), h.Leaves(RECORDS, seed=9)
        read = torch.ones_like(BATCH.mask) if objective.needs.everywhere else BATCH.mask
        weight = torch.eye(h.VOCABULARY, dtype=torch.float64, requires_grad=True)
        rows = h.ReferenceRows(other.hidden(BATCH)[read], Head(weight))
        forward = Forward(BATCH, model(BATCH, objective.needs, rows))
        objective(forward, Weights.ones(BATCH.mask)).value.sum().backward()
        assert weight.grad is None
        assert all(p.grad is None for p in other.parameters())


@pytest.mark.parametrize("score", h.SCORERS, ids=str)
def test_scores_are_detached_and_zero_where_nothing_is_scored(score: Scorer) -> None:
    model = h.Leaves(RECORDS)
    forward = h.forward_of(model, BATCH, score.needs, h.reference_of(RECORDS))
    found = score(forward, None)
    assert found.shape == BATCH.targets.shape
    assert not found.requires_grad
    assert (found[~BATCH.mask] == 0).all()
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("score", h.SCORERS, ids=str)
def test_a_score_that_needs_no_model_does_not_look_at_one(score: Scorer) -> None:
    if score.needs.policy:
        pytest.skip("looks at the model")
    forward = h.forward_of(h.Leaves(RECORDS), BATCH, score.needs)
    assert torch.equal(score(forward, None), score(Forward.before(BATCH), None))


def _extreme(kind: str, dtype: torch.dtype) -> h.Leaves:
    """Records whose targets are certain (p -> 1), impossible (p -> 0), or now one, now the other, with huge logits."""
    model = h.Leaves(RECORDS, dtype=dtype, spread=0.1)
    for item in RECORDS:
        rows = torch.zeros(len(item), h.VOCABULARY)
        for t, target in enumerate(item.targets.tolist()):
            if target >= 0:
                size = {"certain": 60.0, "impossible": -60.0, "huge": 3e4 if t % 2 else -3e4}[kind]
                rows[t, target] = size
        model.rows[item.id] = nn.Parameter(model.rows[item.id].detach() + rows.to(dtype))
    return model


KINDS = ("certain", "impossible", "huge")
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


@DTYPES
@pytest.mark.parametrize("weighted", [("uniform", "raw"), ("entropy", "normalised"), ("confidence", "top")], ids=str)
@h.objectives
def test_loss_and_gradient_are_finite_where_p_goes_to_0_and_to_1(
    objective: Objective, weighted: tuple[str, str], dtype: torch.dtype
) -> None:
    made, reference = h.term(objective, *weighted), h.reference_of(RECORDS, dtype=dtype)
    for kind in KINDS:
        found, (mean,) = h.gradients([made], _extreme(kind, dtype), [BATCH], reference)
        assert math.isfinite(mean), kind
        assert all(torch.isfinite(g).all() for g in found.values()), kind


@functools.cache
def _scored(kind: str, dtype: torch.dtype) -> Forward:
    """One pass over the extreme records for all that any score reads."""
    needs = functools.reduce(operator.or_, (score.needs for score in h.SCORERS))
    return h.forward_of(_extreme(kind, dtype), BATCH, needs, h.reference_of(RECORDS, dtype=dtype))


@DTYPES
@pytest.mark.parametrize("select", h.SELECTORS, ids=lambda s: str(s).replace(" ", ""))
@pytest.mark.parametrize("score", h.SCORERS, ids=str)
def test_weights_are_finite_where_p_goes_to_0_and_to_1(score: Scorer, select: Selector, dtype: torch.dtype) -> None:
    made = h.term(registry.build("objective", "ga"), score, select)
    for kind in KINDS:
        forward = _scored(kind, dtype)
        h.allowed(made, forward)
        assert torch.isfinite(made.weights(forward).value).all(), kind


@h.objectives
def test_an_empty_mask_has_a_defined_result(objective: Objective) -> None:
    nobody = [h.empty(item) for item in RECORDS]
    made, model, reference = h.term(objective, "uniform", "raw"), h.Leaves(nobody), h.reference_of(nobody)
    found, (mean,) = h.gradients([made], model, [h.batch_of(nobody)], reference)
    if h.rectangular(objective):
        assert mean > 0
        return
    assert mean == 0.0
    assert all((g == 0).all() for g in found.values())


@h.cells
def test_a_record_without_scored_tokens_changes_nothing(objective: Objective, score: Scorer, select: Selector) -> None:
    if h.rectangular(objective):
        pytest.skip("reads all positions")
    more = [*RECORDS, h.empty(h.items(6)[5])]
    made, model, reference = h.term(objective, score, select), h.Leaves(more), h.reference_of(more)
    h.allowed(made, h.forward_of(model, BATCH, made.needs, reference))
    expected, (mean,) = h.gradients([made], model, [BATCH], reference)
    found, (other,) = h.gradients([made], model, [h.batch_of(more)], reference)
    assert other == pytest.approx(mean, rel=1e-6)
    h.close(found, expected, rtol=1e-6)


def test_these_tests_notice_a_score_that_lets_gradient_through() -> None:
    @dataclasses.dataclass(frozen=True)
    class Leaky:
        needs = registry.build("scorer", "confidence").needs

        def __call__(self, forward: Forward, state: object) -> Tensor:
            return forward.policy.logp.exp().masked_fill(~forward.mask, 0.0)

    made = h.term(registry.build("objective", "ga"), Leaky(), "raw")
    with pytest.raises(ValueError, match="carry a gradient"):
        made.weights(h.forward_of(h.Leaves(RECORDS), BATCH, made.needs))
