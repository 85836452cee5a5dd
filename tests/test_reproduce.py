"""A run once more: the same bits come out, and what was changed is found."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from expunge import pipeline, recipe, reproduce, runfolder, synth
from expunge.cli import app
from expunge.data.load import save
from expunge.errors import RunFolderError
from expunge.progress import Silent
from expunge.runfolder import RunFolder
from tests.report import synthetic
from tests.test_pipeline import settings


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A tiny run with its target and no oracle."""
    root = tmp_path_factory.mktemp("reproduce")
    benchmark = synth.make(people=20, seed=0, facts=2, shared=1, pairs=1, general=4)
    for split in ("forget", "retain", "holdout"):
        save(root / f"{split}.jsonl", benchmark.records(split))
    save(root / "general.jsonl", benchmark.records("general", ("qa", "sentence")))
    tree = settings(root)
    tree["finetune"]["oracle"] = False
    tree["evaluation"]["generate"] = False
    for train in (tree["train"], tree["finetune"]["train"]):
        train["max_steps"] = 3
    return pipeline.run(recipe.load(tree), Silent())


def test_the_verb_runs_it_again_to_the_bit_and_finds_what_was_changed(first: RunFolder, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["reproduce", str(first.path), "--out", str(tmp_path / "again")])
    assert result.exit_code == 0, result.output
    assert "SAME" in result.output
    second = runfolder.open(tmp_path / "again" / "run")
    one, other = (run.manifest["files"]["model/model.safetensors"]["sha256"] for run in (first, second))
    assert one == other
    assert (tmp_path / "again" / "models" / "target").is_dir(), "the target was trained again, not borrowed"
    found = json.loads((tmp_path / "again" / "reproduction.json").read_text())
    assert found["same"] is True
    assert found["compared"] > 10
    assert found["inputs"] == found["environment"] == []

    metrics = second.read_json("eval/unlearned/metrics.json")
    metrics["forget_Q_A_Prob"]["agg_value"] += 0.25
    second.write_json("eval/unlearned/metrics.json", metrics)
    second.update(environment={"python": "2.7"}, data={"forget": {"count": 1, "hash": "other"}})
    changed = reproduce.compared(first, second, 0.2)
    assert [(change.model, change.what) for change in changed.changes] == [("small", "forget_Q_A_Prob")]
    assert [change.what for change in changed.inputs] == ["small: forget"]
    assert [(change.what, change.after) for change in changed.environment] == [("python", "2.7")]
    assert reproduce.compared(first, second, 0.3).same
    claimed = first.read_json("eval/unlearned/metrics.json")
    claimed["forget_Q_A_Prob"]["agg_value"] += 0.25
    first.write_json("eval/unlearned/metrics.json", claimed)
    result = CliRunner().invoke(app, ["reproduce", str(first.path), "--out", str(tmp_path / "again")])
    assert result.exit_code == 1, "numbers that the recipe does not give are found out"
    assert "forget_Q_A_Prob" in result.output


def test_only_whole_runs_are_rerun(tmp_path: Path) -> None:
    demo = synthetic.demo(tmp_path / "demo", records=5, epochs=1, names=["etw"])
    with pytest.raises(RunFolderError, match="kind finetune"):
        reproduce.run(demo.file("target"), tmp_path / "out")
    demo.update(status="running")
    with pytest.raises(RunFolderError, match="is running"):
        reproduce.run(demo.path, tmp_path / "out")
