"""Measured after each epoch, the best kept: training takes no notice, a stopped run goes on, the manifest says why."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from expunge import epochs, pipeline, recipe, runfolder
from expunge import lm as lms
from expunge.data.encode import Encoder
from expunge.data.load import save
from expunge.errors import DataError, Interrupted, RecipeError
from expunge.evaluation import EachEpoch, KeepBest
from expunge.progress import Silent
from expunge.recipe import Recipe
from tests.evals import tiny

RULE = {"minimise": "forget_Q_A_Prob", "metric": "retain_Q_A_Prob", "at_least": 0.01}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("epochs")
    lms.save(tiny.small_lm(), folder / "base")
    for split in ("forget", "retain"):
        save(folder / f"{split}.jsonl", [replace(r, perturbed=(), paraphrase="") for r in tiny.records(8, split)])
    return folder


def settings(root: Path, out: Path, each_epoch: dict[str, Any] | None) -> Recipe:
    """Three epochs of gradient ascent, judged by nothing in the end."""
    return recipe.load({
        "output_dir": str(out), "device": "cpu", "model": {"model_name_or_path": str(root / "base")},
        "data": {"max_length": 128, **{s: {"path": str(root / f"{s}.jsonl")} for s in ("forget", "retain")}},
        "method": {"terms": [{"objective": "ga", "on": "forget"}]},
        "train": {"num_train_epochs": 3, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
                  "learning_rate": 0.003, "trace": False},
        "evaluation": {"suite": "none", "resamples": 50, "each_epoch": each_epoch},
    })  # fmt: skip


def run(root: Path, out: Path, each_epoch: dict[str, Any] | None) -> runfolder.RunFolder:
    return pipeline.run(settings(root, out, each_epoch), Silent())


def same(one: runfolder.RunFolder, other: runfolder.RunFolder) -> bool:
    weights = [load_file(folder.file("model/model.safetensors")) for folder in (one, other)]
    return all(bool((weights[0][name] == weights[1][name]).all()) for name in weights[0])


def test_who_is_looked_at_trains_as_who_is_not(root: Path, tmp_path: Path) -> None:
    plain = run(root, tmp_path / "plain", None)
    watched = run(root, tmp_path / "watched", {"records": 5})
    assert same(plain, watched)
    lines = list(watched.read_lines(runfolder.EPOCHS))
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    assert set(lines[0]["metrics"]) == {
        "forget_Q_A_Prob", "exact_memorization", "extraction_strength", "retain_Q_A_Prob"
    }  # fmt: skip
    for line in lines:
        for entry in line["metrics"].values():
            assert entry["n"] == 5
            assert entry["low"] <= entry["value"] <= entry["high"]
    assert "best" not in watched.manifest
    assert "epochs.retain_Q_A_Prob" in watched.file(runfolder.REPORT).read_text(encoding="utf-8")


def test_the_best_epoch_is_kept_and_a_stopped_run_keeps_the_same(root: Path, tmp_path: Path) -> None:
    asked = {"keep_best": RULE | {"at_least": 0.98}, "split": "half"}
    whole = run(root, tmp_path / "whole", asked)
    best, lines = whole.manifest["best"], list(whole.read_lines(runfolder.EPOCHS))
    rule = KeepBest(**asked["keep_best"])  # type: ignore[arg-type]
    assert best["epoch"] == epochs.chosen(lines, rule)["epoch"]
    assert best["rule"] == "lowest forget_Q_A_Prob with retain_Q_A_Prob at least 0.98 of what it was"
    assert best["records"] == {"forget": 4, "retain": 4}
    assert best["of"] == 3
    assert not whole.file("checkpoints").exists()
    stopped = settings(root, tmp_path / "stopped", asked)

    def stop(folder: Path, epoch: int) -> None:
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        pipeline.run(stopped, Silent(), stop)
    again = pipeline.run(stopped, Silent())
    assert same(whole, again)
    assert again.manifest["best"] == best
    assert list(again.read_lines(runfolder.EPOCHS)) == lines


def test_an_earlier_epoch_s_weights_are_those_of_a_run_that_ended_there(root: Path, tmp_path: Path) -> None:
    """Where no epoch keeps enough, the one that keeps most is kept, and the manifest says so."""
    kept = run(root, tmp_path / "kept", {"keep_best": RULE | {"at_least": 1e6}})
    best = kept.manifest["best"]
    assert best["kept_enough"] is False
    values = [line["metrics"]["retain_Q_A_Prob"]["value"] for line in kept.read_lines(runfolder.EPOCHS)][1:]
    assert best["epoch"] == 1 + values.index(max(values))
    lm = lms.load(recipe.Model(model_name_or_path=str(kept.file("model"))))
    own = settings(root, kept.path, {})
    callback = epochs.watching(own, pipeline.sets_of(own), Encoder(lm.tokenizer, max_length=128))
    assert callback is not None
    found = callback.measure(lms.Scored(lm.model))
    assert found["retain_Q_A_Prob"]["value"] == pytest.approx(max(values), rel=1e-6)


def test_half_is_every_second_subject() -> None:
    subjects = ["a", "a", "b", "b", "c", "c", "d"]
    records = [replace(r, subject=s) for r, s in zip(tiny.records(7), subjects, strict=False)]
    half = epochs._part(records, EachEpoch(split="half", records=None))
    assert [r.subject for r in half] == ["a", "a", "c", "c"]
    assert [r.id for r in epochs._part(records[:6], EachEpoch(records=3))] == [records[k].id for k in (0, 2, 4)]


def test_what_cannot_be_measured_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="retian"):
        run(root, tmp_path / "a", {"sets": ["retian"]})
    with pytest.raises(DataError, match="forget_Q_A_Prob"):
        run(root, tmp_path / "b", {"keep_best": RULE | {"minimise": "forget_QA_Prob"}})
    with pytest.raises(RecipeError, match="goes the other way"):
        recipe.load({"method": {"negate": 1.0}, "evaluation": {"each_epoch": {"keep_best": RULE}}})
