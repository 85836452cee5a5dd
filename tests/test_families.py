"""Every preset on every family of models: a few steps, with the numbers of the naive head, downhill.

The fast tests take a few presets on every family and every preset on one family; `make test-all` takes all pairs.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from expunge import lm as lms
from expunge import presets
from expunge.lm import Scored
from expunge.recipe import Method
from expunge.refcache import Reference
from expunge.step import Step, accumulate
from expunge.terms import build_terms, worded
from tests.contract import harness as h
from tests.fixtures.models import SUPPORTED, tiny

FORGET, OTHERS = h.batch_of(h.items(4)), h.batch_of(h.items(3, seed=8, prefix="r"))
STEPS = 2
FEW = ("etw", "rmu")
FAST = {(family, preset) for family in SUPPORTED for preset in FEW} | {("llama", p) for p in presets.PRESETS}


def trained(family: str, preset: str, naive: bool) -> tuple[list[float], dict[str, Tensor]]:
    """The loss before each of a few small steps and after them, and how far each parameter went."""
    module, frozen = Scored(tiny(family), naive=naive), Scored(tiny(family, seed=1).requires_grad_(False), naive=naive)
    terms = worded(build_terms(Method(preset=preset)), lambda text: [4, 9])
    sides = {t.on: FORGET if t.on == "forget" else OTHERS for t in terms}
    step, optimizer = Step(terms, Reference(frozen), joined=not naive), torch.optim.SGD(module.parameters(), lr=1e-3)
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    losses = []
    for _ in range(STEPS + 1):
        optimizer.zero_grad()
        _, means = accumulate(step, module, [sides], lambda loss: loss.backward(), [0])
        losses.append(sum(t.coef * mean for t, mean in zip(terms, means, strict=True)))
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        if len(losses) <= STEPS:
            optimizer.step()
    return losses, {name: p.detach() - start[name] for name, p in module.named_parameters()}


@pytest.mark.parametrize(
    ("family", "preset"),
    [
        pytest.param(family, preset, marks=() if (family, preset) in FAST else pytest.mark.slow)
        for family in SUPPORTED
        for preset in presets.PRESETS
    ],
)
def test_every_preset_trains_every_family(family: str, preset: str) -> None:
    losses, moved = trained(family, preset, naive=False)
    assert all(map(math.isfinite, losses))
    assert all(bool(torch.isfinite(way).all()) for way in moved.values())
    terms = build_terms(Method(preset=preset))
    if not any(t.score.needs.policy for t in terms):  # else the weights change with the model, and the loss with them
        assert losses == sorted(losses, reverse=True)
        assert losses[-1] < losses[0]
    length = float(torch.stack([way.norm() for way in moved.values()]).norm())
    assert 1e-4 < length <= STEPS * 1e-3 * 1.001, "clipped steps of 1e-3 each, and not zero"
    deep = [name for name, way in moved.items() if way.norm() == 0]
    assert preset.endswith("rmu") or len(deep) <= 1, f"no gradient reached {deep}"
    naive, expected = trained(family, preset, naive=True)
    assert losses == pytest.approx(naive, rel=1e-4, abs=1e-5)
    h.close(moved, expected, rtol=5e-3, what="the way")


@pytest.mark.parametrize("family", [family for family in SUPPORTED if "softcap" in family])
def test_a_head_without_its_softcap_would_be_noticed(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The break on purpose: the naive head as it is, the fused one read wrongly."""
    naive, expected = trained(family, "graddiff", naive=True)
    read = lms.head_of
    monkeypatch.setattr(lms, "head_of", lambda model: dataclasses.replace(read(model), softcap=None))
    losses, moved = trained(family, "graddiff", naive=False)
    assert losses != pytest.approx(naive, rel=1e-2)
    with pytest.raises(AssertionError, match="differ"):
        h.close(moved, expected, rtol=5e-2)
