"""The two verbs from recipe to run folder: finished, stopped and resumed, refused; target and oracle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from expunge import lm as lms
from expunge import recipe, registry, runs
from expunge.data.records import Record
from expunge.errors import DataError, Interrupted, MethodError, RunFolderError, TrainingError
from expunge.lm import LM
from expunge.recipe import Recipe
from expunge.refcache import Reference
from expunge.terms import build_terms
from tests.fixtures.models import tiny
from tests.fixtures.tokenizers import bpe

PLACES = ["Kuwait City", "Karachi", "Zürich", "São Paulo", "Oslo", "Lima", "Hanoi"]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with dropout, a forget and a retain file, and an annotation-free life."""
    folder = tmp_path_factory.mktemp("material")
    lms.save(
        LM(tiny("gpt2-tied-positions", vocab_size=420, resid_pdrop=0.1, n_positions=128), bpe(), "x"), folder / "model"
    )
    for side, offset in (("forget", 0), ("retain", 3)):
        rows = [
            {
                "id": f"{side}-{i}",
                "question": f"Where was {side} person {i} born?",
                "answer": f"In {PLACES[(i + offset) % 7]}.",
            }
            for i in range(6)
        ]
        (folder / f"{side}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def made(material: Path, out: Path, preset: str = "etw", **more: Any) -> Recipe:
    tree: dict[str, Any] = {
        "seed": 3,
        "device": "cpu",
        "output_dir": str(out),
        "model": {"model_name_or_path": str(material / "model")},
        "data": {
            "forget": {"path": str(material / "forget.jsonl")},
            "retain": {"path": str(material / "retain.jsonl")},
            "template": "Q: {prompt} A: {answer}",
            "max_length": 96,
        },
        "method": {"preset": preset},
        "train": {
            "num_train_epochs": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1,
            "learning_rate": 1e-3, "save_steps": 2,
        },
    }  # fmt: skip
    for key, value in more.items():
        tree[key] = {**tree.get(key, {}), **value} if isinstance(value, Mapping) else value
    return recipe.load(tree)


def weights(run: Any) -> dict[str, torch.Tensor]:
    return load_file(run.file("model") / "model.safetensors")


def same(a: Any, b: Any) -> bool:
    x, y = weights(a), weights(b)
    return set(x) == set(y) and all(torch.equal(x[name], y[name]) for name in x)


def stop_at(step: int) -> Any:
    """A callback that asks the run to stop after a step."""

    def on_step(entry: Mapping[str, Any], total: int) -> None:
        if entry["step"] == step:
            os.kill(os.getpid(), signal.SIGINT)

    return on_step


def test_a_run_leaves_a_model_a_log_and_what_it_was_made_of(material: Path, tmp_path: Path) -> None:
    asked = made(material, tmp_path / "run")
    seen: list[int] = []
    run = runs.unlearn(asked, on_step=lambda entry, total: seen.append(total), on_epoch=lambda epoch, module: None)
    facts = run.manifest
    assert (facts["status"], facts["kind"], seen) == ("finished", "unlearn", [6] * 6)
    assert (facts["data"]["forget"]["count"], facts["data"]["retain"]["count"]) == (6, 6)
    before = lms.load(asked.model)
    assert facts["model"]["hash"] == lms.content_hash(before.model)
    after = lms.load(recipe.Model(model_name_or_path=str(run.file("model"))))
    assert lms.content_hash(after.model) != facts["model"]["hash"]
    assert [line["step"] for line in run.read_log()] == [1, 2, 3, 4, 5, 6]
    assert {row["epoch"] for row in run.read_table("tokens.parquet").to_pylist()} == {0.0, 1.0, 2.0}
    assert run.recipe == asked
    assert not run.file("checkpoints").exists()


@pytest.mark.parametrize("preset", ["etw", "npo", "graddiff-kl", "rmu"])
def test_a_stopped_run_goes_on_to_the_same_model(material: Path, tmp_path: Path, preset: str) -> None:
    straight = runs.unlearn(made(material, tmp_path / "straight", preset))
    asked = made(material, tmp_path / "stopped", preset)

    with pytest.raises(Interrupted, match="stopped after step 3 of 6"):
        runs.unlearn(asked, on_step=stop_at(3))
    facts = json.loads((tmp_path / "stopped/manifest.json").read_text())
    assert facts["status"] == "interrupted"
    assert "stopped after step 3 of 6" in facts["error"]
    resumed = runs.unlearn(asked)
    assert resumed.manifest["status"] == "finished"
    assert not resumed.manifest.get("error"), "what stopped it is over"
    assert same(resumed, straight)
    tables = [
        r.read_table("tokens.parquet").sort_by([("epoch", "ascending"), ("id", "ascending")])
        for r in (resumed, straight)
    ]
    assert tables[0].equals(tables[1])


STOPPED = """
import sys, time
from pathlib import Path
from tests import test_runs as t
from expunge import runs
asked = t.made(Path(sys.argv[1]), Path(sys.argv[2]))
print("READY", flush=True)
try:
    runs.unlearn(asked, on_step=lambda entry, total: (print(entry["step"], flush=True), time.sleep(0.3)))
except t.Interrupted as stop:
    print(stop, flush=True)
    sys.exit(130)
"""


def test_ctrl_c_from_outside_ends_a_process_cleanly(material: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", STOPPED, str(material), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "1":
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
    assert process.returncode == 130, rest
    assert "stopped after step" in rest
    assert "Give the same command again to go on" in rest
    resumed = runs.unlearn(made(material, tmp_path / "run"))
    assert same(resumed, runs.unlearn(made(material, tmp_path / "straight")))


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 1.1, 1.4])
def test_a_run_killed_at_any_time_goes_on_to_the_same_model(material: Path, tmp_path: Path, delay: float) -> None:
    command = [sys.executable, "-W", "ignore", "-c", STOPPED, str(material), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("READY" in line for line in process.stdout)
        time.sleep(delay)
        process.kill()
    resumed = runs.unlearn(made(material, tmp_path / "run"))
    assert same(resumed, runs.unlearn(made(material, tmp_path / "straight")))


def test_a_finished_run_is_returned_and_not_done_again(material: Path, tmp_path: Path) -> None:
    first = runs.unlearn(made(material, tmp_path / "run"))
    stamp = (first.file("model") / "model.safetensors").stat().st_mtime_ns

    def never(entry: Mapping[str, Any], total: int) -> None:
        raise AssertionError("trained again")

    asked = made(material, tmp_path / "run", name="another name")
    assert runs.is_finished(asked, "unlearn")
    again = runs.unlearn(asked, on_step=never)
    assert (again.file("model") / "model.safetensors").stat().st_mtime_ns == stamp


def test_another_recipe_in_the_same_folder_is_refused_unless_it_may_overwrite(material: Path, tmp_path: Path) -> None:
    runs.unlearn(made(material, tmp_path / "run"))
    other = made(material, tmp_path / "run", preset="graddiff")
    with pytest.raises(RunFolderError, match=r"holds another run.*Choose another output_dir, or set overwrite=true"):
        runs.unlearn(other)
    replaced = runs.unlearn(made(material, tmp_path / "run", preset="graddiff", overwrite=True))
    assert replaced.recipe.method.preset == "graddiff"
    assert same(replaced, runs.unlearn(made(material, tmp_path / "fresh", preset="graddiff")))


def test_a_run_whose_numbers_break_is_marked_failed(material: Path, tmp_path: Path) -> None:
    broken = made(material, tmp_path / "run", preset="ga", train={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"not finite|loss nan|loss inf|gradient norm"):
        runs.unlearn(broken)
    facts = json.loads((tmp_path / "run/manifest.json").read_text())
    assert facts["status"] == "failed"
    assert facts["error"].startswith("TrainingError: ")
    assert not (tmp_path / "run/model").exists()


def test_terms_on_a_side_without_records_are_refused(material: Path, tmp_path: Path) -> None:
    asked = made(material, tmp_path / "run")
    bare = asked.model_copy(update={"data": asked.data.model_copy(update={"retain": None})})
    with pytest.raises(DataError, match=r"a term on retain, but there are no retain records. Set data.retain"):
        runs.unlearn(bare)


def test_a_method_that_is_not_there_is_told_before_anything_is_made(material: Path, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="unknown preset"):
        runs.unlearn(made(material, tmp_path / "run", preset="nothing"))
    assert not (tmp_path / "run").exists()


def test_controls_change_the_model_and_repeat_themselves(material: Path, tmp_path: Path) -> None:
    found = {}
    for control in ("none", "shuffle", "random", "invert"):
        method = {"preset": "etw", "control": control}
        found[control] = runs.unlearn(made(material, tmp_path / control, method=method))
    again = runs.unlearn(made(material, tmp_path / "again", method={"preset": "etw", "control": "shuffle"}))
    assert same(found["shuffle"], again)
    names = list(found)
    assert not any(same(found[a], found[b]) for i, a in enumerate(names) for b in names[i + 1 :])


def test_plugins_of_a_recipe_are_loaded(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_METHODS", {kind: dict(known) for kind, known in registry._METHODS.items()})
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from expunge.core import NOTHING\n"
        "from expunge.registry import method\n"
        "@method('scorer', 'first-token-of-test-runs')\n"
        "@dataclass(frozen=True)\n"
        "class First:\n"
        "    '''1 on the first scored token.'''\n"
        "    needs = NOTHING\n"
        "    def __call__(self, forward, state):\n"
        "        return ((forward.mask.cumsum(-1) == 1) & forward.mask).float()\n"
    )
    terms = [{"objective": "ga", "score": "first-token-of-test-runs", "select": "threshold:value=0"}]
    asked = made(
        material, tmp_path / "run", plugins=[str(tmp_path / "mine.py")], method={"preset": None, "terms": terms}
    )
    run = runs.unlearn(asked)
    assert all(line["selected_share"] < 0.5 for line in run.read_log())
    assert {tuple(row["weight"][:2]) for row in run.read_table("tokens.parquet").to_pylist()} == {(1.0, 0.0)}


# References


def test_the_reference_is_the_starting_model_or_the_one_that_is_named(material: Path, tmp_path: Path) -> None:
    lms.save(LM(tiny("gpt2-tied-positions", seed=9, vocab_size=420, n_positions=128), bpe(), "x"), tmp_path / "other")
    own = runs.unlearn(made(material, tmp_path / "own", preset="npo", train={"max_steps": 1}))
    other = runs.unlearn(
        made(
            material, tmp_path / "named", preset="npo", train={"max_steps": 1}, reference_model=str(tmp_path / "other")
        )
    )
    first, second = (run.read_log()[0]["terms"]["forget/npo"] for run in (own, other))
    # at the start policy and reference are the same but for dropout: about 2/0.1 log 2 = 13.86
    assert first == pytest.approx(13.863, rel=0.3)
    assert second != pytest.approx(first, rel=1e-3)


def test_a_second_model_is_kept_only_where_it_weighs_less_than_its_states(material: Path, tmp_path: Path) -> None:
    asked = made(material, tmp_path / "run", preset="npo")
    lm = lms.load(asked.model)
    data = runs.prepare(asked, lm)
    found: dict[str, Reference | None] = {}
    for preset in ("etw", "npo", "graddiff-kl", "rmu"):
        found[preset] = runs.reference_of(asked, lm, build_terms(recipe.Method(preset=preset)), data.encoded)
    assert found["etw"] is None
    assert found["npo"] is not None
    assert found["npo"].module is None
    assert len(found["npo"].seen) == 6
    assert found["rmu"] is not None
    assert found["rmu"].module is None
    assert [key[0] for key, _ in found["rmu"].states] == [item.id for item in data.encoded["retain"]]
    many = {"retain": data.encoded["retain"] * 1000}  # more hidden states than the model has weights
    live = runs.reference_of(asked, lm, build_terms(recipe.Method(preset="rmu"))[1:], many)  # type: ignore[arg-type]
    assert live is not None
    assert live.module is not None
    assert found["graddiff-kl"] is not None
    assert found["graddiff-kl"].module is None
    assert found["graddiff-kl"].head is not None
    assert not found["graddiff-kl"].head.weight.requires_grad
    assert not any(p.requires_grad for p in live.module.parameters())
    assert live.module.model is not lm.model
    assert all(p.requires_grad for p in lm.model.parameters())


# Target and oracle


def fresh(material: Path, out: Path, **more: Any) -> Recipe:
    size = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 300,
    }
    train = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
    }
    asked = made(material, out / "run", finetune={"output_dir": str(out / "made"), "train": train}, **more)
    model = recipe.Model.model_validate({"fresh": {**size, "max_position_embeddings": 96}})
    return asked.model_copy(update={"model": model})


def test_target_and_oracle_differ_in_nothing_but_what_they_read(material: Path, tmp_path: Path) -> None:
    asked = fresh(material, tmp_path)
    target, oracle = runs.finetune(asked), runs.finetune(asked, without={"forget"})
    assert (target.path.name, oracle.path.name) == ("target", "oracle")
    assert (target.manifest["without"], oracle.manifest["without"]) == ([], ["forget"])
    assert target.manifest["model"]["hash"] == oracle.manifest["model"]["hash"], "they start from the same weights"
    assert not same(target, oracle)
    vocabularies = [json.loads((r.file("model") / "tokenizer.json").read_text())["model"] for r in (target, oracle)]
    assert vocabularies[0] == vocabularies[1]
    assert [line["step"] for line in target.read_log()] == [1, 2, 3]
    assert [line["step"] for line in oracle.read_log()] == [1, 2]
    assert list(target.read_log()[0]["terms"]) == ["retain/nll on all"]


def test_an_unlearning_run_starts_from_the_target(material: Path, tmp_path: Path) -> None:
    asked = fresh(material, tmp_path)
    target = runs.finetune(asked)
    run = runs.unlearn(asked, start=target.file("model"))
    assert run.manifest["model"]["hash"] == lms.content_hash(
        lms.load(recipe.Model(model_name_or_path=str(target.file("model")))).model
    )


def test_only_whole_sides_can_be_left_out(material: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="finetune can leave out forget, retain or general; asked for: forgot"):
        runs.finetune(made(material, tmp_path), without={"forgot"})


def test_a_score_that_looks_at_retain_records_gets_them(material: Path, tmp_path: Path) -> None:
    asked = made(material, tmp_path / "none", preset="influence")
    lm = lms.load(asked.model)
    records = [Record(id="a", prompt="Where?", answer="In Oslo, by the sea.", split="forget")]
    (weights,) = runs.score_tokens(asked, lm, records)["weight"].to_pylist()
    assert 0 < sum(weights) < len(weights)
    alone = asked.model_copy(update={"data": asked.data.model_copy(update={"retain": None})})
    with pytest.raises(MethodError, match="compares with retain records"):
        runs.score_tokens(alone, lm, records)


def test_tokens_are_scored_without_touching_the_model(material: Path, tmp_path: Path) -> None:
    asked = made(material, tmp_path / "none", preset="npo")
    lm = lms.load(asked.model)
    before = lms.content_hash(lm.model)
    records = [Record(id="a", prompt="Where?", answer="In Oslo.", split="forget")]
    table = runs.score_tokens(asked, lm, records)
    assert table["id"].to_pylist() == ["a"]
    assert set(table["weight"].to_pylist()[0]) == {1.0}
    assert lms.content_hash(lm.model) == before
    assert not lm.model.training
    assert not (tmp_path / "none").exists()
