"""A retain set that the model writes: made once, kept in the run folder, the same after a stop, never the secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from expunge import lm as lms
from expunge import pipeline, recipe, runs, sides, synth
from expunge.cli import app
from expunge.data.load import save
from expunge.errors import DataError, RecipeError
from expunge.neighbours import written_retain
from expunge.progress import Silent
from expunge.recipe import Recipe
from expunge.runfolder import RETAIN


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small benchmark on disk, and a model that has read enough of it to write sentences that end."""
    folder = tmp_path_factory.mktemp("neighbours")
    benchmark = synth.make(people=20, seed=0, facts=2, general=4)
    for split in ("forget", "retain", "holdout"):
        save(folder / f"{split}.jsonl", benchmark.records(split))
    taught = recipe.load(
        {
            "output_dir": str(folder / "target"),
            "device": "cpu",
            "model": {
                "fresh": {
                    "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
                    "vocab_size": 400, "max_position_embeddings": 128,
                }
            },
            "data": {
                "forget": {"path": str(folder / "forget.jsonl")},
                "retain": {"path": str(folder / "retain.jsonl")},
                "max_length": 128,
            },
            "train": {
                "num_train_epochs": 25, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
                "learning_rate": 5e-3,
            },
        }
    )  # fmt: skip
    runs.finetune(taught)
    return folder


def settings(root: Path, out: Path, **changes: Any) -> dict[str, Any]:
    return {
        "output_dir": str(out),
        "device": "cpu",
        "model": {"model_name_or_path": str(root / "target" / "target" / "model")},
        "data": {
            "forget": {"path": str(root / "forget.jsonl")},
            "max_length": 128,
            "neighbours": {"per_record": 3, "max_new_tokens": 48},
        },
        "method": {"preset": "graddiff"},
        "train": {"num_train_epochs": 1, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1},
        "evaluation": {"suite": "own", "limit": 4, "max_new_tokens": 4, "resamples": 20},
        **changes,
    }


def test_the_model_writes_it_once_and_training_reads_it(root: Path, tmp_path: Path) -> None:
    asked = recipe.load(settings(root, tmp_path / "a"))
    run = pipeline.run(asked, Silent())
    records = written_retain(run)
    facts = run.manifest["neighbours"]
    assert len(records) == facts["kept"] == run.manifest["data"]["retain"]["count"] > 4
    assert facts["asked"] == facts["kept"] + sum(facts["left_out"].values())
    assert facts["tokens"] > 0
    assert RETAIN in run.manifest["files"]
    assert "retain/nll" in run.read_log()[0]["terms"]
    assert "retain" in run.tables("unlearned", "scores")  # what it wrote is judged too: does it still say so?
    secret = {r.answer[s.start : s.end] for r in sides.records_of(asked.data.forget, "forget") for s in r.spans
              if s.label == "unwanted"}  # fmt: skip
    forgotten = {r.id: r for r in sides.records_of(asked.data.forget, "forget")}
    assert secret
    assert not {r.text_hash for r in records} & {r.text_hash for r in forgotten.values()}

    again = runs.unlearn(recipe.load(settings(root, tmp_path / "b")))
    assert again.file(RETAIN).read_bytes() == run.file(RETAIN).read_bytes()
    other = runs.unlearn(recipe.load(settings(root, tmp_path / "c", seed=1)))
    assert other.file(RETAIN).read_bytes() != run.file(RETAIN).read_bytes()


def test_what_is_there_is_not_written_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recipe.load(settings(root, tmp_path / "a", evaluation={"suite": "none"}))

    def stop(entry: Any, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.unlearn(asked, on_step=stop)
    before = (tmp_path / "a" / RETAIN).read_bytes()
    monkeypatch.setattr("expunge.neighbours.complete", None)
    run = runs.unlearn(asked)
    assert run.manifest["status"] == "finished"
    assert run.file(RETAIN).read_bytes() == before


def test_drawn_from_training_data_it_is_judged_too(root: Path, tmp_path: Path) -> None:
    tree = settings(root, tmp_path / "a")
    del tree["data"]["neighbours"]
    tree["data"]["training"] = {"path": str(root / "retain.jsonl")}
    found = recipe.load(tree)
    assert len(pipeline.sets_of(found)["retain"]) == 4
    assert not sides.retain_of(recipe.load({**tree, "data": {"forget": tree["data"]["forget"]}}))


def test_target_and_oracle_are_shared_with_runs_that_have_no_neighbours(root: Path, tmp_path: Path) -> None:
    tree = settings(root, tmp_path / "a", finetune={"output_dir": str(tmp_path / "models")})
    without: Recipe = recipe.load({**tree, "data": {**tree["data"], "neighbours": None}})
    assert runs.finetune_recipe(recipe.load(tree)) == runs.finetune_recipe(without)


def test_a_retain_set_or_neighbours_but_not_both(root: Path, tmp_path: Path) -> None:
    tree = settings(root, tmp_path / "a")
    with pytest.raises(RecipeError, match=r"neighbours stand in for a retain set, and data\.retain is given"):
        recipe.load({**tree, "data": {**tree["data"], "retain": {"path": "x.jsonl"}}})


def test_answers_that_do_not_end_are_said(root: Path, tmp_path: Path) -> None:
    tree = settings(root, tmp_path / "a")
    tree["data"]["neighbours"] = {"max_new_tokens": 1, "general": False}
    with pytest.raises(DataError, match=r"none can be kept \(8 not finished\)"):
        runs.unlearn(recipe.load(tree))


def test_from_the_command_line(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save("forget.jsonl", sides.records_of(recipe.Source(path=str(root / "forget.jsonl")), "forget"))
    model = str(root / "target" / "target" / "model")
    for arguments in (
        ("init", "--model", model, "--forget", "forget.jsonl"),
        ("run", "recipe.yaml", "data.max_length=128", "train.max_steps=1", "evaluation.suite=none"),
    ):
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, result.output
    assert json.loads(Path("runs/recipe/manifest.json").read_text())["neighbours"]["kept"] > 0
    assert yaml.safe_load(Path("recipe.yaml").read_text())["data"]["neighbours"] == {"per_record": 2}
    assert lms.load(recipe.Model(model_name_or_path="runs/recipe/model")).model is not None
