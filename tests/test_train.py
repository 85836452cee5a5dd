"""The loop: resumes to the bit however it ended, stops when its numbers break, leaves random state alone."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import LoggerType
from torch import Tensor, nn
from transformers import get_scheduler

from expunge import checkpoint, runfolder, train
from expunge.combine import combine_of
from expunge.core import Side
from expunge.data.encode import Encoded
from expunge.errors import Interrupted, MethodError, TrainingError
from expunge.lm import LM, Scored
from expunge.recipe import Method, TermSpec, Train
from expunge.refcache import Reference
from expunge.runfolder import RunFolder
from expunge.schedules import learning_rate
from expunge.terms import build_terms
from expunge.train import Fit
from tests.contract import harness as h
from tests.fixtures.models import tiny
from tests.fixtures.tokenizers import bpe

FORGET, RETAIN = h.items(7), h.items(5, seed=9, prefix="r")
STEPS = 6  # of 2 an epoch: 7 records in steps of 2 x 2
DROPOUT = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}


class Crash(Exception):
    """What ends a run from outside in these tests."""


def fit(
    path: Path,
    method: str | Method = "etw",
    family: str = "gpt2-tied-positions",
    updates: list[float] | None = None,
    **settings: Any,
) -> Fit:
    """A run on a tiny model with dropout; the folder is made if it is not there."""
    more = DROPOUT if family.startswith("gpt2") else {}
    lm = LM(tiny(family, **more), bpe(), "tiny")
    terms = build_terms(Method(preset=method) if isinstance(method, str) else method)
    run = runfolder.open(path) if runfolder.is_run(path) else runfolder.create(path, "unlearn")
    sides: dict[Side, list[Encoded]] = {"forget": FORGET, "retain": RETAIN}
    frozen = Reference(Scored(copy.deepcopy(lm.model).eval().requires_grad_(False)))
    base = {
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-2,
        "num_train_epochs": 3, "save_steps": 2,
    }  # fmt: skip
    return Fit(
        lm,
        terms,
        {side: sides[side] for side in sides if any(t.on == side for t in terms)},
        Train.model_validate({**base, **settings}),
        run,
        seed=5,
        reference=frozen if any(t.needs.any_reference for t in terms) else None,
        combine=combine_of(terms),
        updates=updates,
    )


def weights(made: Fit) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in made.lm.model.named_parameters()}


def log(run: RunFolder) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in run.read_log()]


def stop_after(step: int, how: Any) -> Any:
    def on_step(entry: Mapping[str, Any], total: int) -> None:
        if entry["step"] == step:
            if isinstance(how, signal.Signals):
                os.kill(os.getpid(), how)
            else:
                raise how

    return on_step


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(found[name], expected[name]) for name in expected)


HARD = Method(
    terms=(
        TermSpec(objective="ga:denominator=selected", score="entropy", select="top:r=0.4", coef=0.5),
        TermSpec(objective="kl", on="retain"),
    )
)
MATCHED = Method(terms=HARD.terms, control="grad-matched")
METHODS: dict[str, str | Method] = {"etw": "etw", "npo": "npo", "hard with kl": HARD, "grad-matched": MATCHED}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_crashed_run_resumes_to_the_bit(tmp_path: Path, method: str | Method) -> None:
    """With dropout, gradient accumulation and an uneven last step; the crash comes a step after the last checkpoint."""
    straight = fit(tmp_path / "straight", method)
    start = weights(straight)
    straight()
    crashed = fit(tmp_path / "crashed", method)
    crashed.on_step = stop_after(5, Crash())
    with pytest.raises(Crash):
        crashed()
    assert [line["step"] for line in log(crashed.run)] == [1, 2, 3, 4, 5]
    resumed = fit(tmp_path / "crashed", method)
    steps: list[int] = []
    resumed.on_step = lambda entry, total: steps.append(entry["step"])
    resumed()
    assert steps == [5, 6]
    assert same(weights(resumed), weights(straight))
    assert not same(weights(straight), start)
    assert log(resumed.run) == log(straight.run)
    assert not resumed.lm.model.training


# Controls that are matched in strength


def test_the_update_norm_is_what_a_step_moved(tmp_path: Path) -> None:
    made, seen = fit(tmp_path / "run"), {}
    seen[0] = weights(made)
    made.on_step = lambda entry, total: seen.__setitem__(entry["step"], weights(made))
    made()
    for line in made.run.read_log():
        pairs = zip(seen[line["step"] - 1].values(), seen[line["step"]].values(), strict=True)
        assert line["update_norm"] == pytest.approx(sum(float((b - a).square().sum()) for a, b in pairs) ** 0.5)


def test_logging_less_often_moves_the_weights_alike(tmp_path: Path) -> None:
    often, seldom = fit(tmp_path / "a"), fit(tmp_path / "b", logging_steps=4)
    often()
    seldom()
    assert same(weights(often), weights(seldom))
    assert log(seldom.run)[0]["update_norm"] == log(often.run)[3]["update_norm"]


def test_a_grad_matched_run_logs_its_factor_and_the_uniform_weights_that_it_trains_with(tmp_path: Path) -> None:
    made, method = fit(tmp_path / "run", MATCHED), fit(tmp_path / "method", HARD)
    made()
    method()
    first, theirs = made.run.read_log()[0], method.run.read_log()[0]
    assert list(first["terms"]) == list(theirs["terms"]), "what is only measured is no term of the loss"
    assert first["selected_share"] == 1.0
    assert theirs["selected_share"] < 0.65
    assert first["forget_scale"] > 0
    assert first["terms"]["retain/kl"] == pytest.approx(theirs["terms"]["retain/kl"])
    assert first["loss"] != pytest.approx(theirs["loss"])


@pytest.mark.parametrize("setting", [{"gradient_checkpointing": True}, {"head": "naive"}], ids=str)
def test_gradients_kept_apart_are_the_same_with_other_settings(tmp_path: Path, setting: dict[str, Any]) -> None:
    common = {"family": "llama", "learning_rate": 1e-3, "adam_epsilon": 1e-3}
    plain, other = fit(tmp_path / "a", MATCHED, **common), fit(tmp_path / "b", MATCHED, **common, **setting)
    plain()
    other()
    for key, p in weights(plain).items():
        torch.testing.assert_close(weights(other)[key], p, rtol=1e-4, atol=1e-5)


def test_an_update_matched_run_moves_as_far_as_its_pair_in_every_step_and_resumes_to_the_bit(tmp_path: Path) -> None:
    pair = fit(tmp_path / "pair", HARD)
    pair()
    wanted = [line["update_norm"] for line in pair.run.read_log()]
    uniform = Method(terms=HARD.terms, control="update-matched")
    straight = fit(tmp_path / "straight", uniform, updates=wanted)
    straight()
    lines = log(straight.run)
    assert [line["update_norm"] for line in lines] == pytest.approx(wanted, rel=1e-5)
    assert all(line["selected_share"] == 1.0 for line in lines)
    assert not same(weights(straight), weights(pair))
    free = fit(tmp_path / "free", uniform)
    free()
    assert [line["update_norm"] for line in log(free.run)] != pytest.approx(wanted, rel=1e-3), "or it says nothing"
    crashed = fit(tmp_path / "crashed", uniform, updates=wanted)
    crashed.on_step = stop_after(5, Crash())
    with pytest.raises(Crash):
        crashed()
    resumed = fit(tmp_path / "crashed", uniform, updates=wanted)
    resumed()
    assert same(weights(resumed), weights(straight))
    assert log(resumed.run) == lines


def test_dropout_that_followed_the_global_generator_would_be_noticed(tmp_path: Path) -> None:
    """The break on purpose: the same run with another seed for its dropout ends elsewhere."""
    first, other = fit(tmp_path / "a"), fit(tmp_path / "b")
    first()
    other.seed = 6  # the sampler keeps the old one; dropout and draws do not
    other()
    assert not same(weights(other), weights(first))


def test_a_run_is_the_same_whatever_the_global_generators_hold_and_leaves_them_alone(tmp_path: Path) -> None:
    ends = []
    for k in (1, 2):
        torch.manual_seed(k)
        random.seed(k)
        np.random.seed(k)  # noqa: NPY002
        before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
        made = fit(tmp_path / str(k), HARD)
        made()
        assert torch.get_rng_state().equal(before[0])
        assert random.getstate() == before[1]
        assert np.random.get_state()[1].tolist() == before[2]  # noqa: NPY002
        ends.append(weights(made))
    assert same(*ends)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_request_ends_at_a_step_and_can_be_resumed(tmp_path: Path, number: signal.Signals) -> None:
    straight = fit(tmp_path / "straight")
    straight()
    before = signal.getsignal(number)
    stopped = fit(tmp_path / "stopped")
    stopped.on_step = stop_after(3, number)
    with pytest.raises(Interrupted, match=r"stopped after step 3 of 6; everything is in '.*stopped'. Give the same"):
        stopped()
    assert signal.getsignal(number) is before
    resumed = fit(tmp_path / "stopped")
    resumed()
    assert same(weights(resumed), weights(straight))


def test_a_second_ctrl_c_interrupts_at_once(tmp_path: Path) -> None:
    made = fit(tmp_path / "run")

    def twice(entry: Mapping[str, Any], total: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    made.on_step = twice
    with pytest.raises(KeyboardInterrupt):
        made()


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path: Path) -> None:
    straight = fit(tmp_path / "straight")
    straight()
    crashed = fit(tmp_path / "run")
    crashed.on_step = stop_after(5, Crash())
    with pytest.raises(Crash):
        crashed()
    newest = tmp_path / "run/checkpoints/step-00000004/model.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    resumed = fit(tmp_path / "run")
    steps: list[int] = []
    resumed.on_step = lambda entry, total: steps.append(entry["step"])
    resumed()
    assert steps == [3, 4, 5, 6]
    assert same(weights(resumed), weights(straight))
    (line,) = resumed.run.manifest["checkpoints_passed_over"]
    assert line.startswith("step-00000004: model.safetensors")


KILLED = """
import os, signal, sys, warnings
warnings.filterwarnings("ignore")
from pathlib import Path
from tests import test_train as t
made = t.fit(Path(sys.argv[1]), "npo")
synced = []
def sync(descriptor):
    synced.append(descriptor)
    if len(synced) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    plain(descriptor)
plain, os.fsync = os.fsync, sync
made()
"""


def killed(path: Path, at: int) -> None:
    """A run in another process that is killed with SIGKILL at its n-th fsync."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(at)], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-2000:]


@pytest.mark.parametrize(
    "at", [11, *(pytest.param(k, marks=pytest.mark.slow) for k in (2, 4, 6, 8, 9, 10, 12, 13, 14, 16, 19, 22, 25))]
)
def test_a_run_killed_while_it_writes_resumes_to_the_bit(tmp_path: Path, at: int) -> None:
    straight = fit(tmp_path / "straight", "npo")
    straight()
    killed(tmp_path / "run", at)
    resumed = fit(tmp_path / "run", "npo")
    resumed()
    assert same(weights(resumed), weights(straight))
    assert log(resumed.run) == log(straight.run)


# Numbers that break


def with_nan(stats: Any) -> Any:
    entropy = {t: values * float("nan") for t, values in stats.entropy.items()}
    return dataclasses.replace(stats, logp=stats.logp * float("nan"), entropy=entropy)


@pytest.mark.parametrize("method", ["ga", "etw", "wga", "npo", HARD], ids=["ga", "etw", "wga", "npo", "hard"])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(
    tmp_path: Path, method: str | Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether scores, weights or only the loss see it: step and records are named, and nothing is trained on it."""
    made = fit(tmp_path / "run", method)
    good: dict[int, dict[str, Tensor]] = {0: weights(made)}
    plain = Scored.forward

    def broken(self: Scored, batch: Any, needs: Any, reference: Any = None) -> Any:
        stats = plain(self, batch, needs, reference)
        if made.run.has("log.jsonl") and len(made.run.read_log()) == 3 and self is made.module:
            stats = with_nan(stats)
        return stats

    monkeypatch.setattr(Scored, "forward", broken)
    made.on_step = lambda entry, total: good.__setitem__(entry["step"], weights(made))
    with pytest.raises(
        TrainingError, match=r"loss nan with gradient norm nan at step 4 of 6.*records f\d, f\d"
    ) as told:
        made()
    assert "The state after step 3 is kept" in str(told.value)
    assert same(weights(made), good[3])
    monkeypatch.undo()
    found, _ = checkpoint.latest(made.run.file("checkpoints"))
    assert found is not None
    assert found.step == 3
    resumed = fit(tmp_path / "run", method)
    resumed()
    straight = fit(tmp_path / "straight", method)
    straight()
    assert same(weights(resumed), weights(straight))


def test_weights_that_an_update_broke_are_never_saved(tmp_path: Path) -> None:
    """Loss and gradient were finite, the step was not: the earlier checkpoint stays the newest."""
    made = fit(tmp_path / "run", "ga")

    def overflow(entry: Mapping[str, Any], total: int) -> None:
        if entry["step"] == 4:
            with torch.no_grad():
                next(iter(made.lm.model.parameters()))[0, 0] = float("inf")

    made.on_step = overflow
    with pytest.raises(TrainingError, match=r"step 4 of 6 left weights that are not finite.*after step 2 is kept"):
        made()
    found, _ = checkpoint.latest(made.run.file("checkpoints"))
    assert found is not None
    assert found.step == 2


def test_a_learning_rate_that_blows_up_ends_in_an_error_not_in_a_model(tmp_path: Path) -> None:
    made = fit(tmp_path / "run", "ga", learning_rate=1e30, num_train_epochs=1)
    with pytest.raises(TrainingError, match="may help"):
        made()


# Schedules, optimiser, settings


@pytest.mark.parametrize("kind", ["linear", "constant", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 3, 10])
def test_learning_rates_are_those_of_transformers(kind: str, warmup: int) -> None:
    settings = Train.model_validate({"learning_rate": 3e-4, "lr_scheduler_type": kind, "warmup_steps": warmup})
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=3e-4)
    name = "constant_with_warmup" if kind == "constant" else kind
    theirs = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=12)
    for step in range(12):
        assert learning_rate(settings, step, 12, 5) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12, abs=1e-20)
        optimizer.step()
        theirs.step()


def test_warm_up_in_epochs_is_rounded_up_to_steps() -> None:
    settings = Train(learning_rate=1.0, warmup_epochs=0.5)
    assert [learning_rate(settings, step, 100, 5) for step in range(4)] == pytest.approx([0, 1 / 3, 2 / 3, 1.0])
    assert learning_rate(Train(learning_rate=1.0, warmup_epochs=9.0, warmup_steps=2), 1, 100, 5) == 0.5


def test_weight_decay_is_on_matrices_only() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    matrices, rest = train.adamw(module, Train(weight_decay=0.3, adam_beta2=0.95, adam_epsilon=1e-6)).param_groups
    assert [p.ndim for p in matrices["params"]] == [2]
    assert [p.ndim for p in rest["params"]] == [1, 1, 1]
    assert (matrices["weight_decay"], rest["weight_decay"], matrices["betas"], matrices["eps"]) == (
        0.3,
        0,
        (0.9, 0.95),
        1e-6,
    )


def test_gradients_are_clipped_to_the_norm_and_the_log_has_the_norm_before(tmp_path: Path) -> None:
    plain, clipped = (
        fit(tmp_path / str(norm), "graddiff", "llama", max_grad_norm=norm, max_steps=1) for norm in (0.0, 1e-3)
    )
    for made in (plain, clipped):
        made()
    assert log(plain.run)[0]["grad_norm"] == pytest.approx(log(clipped.run)[0]["grad_norm"])
    assert log(plain.run)[0]["grad_norm"] > 1e-3
    grad = torch.cat([p.grad.flatten() for p in clipped.lm.model.parameters() if p.grad is not None])
    assert float(grad.norm()) == pytest.approx(1e-3, rel=1e-3)


def test_the_log_says_what_each_step_did(tmp_path: Path) -> None:
    made = fit(tmp_path / "run", HARD)
    start = weights(made)
    made()
    lines = made.run.read_log()
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["epoch"] for line in lines] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert set(lines[0]) == {
        "step", "epoch", "learning_rate", "loss", "terms", "grad_norm", "drift", "drift_by_layer", "selected_share",
        "weight_on_gold", "flat", "empty", "tokens", "seconds", "update_norm",
    }  # fmt: skip
    first, last = lines[0], lines[-1]
    assert list(first["terms"]) == ["forget/ga:denominator=selected", "retain/kl"]
    expected = 0.5 * first["terms"]["forget/ga:denominator=selected"] + first["terms"]["retain/kl"]
    assert first["loss"] == pytest.approx(expected)
    assert 0.4 <= first["selected_share"] < 0.65
    assert 0 <= first["weight_on_gold"] <= 1
    assert (first["flat"], first["empty"]) == (0, 0)
    assert first["update_norm"] == pytest.approx(first["drift"], rel=1e-6), "the first step is the way so far"
    assert last["update_norm"] < sum(line["update_norm"] for line in lines)
    moved = {name: float((p - start[name]).pow(2).sum()) for name, p in weights(made).items()}
    assert last["drift"] == pytest.approx(sum(moved.values()) ** 0.5, rel=1e-4)
    assert set(last["drift_by_layer"]) == {"embedding", "layer.0", "layer.1", "head and norm"}
    layer = sum(v for name, v in moved.items() if ".h.1." in name)
    assert last["drift_by_layer"]["layer.1"] == pytest.approx(layer**0.5, rel=1e-4)
    chosen = made.sampler.micro_batches(0)
    counted = sum(FORGET[i].scored for m in chosen for i in m["forget"])
    counted += sum(RETAIN[i].scored for m in chosen for i in m["retain"])
    assert first["tokens"] == counted


def test_fewer_log_lines_where_asked_for_but_always_the_last(tmp_path: Path) -> None:
    made = fit(tmp_path / "run", logging_steps=4)
    made()
    assert [line["step"] for line in made.run.read_log()] == [4, 6]


def test_epochs_are_announced_before_training_and_after_each(tmp_path: Path) -> None:
    made, seen = fit(tmp_path / "run"), []
    made.on_epoch = lambda epoch, module: seen.append((epoch, len(made.run.read_log())))
    made()
    assert seen == [(0, 0), (1, 2), (2, 4), (3, 6)]


@pytest.mark.parametrize(("settings", "total"), [({"max_steps": 3}, 3), ({"num_train_epochs": 0.4}, 1), ({}, 6)])
def test_a_run_has_as_many_steps_as_asked_for(tmp_path: Path, settings: dict[str, Any], total: int) -> None:
    assert fit(tmp_path / "run", **settings).total == total


def test_only_parameters_that_the_pattern_finds_are_trained(tmp_path: Path) -> None:
    made = fit(tmp_path / "run", family="llama", trainable=r"layers\.1\.mlp", max_steps=2)
    start = weights(made)
    made()
    changed = {name for name, p in weights(made).items() if not torch.equal(p, start[name])}
    assert changed == {name for name in start if "layers.1.mlp" in name}
    assert set(made.run.read_log()[-1]["drift_by_layer"]) == {"layer.1"}
    with pytest.raises(MethodError, match=r"train.trainable='nothing' finds no parameter. Names look like: model"):
        fit(tmp_path / "none", family="llama", trainable="nothing")


def test_a_naive_head_and_gradient_checkpointing_train_to_the_same_weights(tmp_path: Path) -> None:
    ends = {}
    for name, settings in {"plain": {}, "naive": {"head": "naive"}, "less": {"gradient_checkpointing": True}}.items():
        made = fit(tmp_path / name, family="llama", learning_rate=1e-3, adam_epsilon=1e-3, **settings)
        made()
        ends[name] = weights(made)
    for name in ("naive", "less"):
        for key, p in ends["plain"].items():
            torch.testing.assert_close(ends[name][key], p, rtol=1e-4, atol=1e-5)


def test_runs_with_and_without_bf16_follow_each_other_in_one_process(tmp_path: Path) -> None:
    exact = fit(tmp_path / "a", family="llama", max_steps=2, learning_rate=1e-3)
    exact()
    rounded = fit(tmp_path / "b", family="llama", max_steps=2, learning_rate=1e-3, bf16=True)
    rounded()
    exact_losses, losses = ([line["loss"] for line in made.run.read_log()] for made in (exact, rounded))
    assert losses != exact_losses
    assert losses == pytest.approx(exact_losses, rel=0.05)
    assert all(p.dtype == torch.float32 for p in weights(rounded).values())
    again = fit(tmp_path / "c", family="llama", max_steps=2, learning_rate=1e-3, bf16=True)
    again()
    assert same(weights(again), weights(rounded))


def test_a_coupled_objective_under_accumulation_warns(tmp_path: Path) -> None:
    method = Method(terms=(TermSpec(objective="lpl:sigmoid=batch", score="given", select="threshold:value=0"),))
    with pytest.warns(UserWarning, match=r"lpl.*gradient_accumulation_steps=2 changes it. Set it to 1"):
        fit(tmp_path / "a", method)
    fit(tmp_path / "b", method, gradient_accumulation_steps=1)


def test_micro_batches_of_a_run_are_a_function_of_the_step(tmp_path: Path) -> None:
    made, other = fit(tmp_path / "a"), fit(tmp_path / "b")
    for step in (0, 3, 1):
        for mine, theirs in zip(made.batches(step), other.batches(step), strict=True):
            assert mine["forget"].ids == theirs["forget"].ids
            assert mine["retain"].input_ids.equal(theirs["retain"].input_ids)
            assert mine["forget"].draws is not None
            assert mine["forget"].draws.equal(theirs["forget"].draws)  # type: ignore[arg-type]


def test_trackers_get_every_logged_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, said = fit(tmp_path / "run", max_steps=2), []
    made.settings = made.settings.model_copy(update={"report_to": ("tensorboard",)})
    monkeypatch.setattr(
        made.accelerator, "init_trackers", lambda name, config: said.append((name, config["learning_rate"]))
    )
    monkeypatch.setattr(made.accelerator, "log", lambda values, step: said.append((step, values)))
    monkeypatch.setattr(made.accelerator, "end_training", lambda: said.append("end"))
    made()
    (name, rate), (step, values), (_, _), end = said
    assert (name, rate, step, end) == ("expunge", 1e-2, 1, "end")
    assert values["loss"] == made.run.read_log()[0]["loss"]
    assert values["terms/forget/ga"] == made.run.read_log()[0]["terms"]["forget/ga"]
    assert json.dumps(values)


def test_tensorboard_gets_a_file_of_the_run(tmp_path: Path) -> None:
    """The one tracker that needs neither account nor server, through accelerate as it is."""
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        pytest.importorskip("tensorboard", reason="neither tensorboard nor tensorboardX is installed")
    made = fit(tmp_path / "run", max_steps=2, report_to=("tensorboard",))
    made()
    written = b"".join(file.read_bytes() for file in made.run.path.rglob("events.out.tfevents.*"))
    assert b"grad_norm" in written


def test_a_tracker_that_is_unknown_or_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match=r"unknown tracker 'tensorbord'. Did you mean: tensorboard"):
        fit(tmp_path / "a", report_to=("tensorbord",))
    with pytest.raises(TrainingError, match=r"train.report_to=aim: not installed"):
        fit(tmp_path / "b", report_to=("aim",))
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [LoggerType.TENSORBOARD])
    with pytest.raises(TrainingError, match=r"train.report_to=aim: not installed"):
        fit(tmp_path / "c", report_to=("tensorboard", "aim"))


def test_terms_with_the_same_label_get_numbers() -> None:
    method = Method(terms=tuple(TermSpec(objective="ga", score=s) for s in ("uniform", "entropy", "confidence")))
    assert train.labels(build_terms(method)) == ["forget/ga", "forget/ga #2", "forget/ga #3"]


def test_checkpoints_are_cleared_when_a_run_is_over(tmp_path: Path) -> None:
    made = fit(tmp_path / "run", max_steps=3, save_steps=1)
    made()
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 2
    train.clear_checkpoints(made.run)
    train.clear_checkpoints(made.run)
    assert not (tmp_path / "run/checkpoints").exists()
