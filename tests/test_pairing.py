# ruff: noqa: F401, F811 - fixtures of another file are imported, and asked for by name
"""A run beside its pair, by recipe and command line: what corresponds, what does not, and arms that find each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from expunge import cli, recipe, runfolder, runs
from expunge.errors import Interrupted, RecipeError, RunFolderError, TrainingError
from expunge.recipe import Recipe
from expunge.resolve import resolve
from expunge.runfolder import RunFolder
from tests.test_runs import made, material, same, stop_at


@pytest.fixture(scope="module")
def pair(material: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of the method itself."""
    return runs.unlearn(made(material, tmp_path_factory.mktemp("pair") / "etw"))


def beside(material: Path, out: Path, pair: RunFolder, **more: Any) -> Recipe:
    method = {"preset": "etw", "control": "update-matched", "paired_run": str(pair.path), **more.pop("method", {})}
    return made(material, out, method=method, **more)


def test_every_step_is_as_long_as_the_pairs(material: Path, tmp_path: Path, pair: RunFolder) -> None:
    run = runs.unlearn(beside(material, tmp_path / "run", pair))
    own, wanted = ([line["update_norm"] for line in r.read_log()] for r in (run, pair))
    assert own == pytest.approx(wanted, rel=1e-4)  # of float32 weights
    assert {line["selected_share"] for line in run.read_log()} == {1.0}
    assert not same(run, pair)
    assert run.manifest["paired_with"]["run"] == str(pair.path)


def test_it_resumes_to_the_bit(material: Path, tmp_path: Path, pair: RunFolder) -> None:
    straight = runs.unlearn(beside(material, tmp_path / "straight", pair))
    asked = beside(material, tmp_path / "stopped", pair)
    with pytest.raises(Interrupted):
        runs.unlearn(asked, on_step=stop_at(3))
    assert same(runs.unlearn(asked), straight)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 4}, r"1 settings differ: seed is 3 there, 4 here"),
        ({"train": {"learning_rate": 2e-3}}, r"train.learning_rate is 0.001 there, 0.002 here"),
        ({"train": {"max_steps": 4}}, r"train.max_steps is -1 there, 4 here"),
        ({"method": {"preset": "npo"}}, r"method.preset is 'etw' there, 'npo' here"),
        ({"data": {"max_length": 64}}, r"data.max_length is 96 there, 64 here"),
    ],
)
def test_a_pair_that_does_not_correspond_is_refused(
    material: Path,
    tmp_path: Path,
    pair: RunFolder,
    change: Mapping[str, Any],
    said: str,
) -> None:
    with pytest.raises(TrainingError, match=said):
        runs.unlearn(beside(material, tmp_path / "run", pair, **change))


def test_what_decides_no_step_may_differ(material: Path, tmp_path: Path, pair: RunFolder) -> None:
    asked = beside(material, tmp_path / "run", pair, name="other", train={"save_steps": 1, "logging_steps": 3})
    assert runs.unlearn(asked).manifest["status"] == "finished"


def test_a_pair_that_is_not_there_or_not_one_is_refused(material: Path, tmp_path: Path, pair: RunFolder) -> None:
    with pytest.raises(RunFolderError, match="nowhere"):
        runs.unlearn(beside(material, tmp_path / "a", pair, method={"paired_run": str(tmp_path / "nowhere")}))
    seldom = runs.unlearn(made(material, tmp_path / "seldom", train={"logging_steps": 2}))
    with pytest.raises(TrainingError, match=r"update norm of 3 steps, the last is step 6; this run takes 6"):
        runs.unlearn(beside(material, tmp_path / "b", seldom))
    control = runs.unlearn(made(material, tmp_path / "random", method={"control": "random"}))
    with pytest.raises(TrainingError, match=r"it is a control itself \(random\); give the run of the method"):
        runs.unlearn(beside(material, tmp_path / "c", control))
    control.update(status="interrupted")
    with pytest.raises(TrainingError, match=r"it is interrupted; let it finish first; it is a control"):
        runs.unlearn(beside(material, tmp_path / "d", control))


def test_a_pair_whose_log_changed_in_between_is_refused(material: Path, tmp_path: Path) -> None:
    first = runs.unlearn(made(material, tmp_path / "etw"))
    asked = beside(material, tmp_path / "run", first)
    with pytest.raises(Interrupted):
        runs.unlearn(asked, on_step=stop_at(2))
    lines = first.read_log()
    first.write_lines("log.jsonl", [{**line, "update_norm": 1.0} for line in lines])
    with pytest.raises(TrainingError, match="whose log has changed since"):
        runs.unlearn(asked)
    first.write_lines("log.jsonl", lines)
    assert runs.unlearn(asked).manifest["status"] == "finished"


def test_a_recipe_says_what_is_missing_or_too_much(material: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="paired_run belongs to control update-matched, and control is random"):
        recipe.load({"method": {"preset": "etw", "control": "random", "paired_run": "x"}})
    tree = made(material, tmp_path / "x").model_dump(mode="json")
    with pytest.raises(RecipeError, match=r"method.paired_run: not set; update-matched needs the run folder"):
        resolve(tree, ["method.control=update-matched"], "run")


def arms(**more: list[str]) -> Recipe:
    return recipe.load({"output_dir": "out", "method": {"preset": "etw"}, "arms": more, "seeds": 2})


MATCH = "method.control=update-matched"


def test_an_arm_finds_its_method_and_its_seed_by_itself() -> None:
    found = recipe.variants(
        arms(npo=["method.preset=npo"], etw=[], matched=[MATCH], named=[MATCH, "method.paired_run=etw"])
    )
    pairs = {r.output_dir: r.method.paired_run for r in found}
    assert pairs == {
        "out/npo-0": None, "out/npo-1": None, "out/etw-0": None, "out/etw-1": None,
        "out/matched-0": "out/etw-0", "out/matched-1": "out/etw-1",
        "out/named-0": "out/etw-0", "out/named-1": "out/etw-1",
    }  # fmt: skip


def test_an_arm_without_its_method_or_before_it_is_told() -> None:
    with pytest.raises(RecipeError, match=r"arms.matched: its pair, etw, runs after it; put that arm first"):
        recipe.variants(arms(matched=[MATCH], etw=[]))
    alone = recipe.variants(arms(other=["train.learning_rate=1e-3"], matched=[MATCH]))
    assert {r.method.paired_run for r in alone} == {None}, "another learning rate is another method"
    assert any("method.paired_run" in fault for fault in recipe.missing(alone[-1], "run"))


def test_the_command_line_runs_method_and_both_controls_from_one_recipe(material: Path, tmp_path: Path) -> None:
    tree = made(material, tmp_path / "study", evaluation={"suite": "none"}).model_dump(mode="json")
    tree["arms"] = {"etw": [], "grad": ["method.control=grad-matched"], "update": [MATCH]}
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(tree))
    done = CliRunner().invoke(cli.app, ["run", str(file)])
    assert done.exit_code == 0, done.output
    logs = {arm: runfolder.open(tmp_path / "study" / arm).read_log() for arm in tree["arms"]}
    wanted, found = ([line["update_norm"] for line in logs[arm]] for arm in ("etw", "update"))
    assert found == pytest.approx(wanted, rel=1e-4)
    assert all("forget_scale" in line for line in logs["grad"])
