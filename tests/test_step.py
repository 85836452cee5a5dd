"""One update: joined and separate passes, dropout by seed, denominators over micro-batches."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from expunge.core import Batch, Needs, Side, TokenStats
from expunge.fused import ReferenceRows
from expunge.recipe import Method, TermSpec
from expunge.step import Step, accumulate, join, seeded
from expunge.terms import Term, build_terms
from tests.contract import harness as h

FORGET, RETAIN = h.items(4), h.items(4, seed=9, prefix="r", longest=16)


class Noisy(h.Leaves):
    """Leaves behind dropout; counts its passes."""

    passes = 0

    def forward(self, batch: Batch, needs: Needs, reference: ReferenceRows | None = None) -> TokenStats:
        self.passes += 1
        return super().forward(batch, needs, reference)

    def hidden(self, batch: Batch) -> Tensor:
        return nn.functional.dropout(super().hidden(batch), 0.3, self.training)


def terms(forget: str = "ga", score: str = "uniform", select: str = "raw", retain: str = "nll") -> tuple[Term, ...]:
    specs = (TermSpec(objective=forget, score=score, select=select), TermSpec(objective=retain, on="retain", coef=0.5))
    return build_terms(Method(terms=specs))


def both(forget: slice = slice(None), retain: slice = slice(None)) -> dict[Side, Batch]:
    return {"forget": h.batch_of(FORGET[forget]), "retain": h.batch_of(RETAIN[retain])}


def grads(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def update(step: Step, model: nn.Module, micro: list[dict[Side, Batch]]) -> tuple[dict[str, Tensor], list[float]]:
    model.zero_grad()
    _, means = accumulate(step, model, micro, lambda loss: loss.backward(), list(range(len(micro))))
    return grads(model), means


@pytest.mark.parametrize(
    ("forget", "retain", "passes"), [("ga", "nll", 1), ("npo", "nll", 1), ("kl", "kl", 1), ("ga", "kl", 2)]
)
def test_one_pass_over_both_sides_gives_what_two_give(forget: str, retain: str, passes: int) -> None:
    model, reference = Noisy([*FORGET, *RETAIN]).eval(), h.reference_of([*FORGET, *RETAIN])
    made = terms(forget, "entropy:temperature=2", "normalised", retain)
    found, means = update(Step(made, reference), model, [both()])
    assert model.passes == passes
    expected, others = update(Step(made, reference, joined=False), model, [both()])
    assert model.passes == passes + 2
    assert means == pytest.approx(others, rel=1e-12)
    h.close(found, expected, rtol=1e-12)


def test_joined_batches_keep_every_row() -> None:
    batches = list(both().values())
    whole = join(batches)
    assert whole.ids == (*batches[0].ids, *batches[1].ids)
    width = batches[0].input_ids.shape[1]
    assert width < batches[1].input_ids.shape[1] == whole.input_ids.shape[1]
    assert whole.input_ids[:4, :width].equal(batches[0].input_ids)
    assert not whole.mask[:4, width:].any()
    assert not whole.attention_mask[:4, width:].any()
    assert whole.mask[4:].equal(batches[1].mask)


def test_each_side_is_asked_for_what_its_own_terms_need() -> None:
    step = Step(terms("kl", "entropy:temperature=2", "top", "nll"), h.reference_of(FORGET))
    assert step.needs("forget").entropy == {2.0}
    assert step.needs("forget").vocab
    assert not step.needs("retain").vocab
    assert not step.needs("general").policy


def test_dropout_is_a_function_of_the_seed() -> None:
    model = Noisy([*FORGET, *RETAIN])
    step = Step(terms())
    first, again = (update(step, model, [both()])[0] for _ in range(2))
    h.close(again, first, rtol=0.0)
    model.zero_grad()
    accumulate(step, model, [both()], lambda loss: loss.backward(), [77])
    with pytest.raises(AssertionError, match="differ"):
        h.close(grads(model), first, rtol=1e-3)


@pytest.mark.parametrize("select", ["top:r=0.4", "threshold"])
def test_counts_made_before_the_backward_see_the_dropout_of_the_pass_they_belong_to(select: str) -> None:
    """A hard selector under dropout selects other tokens in another pass: the count must be of the pass that trains."""
    model, micro = Noisy([*FORGET, *RETAIN]), [both(slice(2), slice(2)), both(slice(2, 4), slice(2, 4))]
    step = Step(terms("ga:denominator=selected", "entropy", select))
    for seeds in ([0, 1], [5, 6], [8, 9]):
        totals = step.totals(model, micro, seeds)
        values, means = accumulate(step, model, micro, lambda loss: loss.backward(), seeds)
        for k in (0, 1):
            own = [v for v in values if v.term is step.terms[k]]
            assert float(sum(v.count for v in own)) == float(totals[k])
            assert means[k] == pytest.approx(float(sum(v.value for v in own) / totals[k]))


def test_randomness_outside_is_left_as_it_was() -> None:
    model, micro = Noisy([*FORGET, *RETAIN]), [both(slice(2), slice(2)), both(slice(2, 4), slice(2, 4))]
    torch.manual_seed(11)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    update(Step(terms("ga", "entropy", "top")), model, micro)
    assert torch.get_rng_state().equal(before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert random.getstate() == before[2]


def test_a_seeded_block_repeats_itself_and_puts_the_generator_back() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeded(5, torch.device("cpu")):
        first = torch.rand(2)
    with seeded(5, torch.device("cpu")):
        assert torch.rand(2).equal(first)
    with pytest.raises(RuntimeError, match="boom"), seeded(5, torch.device("cpu")):
        raise RuntimeError("boom")
    assert torch.rand(2).equal(expected)


def test_values_that_are_not_finite_are_told_before_weights_are_made() -> None:
    model = h.Leaves([*FORGET, *RETAIN])
    with torch.no_grad():
        model.rows[RETAIN[1].id].fill_(float("nan"))
    step = Step(terms("ga", "entropy", "threshold"))
    with pytest.raises(FloatingPointError, match="retain batch"):
        accumulate(step, model, [both()], lambda loss: loss.backward(), [0])


def test_coefficients_scale_terms_in_the_gradient_but_not_in_their_means() -> None:
    model = h.Leaves([*FORGET, *RETAIN])
    made = terms()
    found, means = update(Step(made), model, [both()])
    plain = [Term(t.objective, t.on, t.score, t.select) for t in made]
    unscaled, others = update(Step(tuple(plain)), model, [both()])
    assert means == pytest.approx(others)
    name = f"rows.{RETAIN[0].id}"
    torch.testing.assert_close(found[name], unscaled[name] * 0.5)
