"""The sweep, small: equal budgets, what a kill costs, the choice, the commands, and the leaderboard."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from expunge import pipeline, recipe, runfolder, sweep, synth
from expunge.cli import app
from expunge.data.load import save
from expunge.errors import DataError, RecipeError
from expunge.progress import Silent
from expunge.recipe import Recipe
from expunge.runfolder import RunFolder
from tests.test_pipeline import settings

SPACE = {"train.learning_rate": {"log": [1e-3, 1e-1]}}


def swept(root: Path, out: str, **changes: Any) -> Recipe:
    """Two methods and a control of one of them, two trials each, on people of another benchmark."""
    tuning = [f"data.{side}.path={root / 'other' / f'{side}.jsonl'}" for side in ("forget", "retain", "holdout")]
    tuning += [f"finetune.output_dir={root / 'other-models'}", "finetune.oracle=false", "evaluation.variants=answer"]
    how = {
        "trials": 2, "space": SPACE, "arm_space": {"npo": {"method.preset:beta": {"choice": ["0.05", "0.5"]}}},
        "tuning": tuning, "keep": {"at_least": 0.5, "stop_below": 0.9},
    }  # fmt: skip
    tree = settings(root, output_dir=str(root / out), method={}, seeds=1)
    tree["arms"] = {
        "graddiff": ["method.preset=graddiff"],
        "npo": ["method.preset=npo"],
        "npo-random": ["method.preset=npo", "method.control=random"],
    }
    tree["evaluation"] = {"suite": "own", "limit": 4, "generate": False, "resamples": 20}
    tree["train"] |= {"trace": False}
    return recipe.load({**tree, "sweep": {**how, **changes}})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two benchmarks with different people."""
    folder = tmp_path_factory.mktemp("sweep")
    for seed, where in ((0, folder), (1, folder / "other")):
        where.mkdir(exist_ok=True)
        benchmark = synth.make(people=20, seed=seed, facts=2, shared=1, pairs=1, general=4)
        for split in ("forget", "retain", "holdout"):
            save(where / f"{split}.jsonl", benchmark.records(split))
        save(where / "general.jsonl", benchmark.records("general", ("qa", "sentence")))
    return folder


@pytest.fixture(scope="module")
def done(root: Path) -> RunFolder:
    """A whole sweep."""
    return sweep.run(swept(root, "done"), show=Silent())


def test_every_method_has_the_same_budget_and_controls_have_none(done: RunFolder) -> None:
    rows = done.read_json("trials.json")
    assert [(row["arm"], row["trial"]) for row in rows] == [("graddiff", 0), ("graddiff", 1), ("npo", 0), ("npo", 1)]
    assert [row["arm"] for row in rows if row["chosen"]] == ["graddiff", "npo"]
    rates = [dict(pair.split("=") for pair in row["settings"].split())["train.learning_rate"] for row in rows]
    assert rates[:2] == rates[2:]  # the same range is tried at the same places
    assert {row["settings"].split("beta=")[1] for row in rows[2:]} == {"0.05", "0.5"}


def test_trials_are_ordinary_runs_on_the_tuning_records(done: RunFolder, root: Path) -> None:
    run = runfolder.open(done.file("tuning/npo-t0"))
    assert run.manifest["status"] == "finished"
    assert runfolder.verify(run.path) == []
    assert run.recipe.data.forget is not None
    assert run.recipe.data.forget.path == str(root / "other" / "forget.jsonl")
    assert run.recipe.method.preset in ("npo:beta=0.05", "npo:beta=0.5")
    assert run.manifest["stop"]["metric"] == "retain_Q_A_Prob"
    assert set(run.manifest["stop"]["values"]) == {"0", "1"}
    assert runfolder.verify(done.file("tuning")) == []


def test_the_chosen_settings_are_reported(done: RunFolder) -> None:
    best = {row["arm"]: row for row in done.read_json("trials.json") if row["chosen"]}
    rate = float(best["npo"]["settings"].split()[0].partition("=")[2])
    for name in ("npo", "npo-random"):
        own = runfolder.open(done.file(name)).recipe
        assert own.train.learning_rate == rate
        assert own.method.preset == f"npo:beta={best['npo']['settings'].split('beta=')[1]}"
        assert own.evaluation.stop is None
    assert set(recipe.load(done.file("chosen.yaml")).arms) == {"graddiff", "npo", "npo-random"}


def test_the_leaderboard_holds_every_arm_with_intervals_and_the_front(done: RunFolder) -> None:
    board = done.read_json("leaderboard.json")
    assert {row["arm"] for row in board["rows"]} == {"target", "oracle", "graddiff", "npo", "npo-random"}
    assert board["front"]
    assert set(board["front"]) <= {"graddiff", "npo", "npo-random"}
    text = done.file("leaderboard.md").read_text()
    assert all(f"| **{name}** |" in text for name in board["front"])
    order = [line.split("|")[1].strip(" *") for line in text.splitlines() if line.startswith("| ")][3:]
    assert order[0] == board["baseline"]


def test_a_second_call_runs_nothing_and_can_do_without_models(done: RunFolder, root: Path) -> None:
    made = {path: path.stat().st_mtime_ns for path in done.path.rglob("model/model.safetensors")}
    before = done.file("leaderboard.md").read_text()
    done.file("leaderboard.md").unlink()
    assert sweep.judge(swept(root, "done")).path == done.path
    assert done.file("leaderboard.md").read_text() == before
    file = root / "done.yaml"
    file.write_text(recipe.dump(swept(root, "done")))
    said = CliRunner().invoke(app, ["run", str(file)])
    assert "Best first" in said.stdout
    assert {path: path.stat().st_mtime_ns for path in done.path.rglob("model/model.safetensors")} == made


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Runs die after so many more judgements; the list holds how many."""
    left, judge = [99], pipeline.judge

    def dies(*args: Any, **kwargs: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        judge(*args, **kwargs)

    monkeypatch.setattr(pipeline, "judge", dies)
    return left


@pytest.mark.slow
def test_a_kill_inside_a_trial_costs_that_trial_alone(done: RunFolder, root: Path, dying: list[int]) -> None:
    dying[0] = 2  # target and first trial are judged, the second is trained and not judged
    with pytest.raises(Killed):
        sweep.run(swept(root, "killed"), show=Silent())
    first = root / "killed/tuning/graddiff-t0/model/model.safetensors"
    written = first.stat().st_mtime_ns
    with pytest.raises(DataError, match="graddiff has 1"):
        sweep.judge(swept(root, "killed"))
    dying[0] = 99
    again = sweep.run(swept(root, "killed"), show=Silent())
    assert first.stat().st_mtime_ns == written
    assert again.read_json("trials.json") == done.read_json("trials.json")
    assert again.read_json("leaderboard.json") == done.read_json("leaderboard.json")


@pytest.mark.slow
def test_two_processes_make_the_same_sweep(done: RunFolder, root: Path) -> None:
    made = sweep.run(swept(root, "two"), jobs=2, show=Silent())
    assert made.read_json("trials.json") == done.read_json("trials.json")
    assert made.read_json("leaderboard.json") == done.read_json("leaderboard.json")


@pytest.mark.slow
def test_the_commands_make_the_same_sweep(done: RunFolder, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.dump(swept(root, "commands")))
    stages = []
    while lines := CliRunner().invoke(app, ["sweep", str(file), "--print-commands"]).stdout.splitlines():
        stages.append(len(lines))
        for line in lines:
            program, *words = shlex.split(line)
            assert program == "expunge"
            assert CliRunner().invoke(app, words).exit_code == 0
    assert stages == [4, 3]  # the models are there, from the other tests
    said = CliRunner().invoke(app, ["sweep", str(file), "--judge"])
    assert said.exit_code == 0, said.output
    assert "Best first" in said.stdout
    assert json.loads((root / "commands/trials.json").read_text()) == done.read_json("trials.json")


def test_a_hopeless_trial_ends_early_and_says_so(root: Path) -> None:
    how = swept(root, "hopeless", space={"train.learning_rate": {"choice": ["0.5"]}}, arm_space={}, trials=1)
    tree = yaml.safe_load(recipe.dump(how))
    tree["train"]["num_train_epochs"], tree["arms"] = 4, {"graddiff": ["method.preset=graddiff"]}
    made = sweep.run(recipe.load({**tree, "seeds": 1}), show=Silent())
    (row,) = made.read_json("trials.json")
    run = runfolder.open(made.file("tuning/graddiff-t0"))
    assert row["stopped_after_epoch"] == 1
    assert not row["meets_floor"]
    assert run.read_log()[-1]["epoch"] == 1
    assert run.manifest["stop"]["values"]["1"] < run.manifest["stop"]["least"]
    assert runfolder.open(made.file("graddiff")).read_log()[-1]["epoch"] == 4


def test_what_cannot_be_swept_is_said(root: Path) -> None:
    with pytest.raises(DataError, match="cannot be judged on them"):
        sweep.run(swept(root, "same", tuning=["train.trace=false"]), show=Silent())
    with pytest.raises(RecipeError, match="arm npo: a grid of 3 trials does not come out"):
        sweep.run(swept(root, "grid", sampler="grid", trials=3), show=Silent())
    with pytest.raises(RecipeError, match="nothing is searched for the arm graddiff"):
        sweep.run(swept(root, "empty", space={}), show=Silent())
    with pytest.raises(RecipeError, match="unknown arm 'nppo'"):
        swept(root, "unknown", arm_space={"nppo": SPACE})
    assert not (root / "same").exists()
