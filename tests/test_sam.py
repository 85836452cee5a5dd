"""Sharpness-aware steps: the gradient of what forgets is that of the perturbed model, all else that of the model."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expunge import recipe, runs
from expunge.combine import Apart, Combine, Project, Sago, Sum, combine_of
from expunge.core import Batch
from expunge.errors import Interrupted, MethodError, RecipeError
from expunge.sam import Sam
from expunge.step import Step, accumulate
from expunge.terms import Term
from tests.contract import harness as h
from tests.test_combine import PIECES, Micro, backward, terms
from tests.test_runs import made, material, same, stop_at  # noqa: F401  a fixture
from tests.test_step import FORGET, RETAIN, Noisy, grads

RADIUS = 0.3


def plain(made: tuple[Term, ...], model: nn.Module, micro: Micro) -> dict[str, Tensor]:
    """The gradient of the sum of the terms, each side in a pass of its own."""
    model.zero_grad()
    accumulate(Step(made, joined=False), model, micro, backward, list(range(len(micro))))
    return grads(model)


def sharpened(
    own: tuple[Term, ...], model: nn.Module, micro: Micro, combine: Combine, radius: float = RADIUS
) -> dict[str, Tensor]:
    """The gradient that a step sees, by the code that training uses."""
    model.zero_grad()

    def read(apart: Apart) -> None:
        step = Step(apart.split.terms, joined=False)
        sides = {t.on for t in step.terms}
        batches = [{side: batch for side, batch in each.items() if side in sides} for each in micro]
        accumulate(step, model, batches, backward, list(range(len(batches))), apart)

    apart = Apart([p for p in model.parameters() if p.requires_grad], combine.split(own))
    read(apart)
    Sam(radius)(apart, read)
    apart.meet(combine)
    return grads(model)


class Common(Noisy):
    """Noisy leaves with one parameter that all records share."""

    def __init__(self) -> None:
        super().__init__([*FORGET, *RETAIN])
        self.common = nn.Parameter(torch.linspace(-1, 1, h.VOCABULARY, dtype=torch.float64))

    def hidden(self, batch: Batch) -> Tensor:
        return super().hidden(batch) + self.common


@pytest.mark.parametrize("micro", PIECES, ids=["whole", "in pieces"])
@pytest.mark.parametrize("combine", [Sum(), Project(), Sago()], ids=["sum", "project", "sago"])
def test_it_is_the_gradient_of_a_model_moved_by_hand(micro: Micro, combine: Combine) -> None:
    model, own = Common().train(), terms("none")
    before = copy.deepcopy(model.state_dict())
    forget = tuple(t for t in own if t.on == "forget")
    alone = [{"forget": each["forget"]} for each in micro]
    whole, g = plain(own, model, micro), plain(forget, model, alone)
    other = {name: value for name, value in whole.items() if name not in g} | {"common": whole["common"] - g["common"]}
    length = math.sqrt(sum(float(v.square().sum()) for v in g.values()))
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in moved.named_parameters():
            if name in g:
                parameter.add_(g[name] * (RADIUS / length))
    there = plain(forget, moved, alone)
    names = [name for name, _ in model.named_parameters()]
    parts = {"forget": [there.get(n) for n in names], "others": [other.get(n) for n in names]}
    expected, _ = combine(parts)
    found = sharpened(own, model, micro, combine)
    for name, value in zip(names, expected, strict=True):
        if value is not None:
            torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-8)  # the norm is taken in float32
    assert any(not torch.allclose(there[n], g[n], rtol=1e-2) for n in g), "the radius is felt"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "back to the bit"


def test_micro_batches_change_nothing_without_dropout() -> None:
    one, other = (sharpened(terms("none"), Common().eval(), micro, Sum()) for micro in PIECES)
    h.close(one, other, rtol=1e-9)


def test_a_small_radius_is_the_plain_gradient() -> None:
    model, own = Common().eval(), terms("none")
    h.close(sharpened(own, model, PIECES[0], Sum(), 1e-9), plain(own, model, PIECES[0]), rtol=1e-6)


def test_what_has_no_meaning_is_refused() -> None:
    with pytest.raises(MethodError, match=r"grad-matched and train\.sam_radius"):
        combine_of(terms("grad-matched"), apart=True)
    with pytest.raises(RecipeError, match=r"finetune\.train\.sam_radius"):
        recipe.load({"finetune": {"train": {"sam_radius": 0.1}}})
    assert combine_of(terms("none")) is None


PDU = {
    "preset": None,
    "terms": [
        {"objective": "npo", "score": "learned:every=2"},
        {"objective": "nll", "on": "retain", "constraint": {"at_most": 0.3, "start": 4.0, "rate": 0.5}},
    ],
}


@pytest.mark.parametrize("method", [PDU, {"preset": "graddiff", "combine": "sago"}], ids=["learned", "sago"])
def test_a_stopped_run_goes_on_to_the_same_model(material: Path, tmp_path: Path, method: Any) -> None:  # noqa: F811
    train = {"sam_radius": 0.05, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 1}
    straight = runs.unlearn(made(material, tmp_path / "straight", method=method, train=train))
    with pytest.raises(Interrupted):
        runs.unlearn(made(material, tmp_path / "stopped", method=method, train=train), on_step=stop_at(3))
    assert same(runs.unlearn(made(material, tmp_path / "stopped", method=method, train=train)), straight)
    assert all(line["sam_norm"] > 0 for line in straight.read_log())
    if method is PDU:
        bare = runs.unlearn(made(material, tmp_path / "bare", method=method, train={**train, "sam_radius": 0.0}))
        assert not same(bare, straight)
