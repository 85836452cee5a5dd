"""`expunge attack` from the command line: a run beside target and oracle, a study, any model; asked a second time."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from expunge import lm as lms
from expunge import recipe, runfolder
from expunge.cli import app
from expunge.data.load import save
from expunge.recipe import Recipe
from tests.attacks import village

ATTACKS = ("--suite", "quantise:kinds=int8", "--suite", "prefill:tokens=1", "--suite", "contrast")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three untrained models and the village's records."""
    folder = tmp_path_factory.mktemp("attack")
    for split in village.SIZES:
        save(folder / f"{split}.jsonl", village.people(split))
    for seed, name in enumerate(("target", "oracle", "other")):
        lms.save(village.fresh(seed), folder / name)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings(folder)))
    return folder


def settings(root: Path) -> dict[str, object]:
    return {
        "device": "cpu",
        "output_dir": str(root / "study/run"),
        "model": {"model_name_or_path": str(root / "target")},
        "data": {
            **{split: {"path": str(root / f"{split}.jsonl")} for split in village.SIZES},
            "template": village.DATA.template,
            "max_length": 96,
        },
        "method": {"preset": "wga"},
        "evaluation": {"oracle": str(root / "oracle"), "resamples": 20, "max_new_tokens": 4},
    }


def unlearned(made: Recipe, root: Path) -> Path:
    """The folder of a run that unlearned, in a study."""
    study = runfolder.create(root / "study", "study", made)
    study.update(runs=["run"])
    run = runfolder.create(made.output_dir, "unlearn", made)
    lms.save(village.fresh(5), run.file("model"))
    run.finish()
    study.finish()
    return run.path


def call(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["attack", *arguments])


def test_a_run_is_attacked_beside_its_target_and_oracle_and_a_second_call_does_nothing(root: Path) -> None:
    path = unlearned(recipe.load(root / "recipe.yaml"), root)
    planned = call(str(path), *ATTACKS, "--plan")
    assert planned.exit_code == 0, planned.output
    assert "about" in planned.output
    assert not (path / "attacks.json").exists()
    done = call(str(path), *ATTACKS, "--limit", "9")
    assert done.exit_code == 0, done.output
    run = runfolder.open(path)
    told = run.read_json("attacks.json")
    assert set(told["robust"]["tried"]) < set(told["attacks"])
    quantised = next(entry for name, entry in told["attacks"].items() if name.startswith("quantise"))
    assert quantised["n"] == 9
    assert quantised["against"] == "oracle, holdout"
    assert run.has("report.html")
    assert runfolder.verify(path) == []
    again = call(str(path.parent), *ATTACKS, "--limit", "9")
    assert again.output.count("already made") == 3, "the study's run is this one"
    assert "Robust? " in again.output


def test_any_model_is_attacked_with_a_recipe(root: Path) -> None:
    out = root / "audited"
    done = call(str(root / "other"), *ATTACKS, "--recipe", str(root / "recipe.yaml"), "--out", str(out), "--limit", "8")
    assert done.exit_code == 0, done.output
    assert runfolder.open(out).read_json("attacks.json")["attacks"]["contrast"]["leak"] is False
    assert runfolder.verify(out) == []


def test_what_cannot_be_attacked_is_told(root: Path) -> None:
    assert "is not a run folder" in " ".join(call(str(root / "other")).output.split())
    made = recipe.load(root / "recipe.yaml", [f"output_dir={root / 'made'}"])
    run = runfolder.create(made.output_dir, "finetune", made)
    assert "which unlearned nothing" in " ".join(call(str(run.path)).output.split())
    wrong = call(str(run.path), "--recipe", str(root / "recipe.yaml"), "--out", str(root / "x"), "--suite", "quantize")
    assert "Did you mean: quantise?" in " ".join(wrong.output.split())
