"""The whole path, small: a recipe from fictitious people to a judged report, through Python and the command line."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from typer.testing import CliRunner

import expunge
from expunge import pipeline, recipe, runfolder, synth
from expunge.cli import app
from expunge.data.load import save
from expunge.errors import MethodError, RunFolderError
from expunge.evals.judge import metrics_from_folder
from expunge.progress import Bar, Silent
from expunge.recipe import Recipe
from expunge.runfolder import RunFolder


def settings(root: Path, **changes: Any) -> dict[str, Any]:
    """A recipe that takes seconds: 20 people, two facts each, a model of 30k parameters."""
    train = {
        "num_train_epochs": 2, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 1e-2
    }  # fmt: skip
    return {
        "name": "small",
        "output_dir": str(root / "etw"),
        "device": "cpu",
        "model": {
            "fresh": {
                "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
                "vocab_size": 320, "max_position_embeddings": 128,
            }
        },
        "data": {
            **{side: {"path": str(root / f"{side}.jsonl")} for side in ("forget", "retain", "holdout", "general")},
            "max_length": 128,
        },
        "method": {"preset": "etw"},
        "train": {**train, "num_train_epochs": 1},
        "finetune": {"output_dir": str(root / "models"), "train": train},
        "evaluation": {"suite": "own", "limit": 4, "max_new_tokens": 4, "resamples": 50},
        **changes,
    }  # fmt: skip


class Stages:
    """Remembers what was done."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def stage(self, name: str) -> AbstractContextManager[Bar]:
        self.names.append(name)
        return Silent().stage(name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data of a small benchmark."""
    folder = tmp_path_factory.mktemp("pipeline")
    benchmark = synth.make(people=20, seed=0, facts=2, shared=1, pairs=1, general=4)
    for split in ("forget", "retain", "holdout"):
        save(folder / f"{split}.jsonl", benchmark.records(split))
    save(folder / "general.jsonl", benchmark.records("general", ("qa", "sentence")))
    return folder


@pytest.fixture(scope="module")
def done(root: Path) -> RunFolder:
    """The run of the whole path."""
    return pipeline.run(recipe.load(settings(root)), Silent())


def test_the_path_leaves_a_whole_run_folder(done: RunFolder, root: Path) -> None:
    assert done.manifest["status"] == "finished"
    assert runfolder.verify(done.path) == []
    assert done.has("report.html")
    assert done.has("model/model.safetensors")
    assert not done.has("checkpoints")
    assert done.manifest["compared_with"] == {"target": "../models/target", "oracle": "../models/oracle"}
    log = done.read_log()
    assert {"forget/ga", "retain/nll"} == set(log[0]["terms"])
    assert log[0]["weight_on_gold"] is not None
    assert log[-1]["drift"] > 0
    assert set(log[-1]["drift_by_layer"]) == {"embedding", "layer.0", "layer.1", "head and norm"}
    assert [line["epoch"] for line in done.read_lines("diagnostics.jsonl")] == [0, 1]
    assert sorted(set(done.read_table("tokens.parquet")["epoch"].to_pylist())) == [0.0, 1.0]


def test_the_saved_model_carries_its_card(done: RunFolder) -> None:
    from huggingface_hub import ModelCard

    results = {result.metric_type for result in ModelCard.load(done.file("model/README.md")).data.eval_results}
    metrics = done.read_json("eval/unlearned/metrics.json")
    assert results == {name for name, entry in metrics.items() if entry["agg_value"] is not None}
    assert "model/README.md" in done.manifest["files"]
    assert runfolder.verify(done.path) == []


def test_oracle_and_target_differ_in_what_they_read(done: RunFolder, root: Path) -> None:
    target, oracle = (runfolder.open(root / "models" / name) for name in ("target", "oracle"))
    assert oracle.manifest["without"] == ["forget"]
    steps = [run.read_log()[-1]["step"] for run in (target, oracle)]
    assert steps[0] > steps[1]


def test_every_number_can_be_recomputed_without_a_model(done: RunFolder, root: Path) -> None:
    tables, oracle = done.file("eval/unlearned"), root / "models/oracle/eval/oracle"
    written = json.loads((tables / "metrics.json").read_text())
    assert {
        "forget_Q_A_Prob",
        "forget_quality",
        "model_utility",
        "privleak",
        "mia_min_k",
        "extraction_strength",
    } <= set(written)
    again = metrics_from_folder(tables, oracle, target=root / "models/target/eval/target", resamples=50)
    assert runfolder.plain(again) == written
    assert all(entry["n"] > 0 and "ci_low" in entry for entry in written.values())


def test_a_finished_run_is_not_run_again(done: RunFolder, root: Path) -> None:
    before = done.file("model/model.safetensors").stat().st_mtime_ns
    again = pipeline.run(recipe.load(settings(root)), Silent())
    assert again.path == done.path
    assert done.file("model/model.safetensors").stat().st_mtime_ns == before


def test_another_recipe_does_not_overwrite_it(done: RunFolder, root: Path) -> None:
    with pytest.raises(RunFolderError, match="holds another run"):
        pipeline.run(recipe.load(settings(root, seed=3, finetune=None, model={"model_name_or_path": "x"})), Silent())


def test_methods_share_target_and_oracle(done: RunFolder, root: Path) -> None:
    stamp = (root / "models/target/model/model.safetensors").stat().st_mtime_ns
    changed = settings(root, method={"preset": "npo"}, output_dir=str(root / "npo"))
    npo = pipeline.run(recipe.load(changed), Silent())
    assert (root / "models/target/model/model.safetensors").stat().st_mtime_ns == stamp
    assert npo.has("eval/unlearned/metrics.json")


def test_the_command_line_does_the_same(done: RunFolder, root: Path) -> None:
    file = root / "recipe.yaml"
    file.write_text(yaml.safe_dump(settings(root)))
    overrides = ["method.control=shuffle", f"output_dir={root / 'control'}", "name=control"]
    result = CliRunner().invoke(app, ["run", str(file), *overrides])
    assert result.exit_code == 0, result.output
    assert (root / "control" / "report.html").is_file()
    judged = CliRunner().invoke(
        app,
        ["evaluate", str(root / "control"), "--suite", "own", "--recipe", str(file), "--out", str(root / "judged"),
         "--oracle", str(root / "models/oracle")],
    )  # fmt: skip
    assert judged.exit_code == 0, judged.output
    assert json.loads((root / "judged/eval/model/metrics.json").read_text())["forget_Q_A_Prob"]["n"] == 4


def test_the_python_interface(done: RunFolder, root: Path) -> None:
    records = expunge.load_records(root / "forget.jsonl")
    table = expunge.score_tokens(done.file("model"), records, score="entropy", select="top:r=0.3")
    assert table.num_rows == len(records)
    first = table.slice(0, 1).to_pylist()[0]
    assert set(first["weight"]) == {0.0, 1.0}
    assert "".join(first["tokens"][:-1]) == records[0].answer
    assert isinstance(expunge.load_recipe(settings(root)), Recipe)
    pq.write_table(table, root / "scores.parquet")


def test_token_weights_are_the_weights_of_the_recipe(done: RunFolder, root: Path) -> None:
    records = expunge.load_records(root / "forget.jsonl")[:2]
    lm = expunge.load_model(done.file("model"), device="cpu")
    table = expunge.score_tokens(lm, records, score="confidence:beta=2", select="normalised").to_pylist()
    for record, row in zip(records, table, strict=True):
        messages = [{"role": "user", "content": record.prompt}, {"role": "assistant", "content": record.answer}]
        ids = torch.tensor([lm.tokenizer(lm.tokenizer.apply_chat_template(messages, tokenize=False),
                                         add_special_tokens=False)["input_ids"]])  # fmt: skip
        labels = torch.full_like(ids, -100)
        labels[:, -len(row["tokens"]) :] = ids[:, -len(row["tokens"]) :]
        with torch.no_grad():
            logits = lm.model(input_ids=ids).logits
        weights = expunge.token_weights(logits, labels, score="confidence:beta=2", select="normalised")
        torch.testing.assert_close(weights[labels != -100], torch.tensor(row["weight"]), rtol=1e-4, atol=1e-6)
        assert bool((weights[labels == -100] == 0).all())
    with pytest.raises(MethodError, match="annotation"):
        expunge.token_weights(logits, labels, score="given")


def test_a_recipe_with_arms_and_seeds_is_a_folder_of_runs(root: Path, tmp_path: Path) -> None:
    arms = {"plain": ["method.preset=graddiff"], "etw": [], "etw-random": ["method.control=random"]}
    whole = recipe.load(settings(root, arms=arms, output_dir=str(tmp_path / "study")))
    stages = Stages()
    folder = pipeline.run(whole, stages)
    assert [name for name in stages.names if name.startswith("Judge")] == [
        "Judge oracle", "Judge target", *(f"Judge unlearned ({arm})" for arm in arms)
    ], "target and oracle are judged once for all arms"  # fmt: skip
    assert folder.manifest["kind"] == "study"
    assert folder.manifest["runs"] == ["plain", "etw", "etw-random"]
    assert runfolder.verify(folder.path) == []
    made = runfolder.open(folder.file("etw-random"))
    assert made.manifest["compared_with"]["target"].endswith("models/target")
    wider = recipe.load(settings(root, arms={"etw": []}, seeds=2, output_dir=str(tmp_path / "study")))
    begun = runfolder.open(folder.file("etw")).manifest["created"]
    again = pipeline.run(wider, Silent())
    assert again.manifest["runs"] == ["etw-0", "etw-1"]
    assert runfolder.open(folder.file("etw")).manifest["created"] == begun, "what was run before is kept"
    seeds = [runfolder.open(folder.file(f"etw-{k}")) for k in (0, 1)]
    hashes = [run.manifest["files"]["model/model.safetensors"]["sha256"] for run in seeds]
    assert hashes[0] != hashes[1]


def test_a_gate_in_the_recipe_is_kept_before_the_run_and_judged_after_it(done: RunFolder, root: Path) -> None:
    file = root / "gate.yaml"
    bounds = [{"metric": "forget_Q_A_Prob", "at_most": 0.9}, {"metric": "model_utility", "at_least": 0.0}]
    file.write_text(yaml.safe_dump({"conditions": bounds, "min_items": 2, "few_subjects": True}))
    gated = settings(root, output_dir=str(root / "gated"))
    gated["evaluation"] = {**gated["evaluation"], "gate": str(file)}
    run = pipeline.run(recipe.load(gated), Silent())
    found = run.read_json(runfolder.VERDICT)
    assert (found["outcome"], found["registered"]) == ("PASS", True)
    assert run.manifest["gate"]["registered"] == run.manifest["created"]
    assert runfolder.verify(run.path) == []
    assert {"ou_utility", "forget_excess_Prob"} <= set(run.read_json("eval/unlearned/metrics.json"))
