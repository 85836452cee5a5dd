"""Gradients kept apart and put together, and steps that are measured or rescaled."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from expunge.combine import (
    Apart,
    Combine,
    Gradient,
    GradMatched,
    Project,
    Sago,
    Split,
    combine_of,
    measured_step,
    norm,
    rescaled_step,
)
from expunge.core import Batch, Side
from expunge.errors import MethodError, TrainingError
from expunge.lm import Scored
from expunge.recipe import Method, TermSpec
from expunge.step import Step, accumulate
from expunge.terms import Term, build_terms
from tests.contract import harness as h
from tests.fixtures.models import tiny
from tests.test_step import FORGET, RETAIN, Noisy, both, grads

HARD = (
    TermSpec(objective="ga:denominator=selected", score="entropy", select="top:r=0.3", coef=0.7),
    TermSpec(objective="nll", on="retain", coef=0.5),
)
Micro = list[dict[Side, Batch]]
PIECES: list[Micro] = [[both()], [both(slice(1), slice(1)), both(slice(1, 4), slice(1, 4))]]


def terms(control: str = "grad-matched", specs: Sequence[TermSpec] = HARD) -> tuple[Term, ...]:
    return build_terms(Method(terms=tuple(specs), control=control))  # type: ignore[arg-type]


def backward(loss: Tensor, **settings: bool) -> None:
    loss.backward(**settings)  # type: ignore[no-untyped-call]


def plain(made: Sequence[Term], model: nn.Module, micro: Micro) -> dict[str, Tensor]:
    """The gradient of the sum of the terms."""
    model.zero_grad()
    accumulate(Step(tuple(made)), model, micro, backward, list(range(len(micro))))
    return grads(model)


def matched(made: tuple[Term, ...], model: nn.Module, micro: Micro) -> tuple[dict[str, Tensor], float]:
    model.zero_grad()
    combine = GradMatched()
    split = combine.split(made)
    apart = Apart([p for p in model.parameters() if p.requires_grad], split)
    accumulate(Step(split.terms), model, micro, backward, list(range(len(micro))), apart)
    report = apart.meet(combine)
    return grads(model), report["forget_scale"]


def length(gradient: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(g.square().sum()) for g in gradient.values()))


@pytest.mark.parametrize("micro", PIECES, ids=["whole", "in pieces"])
def test_the_forget_gradient_is_the_uniform_one_as_long_as_the_weighted_one(micro: Micro) -> None:
    """Against three separate backward passes, each with the dropout of the same seeds."""
    model = Noisy([*FORGET, *RETAIN])
    uniform, retain = terms()
    weighted = terms("none")[0]
    # the retain batch is there each time: dropout is drawn for both at once
    made = [plain([t, stub], model, micro) for t, stub in ((uniform, nothing(retain)), (weighted, nothing(retain)))]
    kept = plain([nothing(uniform), retain], model, micro)
    scale = length(made[1]) / length(made[0])
    found, factor = matched(terms(), model, micro)
    assert factor == pytest.approx(scale, rel=1e-6)
    assert abs(scale - 1) > 0.05, "the weights must matter, or the test says nothing"
    h.close(found, {name: scale * made[0][name] + kept[name] for name in found}, rtol=1e-6)


def nothing(term: Term) -> Term:
    """The term with factor 0: its batch is read, and adds nothing."""
    return Term(term.objective, term.on, term.score, term.select, term.tokens, coef=0.0)


def test_matching_micro_batch_by_micro_batch_would_be_noticed() -> None:
    """The break on purpose: one factor for the whole update is not a factor a micro-batch."""
    model = Noisy([*FORGET, *RETAIN]).eval()
    whole, _ = matched(terms(), model, PIECES[0])
    pieces, _ = matched(terms(), model, PIECES[1])
    h.close(pieces, whole, rtol=1e-6)
    each = [matched(terms(), model, [piece])[0] for piece in PIECES[1]]
    wrong = {n: sum((g.get(n, 0 * whole[n]) for g in each), start=0 * whole[n]) / 2 for n in whole}
    with pytest.raises(AssertionError, match="differ"):
        h.close(wrong, whole, rtol=1e-3)


def test_uniform_weights_are_matched_by_themselves() -> None:
    specs = (TermSpec(objective="ga"), HARD[1])
    model = Noisy([*FORGET, *RETAIN]).eval()
    found, scale = matched(terms(specs=specs), model, PIECES[0])
    assert scale == 1.0
    h.close(found, plain(terms("none", specs), model, PIECES[0]), rtol=1e-12)


def test_a_method_without_a_retain_term_is_matched_too() -> None:
    model = Noisy(FORGET).eval()
    micro: Micro = [{"forget": h.batch_of(FORGET)}]
    found, scale = matched(terms(specs=HARD[:1]), model, micro)
    assert length(found) == pytest.approx(length(plain(terms("none", HARD[:1]), model, micro)), rel=1e-6)
    assert scale != 1.0


def test_what_reads_all_tokens_is_no_part_of_what_is_scaled() -> None:
    leash = TermSpec(objective="nll", tokens="all", coef=0.1)
    split = GradMatched().split(terms(specs=(HARD[0], leash, HARD[1])))
    parts = {name: list(part) for name, part in split.parts.items()}
    assert parts == {"forget": [0], "weighted": [3], "others": [1, 2]}
    assert [t.control for t in split.terms if t.on == "forget"] == ["grad-matched", "grad-matched", "none"]


def test_only_this_control_keeps_gradients_apart() -> None:
    assert combine_of(terms()) == GradMatched()
    for control in ("none", "random", "update-matched"):
        assert combine_of(terms(control)) is None


def test_scaling_by_hand() -> None:
    """||(3, 4)|| = 5 made as long as ||(0, 10)||: twice (3, 4), and (1, 1) on top. None is nothing."""
    gradients: dict[str, Gradient] = {
        "forget": [torch.tensor([3.0, 4.0]), None, None],
        "weighted": [torch.tensor([0.0, 10.0]), None, None],
        "others": [torch.tensor([1.0, 1.0]), torch.tensor([7.0]), None],
    }
    (first, second, third), report = GradMatched()(gradients)
    assert first is not None
    assert second is not None
    assert (first.tolist(), second.tolist(), third, report) == ([7.0, 9.0], [7.0], None, {"forget_scale": 2.0})


def test_no_factor_makes_nothing_as_long_as_something() -> None:
    zero, one = [torch.zeros(2)], [torch.ones(2)]
    with pytest.raises(TrainingError, match=r"gradient of uniform weights is 0 where the method's has norm 1.41"):
        GradMatched()({"forget": zero, "weighted": one})
    assert GradMatched()({"forget": zero, "weighted": zero})[1] == {"forget_scale": 1.0}


class Gate:
    """Another way to meet, as SAGO's: where the signs agree the forget gradient, elsewhere the retain gradient."""

    def split(self, terms: Sequence[Term]) -> Split:
        return Split(tuple(terms), {"forget": (0,), "retain": (1,)})

    def __call__(self, gradients: Mapping[str, Gradient]) -> tuple[Gradient, dict[str, float]]:
        pairs = list(zip(gradients["forget"], gradients["retain"], strict=True))
        return [torch.where(f.sign() == r.sign(), f, r) for f, r in pairs if f is not None and r is not None], {}


def test_other_ways_to_meet_fit_in() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 1.0]))
    apart = Apart([parameter], Gate().split(terms("none")))
    for _ in range(2):  # two micro-batches
        losses = [(parameter * torch.tensor([1.0, -1.0])).sum(), (parameter * torch.tensor([2.0, 2.0])).sum()]
        apart.backward(losses, backward)
    assert parameter.grad is None
    apart.meet(Gate())
    assert parameter.grad is not None
    assert parameter.grad.tolist() == [2.0, 4.0]


# Steps


def stepped() -> tuple[nn.Sequential, torch.optim.Optimizer]:
    """Three layers with gradients on two of them, and their optimiser."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2))
        for parameter in list(module.parameters())[:4]:
            parameter.grad = torch.randn_like(parameter)
    return module, torch.optim.AdamW(module.parameters(), lr=0.1, weight_decay=0.1)


def copied(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def moved(module: nn.Module, before: Sequence[Tensor]) -> float:
    return norm([p.detach() - b for p, b in zip(module.parameters(), before, strict=True)])


def shared() -> Scored:
    """A model all of whose parameters both sides reach."""
    return Scored(tiny("llama"))


def met(combine: Combine, made: tuple[Term, ...], micro: Micro) -> tuple[dict[str, Tensor], dict[str, float]]:
    model, split = shared(), combine.split(made)
    apart = Apart([p for p in model.parameters() if p.requires_grad], split)
    accumulate(Step(split.terms, joined=False), model, micro, backward, list(range(len(micro))), apart)
    report = apart.meet(combine)
    return {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}, report


def each_part(micro: Micro) -> list[dict[str, Tensor]]:
    found = []
    for term in terms("none"):
        model = shared()
        accumulate(Step((term,), joined=False), model, micro, backward, list(range(len(micro))))
        found.append({name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None})
    return found


@pytest.mark.parametrize("micro", PIECES, ids=["whole", "in pieces"])
def test_projection_leaves_nothing_against_what_retains(micro: Micro) -> None:
    forget, retain = each_part(micro)
    inner = sum(float((forget[n] * retain[n]).sum()) for n in forget)
    square = sum(float(g.square().sum()) for g in retain.values())
    found, report = met(Project(), terms("none"), micro)
    assert inner < 0, "or the test says nothing"
    assert report["gradient_cosine"] == pytest.approx(inner / (length(forget) * math.sqrt(square)), rel=1e-5)
    share = min(0.0, inner) / square
    expected = {n: retain[n] + forget[n] - share * retain[n] for n in forget}
    h.close(found, expected, rtol=1e-6)
    left = sum(float(((found[n] - retain[n]) * retain[n]).sum()) for n in found)
    assert left >= -1e-5 * square


@pytest.mark.parametrize("micro", PIECES, ids=["whole", "in pieces"])
def test_sago_follows_the_forget_gradient_where_signs_agree(micro: Micro) -> None:
    forget, retain = each_part(micro)
    found, report = met(Sago(), terms("none"), micro)
    expected = {n: torch.where(forget[n].sign() == retain[n].sign(), forget[n], retain[n]) for n in forget}
    h.close(found, expected, rtol=1e-6)
    assert 0.2 < report["agreeing"] < 0.8


def test_projection_by_hand_with_a_part_that_only_one_reaches() -> None:
    one, two = torch.tensor([3.0, 0.0]), torch.tensor([-1.0, 1.0])
    gradient, report = Project()({"forget": [one, None, one], "others": [two, two, None]})
    # <g_f, g_r> = -3, ||g_r||^2 = 4: g_r grows by 3/4
    assert [g.tolist() for g in gradient if g is not None] == [[1.25, 1.75], [-1.75, 1.75], [3.0, 0.0]]
    assert report["gradient_cosine"] == pytest.approx(-3 / (math.sqrt(18) * 2))
    agreeing, _ = Project()({"forget": [one], "others": [-two]})
    assert [g.tolist() for g in agreeing if g is not None] == [[4.0, -1.0]], "a plain sum where nothing is against"
    gated, report = Sago()({"forget": [one, None, one], "others": [two, two, None]})
    assert [None if g is None else g.tolist() for g in gated] == [[-1.0, 1.0], [-1.0, 1.0], None]
    assert report == {"agreeing": 0.0}


def test_what_is_held_on_forget_records_is_no_part_of_what_forgets() -> None:
    made = build_terms(Method(preset="tif-retain"))
    assert Project().split(made).parts == {"forget": (0,), "others": (1, 2)}
    with pytest.raises(MethodError, match="combine=sago needs a term beside those that forget"):
        Sago().split(build_terms(Method(preset="ga")))


def test_one_way_to_meet_at_a_time() -> None:
    assert combine_of(terms("none"), "project") == Project()
    assert combine_of(terms("none"), "sago") == Sago()
    with pytest.raises(MethodError, match="grad-matched scales"):
        combine_of(terms("grad-matched"), "sago")


def test_a_step_in_pieces_is_the_step_to_the_bit_and_its_length_is_measured() -> None:
    (whole, optimizer), (pieces, other) = stepped(), stepped()
    start, gradients = copied(whole), [p.grad for p in pieces.parameters()]
    for _ in range(3):
        before = copied(whole)
        optimizer.step()
        found = measured_step(other, [list(layer.parameters()) for layer in pieces])
        assert found == pytest.approx(moved(whole, before), rel=1e-6)
        assert found > 0
        assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), pieces.parameters(), strict=True))
    assert all(a is b for a, b in zip(gradients, [p.grad for p in pieces.parameters()], strict=True))
    assert torch.equal(start[4], copied(pieces)[4]), "what has no gradient does not move, nor decay"


def test_a_step_is_rescaled_to_the_length_that_is_asked_for_in_its_own_direction() -> None:
    (free, optimizer), (bound, other) = stepped(), stepped()
    before = copied(free)
    optimizer.step()
    found, scale = rescaled_step(other, list(bound.parameters()), 0.25)
    assert found == pytest.approx(0.25, rel=1e-5)
    assert moved(bound, before) == pytest.approx(0.25, rel=1e-5)
    assert scale == pytest.approx(0.25 / moved(free, before), rel=1e-5)
    for old, own, theirs in zip(before, copied(free), copied(bound), strict=True):
        torch.testing.assert_close(theirs - old, scale * (own - old), rtol=1e-4, atol=1e-6)


def test_a_step_of_the_right_length_is_left_to_the_bit() -> None:
    (free, optimizer), (bound, other) = stepped(), stepped()
    wanted = measured_step(optimizer, [list(free.parameters())])
    assert rescaled_step(other, list(bound.parameters()), wanted) == (wanted, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(free.parameters(), bound.parameters(), strict=True))


def test_a_step_that_does_not_move_cannot_be_made_to() -> None:
    module, optimizer = stepped()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    still = copy.deepcopy(list(module.parameters()))
    assert rescaled_step(optimizer, list(module.parameters()), 0.0) == (0.0, 1.0)
    with pytest.raises(TrainingError, match=r"moved by 0.5 in this step, this one not at all"):
        rescaled_step(optimizer, list(module.parameters()), 0.5)
    assert all(torch.equal(a, b) for a, b in zip(still, module.parameters(), strict=True))
