"""Training as the peer does it: losses along its trajectories, and loss and gradient norm of its trainers on one batch.

The truth is our loop in float64 on plain autograd. The peer's float32 run and ours may each stray from it by rounding,
and the chunked head strays less than the peer. Distances are relative to the size of the loss's terms, which are of
opposite sign and nearly cancel.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from expunge import lm as lms
from expunge.core import IGNORE, Batch, Side
from expunge.lm import LM, Scored
from expunge.recipe import Method, Model, TermSpec, Train
from expunge.refcache import Reference
from expunge.schedules import learning_rate
from expunge.step import Batches, Step, accumulate
from expunge.terms import build_terms
from expunge.train import adamw

FAST = 2
"""Steps of a trajectory in the fast tests; the slow ones run all 25."""


@pytest.fixture(scope="module")
def target(shared: Path) -> LM:
    return lms.load(Model(model_name_or_path=str(shared / "parity/models/target")))


@pytest.fixture(scope="module")
def trajectories(shared: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((shared / "parity/training/trajectories.json").read_text())
    return found


@pytest.fixture(scope="module")
def one_batch(shared: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((shared / "parity/training/losses_on_one_batch.json").read_text())
    return found


def batch_of(ids: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], shift: int = 1) -> Batch:
    """A peer's batch: labels at their own positions, padding 0, the attention mask from lengths."""
    tokens, own = torch.tensor(ids), torch.tensor(labels)
    targets = torch.full_like(own, IGNORE)
    targets[:, : own.shape[1] - shift] = own[:, shift:]
    lengths = torch.tensor([max(i for i, token in enumerate(row) if token != 0) + 1 for row in ids])
    mask = torch.arange(tokens.shape[1])[None] < lengths[:, None]
    return Batch(tokens, targets, mask, tuple(map(str, range(len(ids)))))


def sides(batch: Mapping[str, Mapping[str, Any]], shift: int = 1) -> dict[Side, Batch]:
    read: tuple[Side, Side] = ("forget", "retain")
    return {side: batch_of(batch[side]["input_ids"], batch[side]["labels"], shift) for side in read}


def losses(target: LM, batches: Sequence[Batches], preset: str, *, double: bool, naive: bool) -> list[list[float]]:
    """Each term's contribution to the loss at every step of training with the peer's settings."""
    model = copy.deepcopy(target.model).to(torch.float64 if double else torch.float32)
    module, settings = Scored(model, naive=naive), Train(learning_rate=1e-4, weight_decay=0.01)
    optimizer, terms = adamw(module, settings), build_terms(Method(preset=preset))
    step, out = Step(terms, joined=not naive), []
    module.train()
    for k, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, k, 25, 1)
        optimizer.zero_grad()
        _, means = accumulate(step, module, [batch], lambda loss: loss.backward(), [0])
        out.append([t.coef * mean for t, mean in zip(terms, means, strict=True)])
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    return out


@pytest.mark.parametrize("steps", [FAST, pytest.param(25, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "preset"), [("GradDiff", "graddiff"), ("WGA", "wga")])
def test_losses_follow_the_peers_trajectory(
    target: LM, trajectories: Mapping[str, Any], name: str, preset: str, steps: int
) -> None:
    batches = [sides(batch) for batch in trajectories["batches"][:steps]]
    truth = losses(target, batches, preset, double=True, naive=True)
    naive = losses(target, batches, preset, double=False, naive=True)
    fused = losses(target, batches, preset, double=False, naive=False)
    strays: dict[str, list[float]] = {"peer from truth": [], "fused from truth": [], "naive from peer": []}
    for k, peer in enumerate(trajectories["loss"][name][:steps]):
        scale = sum(map(abs, truth[k]))
        strays["peer from truth"].append(abs(peer - sum(truth[k])) / scale)
        strays["fused from truth"].append(abs(sum(fused[k]) - sum(truth[k])) / scale)
        strays["naive from peer"].append(abs(sum(naive[k]) - peer) / scale)
    worst = {what: max(values) for what, values in strays.items()}
    assert worst["fused from truth"] < 1e-5, worst
    assert worst["naive from peer"] < 1e-5, worst
    assert worst["peer from truth"] < 1e-4, worst


@pytest.mark.parametrize("shift", [0, 2])
def test_targets_that_are_shifted_wrongly_leave_the_trajectory_at_once(
    target: LM, trajectories: Mapping[str, Any], shift: int
) -> None:
    batches = [sides(trajectories["batches"][0], shift)]
    (terms,) = losses(target, batches, "graddiff", double=False, naive=False)
    peer = trajectories["loss"]["GradDiff"][0]
    assert abs(sum(terms) - peer) / sum(map(abs, terms)) > 1e-3


def preset(name: str, **more: Any) -> Method:
    return Method.model_validate({"preset": name, **more})


def written(*terms: Mapping[str, Any]) -> Method:
    return Method(terms=tuple(TermSpec.model_validate(term) for term in terms))


RETAIN = {"objective": "nll", "on": "retain"}
TRAINERS: Mapping[str, Method] = {
    "GradAscent": preset("ga"),
    "GradDiff": preset("graddiff"),
    "GradDiff retain_loss_type=KL": written({"objective": "ga"}, {"objective": "kl:positions=all", "on": "retain"}),
    "NPO beta=0.1": preset("npo"),
    "NPO beta=0.5": written({"objective": "npo:beta=0.5"}, RETAIN),
    "SimNPO beta=4.5 delta=0.0 gamma=0.125": preset("simnpo"),
    "WGA beta=1.0": preset("wga"),
    "SatImp beta1=5.0 beta2=1.0 gamma=0.1 alpha=1.0": preset("satimp-ou"),
}


@pytest.fixture(scope="module")
def frozen(shared: Path) -> Scored:
    """The peer's reference on this batch is the oracle, not the target: NPO starts away from its symmetric point."""
    model = lms.load(Model(model_name_or_path=str(shared / "parity/models/retain"))).model
    return Scored(model.requires_grad_(False))


def one_update(target: LM, frozen: Scored, method: Method, batches: Batches, kind: str) -> tuple[list[float], float]:
    """Contributions of the terms to the loss, and the norm of the gradient."""
    double = kind == "truth"
    module = Scored(copy.deepcopy(target.model).to(torch.float64 if double else torch.float32), naive=kind != "fused")
    reference = Scored(copy.deepcopy(frozen.model).double(), naive=True) if double else frozen
    terms = build_terms(method)
    step = Step(terms, Reference(reference), joined=kind == "fused")
    used = {t.on: batches[t.on] for t in terms}
    _, means = accumulate(step, module, [used], lambda loss: loss.backward(), [0])
    squares = [float(p.grad.double().pow(2).sum()) for p in module.parameters() if p.grad is not None]
    return [t.coef * mean for t, mean in zip(terms, means, strict=True)], sum(squares) ** 0.5


SLOW = {"GradAscent", "NPO beta=0.5", "WGA beta=1.0"}
trainers = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in TRAINERS]


@pytest.mark.parametrize("name", trainers)
def test_loss_and_gradient_norm_on_one_batch_are_the_peers(
    target: LM, frozen: Scored, one_batch: Mapping[str, Any], name: str
) -> None:
    peer, raw, method = one_batch["loss"][name], one_batch["batch"], TRAINERS[name]
    read: tuple[Side, Side] = ("forget", "retain")
    batches = {side: batch_of(raw[f"{side}_input_ids"], raw[f"{side}_labels"]) for side in read}
    truth, norm = one_update(target, frozen, method, batches, "truth")
    scale = sum(map(abs, truth))
    assert peer["loss"] == pytest.approx(sum(truth), abs=2e-4 * scale)
    assert peer["grad_norm"] == pytest.approx(norm, rel=1e-4)
    fused, fused_norm = one_update(target, frozen, method, batches, "fused")
    assert sum(fused) == pytest.approx(sum(truth), abs=1e-5 * scale)
    assert fused_norm == pytest.approx(norm, rel=2e-5)
    naive, naive_norm = one_update(target, frozen, method, batches, "naive")
    # SimNPO and NPO take the peer's sequence sums, which it computes in a layout that rounds worse
    assert sum(naive) == pytest.approx(peer["loss"], abs=(1e-4 if "NPO" in name else 1e-6) * scale)
    assert naive_norm == pytest.approx(peer["grad_norm"], rel=1e-4 if "NPO" in name else 1e-6)
