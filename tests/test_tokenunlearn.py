"""TokenUnlearn from the command line: its scores made once, kept, shown; a kill in between costs nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from expunge import lm as lms
from expunge import recipe, runfolder, runs
from expunge.cli import app
from expunge.lm import LM
from tests.fixtures.models import tiny
from tests.fixtures.tokenizers import bpe

PLACES = ["Kuwait City", "Karachi", "Zürich", "São Paulo", "Oslo", "Lima"]
REFRESHED = {"terms": [
    {"objective": "ga", "score": "0.5*masking:refresh=2+0.5*frozen:refresh=2", "select": "pool:by=word > top:r=0.4"},
    {"objective": "nll", "on": "retain"},
]}  # fmt: skip


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with dropout, six records to forget and six to keep."""
    folder = tmp_path_factory.mktemp("material")
    model = tiny("gpt2-tied-positions", vocab_size=420, resid_pdrop=0.1, n_positions=128)
    lms.save(LM(model, bpe(), "x"), folder / "model")
    for side, shift in (("forget", 0), ("retain", 3)):
        rows = [
            {"id": f"{side}-{i}", "question": f"Where was Ann {side.title()} {i} born?",
             "answer": f"She was born in {PLACES[(i + shift) % 6]}."}
            for i in range(6)
        ]  # fmt: skip
        (folder / f"{side}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def written(material: Path, out: Path, method: dict[str, Any]) -> str:
    """The path of a recipe file for this method."""
    tree = {
        "seed": 3, "device": "cpu", "output_dir": str(out), "method": method,
        "model": {"model_name_or_path": str(material / "model")},
        "data": {
            "forget": {"path": str(material / "forget.jsonl")}, "retain": {"path": str(material / "retain.jsonl")},
            "template": "Q: {prompt} A: {answer}", "max_length": 96,
        },
        "train": {
            "max_steps": 7, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1,
            "learning_rate": 1e-3, "save_steps": 3,
        },
        "evaluation": {"suite": "none"},
    }  # fmt: skip
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return str(file)


def called(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model" / "model.safetensors")


KILLED = """
import sys
from expunge import recipe, runs
def on_step(entry, total):
    print("STEP", entry["step"], flush=True)
    if entry["step"] == 5:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
runs.unlearn(recipe.load(sys.argv[1]), on_step=on_step)
"""


@pytest.mark.parametrize("method", [{"preset": "tokenunlearn-hard"}, REFRESHED], ids=["preset", "refreshed"])
def test_a_killed_run_goes_on_to_the_same_weights(material: Path, tmp_path: Path, method: dict[str, Any]) -> None:
    """Killed after step 5, resumed from the checkpoint at 3; refreshed scores are of step 2 there, and then of 4."""
    called("run", written(material, tmp_path / "straight", method))
    file = written(material, tmp_path / "killed", method)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, file], capture_output=True, text=True, env=os.environ
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (tmp_path / "killed" / "model").exists()
    kept = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "killed" / "scores").iterdir()}
    called("run", file)
    straight, resumed = weights(tmp_path / "straight"), weights(tmp_path / "killed")
    assert all(torch.equal(resumed[name], value) for name, value in straight.items())
    assert {f.name: f.stat().st_mtime_ns for f in (tmp_path / "killed" / "scores").iterdir()} == kept, "not made again"
    assert runfolder.verify(tmp_path / "killed") == []
    assert any(name.startswith("scores/") for name in runfolder.open(tmp_path / "killed").manifest["files"])
    before = load_file(material / "model" / "model.safetensors")
    assert any(not torch.equal(straight[name], value) for name, value in before.items() if name in straight)


def test_refreshed_scores_are_not_those_of_the_start(material: Path, tmp_path: Path) -> None:
    """The break on purpose: a run whose refresh did nothing would end elsewhere."""
    once = json.loads(json.dumps(REFRESHED).replace(":refresh=2", ""))
    called("run", written(material, tmp_path / "refreshed", REFRESHED))
    called("run", written(material, tmp_path / "once", once))
    assert any(not torch.equal(a, weights(tmp_path / "once")[n]) for n, a in weights(tmp_path / "refreshed").items())
    tables = [runfolder.open(tmp_path / name).read_table("tokens.parquet") for name in ("refreshed", "once")]
    first, last = ({r["epoch"]: r["score"] for r in t.to_pylist() if r["id"] == "forget-0"} for t in tables)
    assert first[0.0] == last[0.0] == last[2.0] != first[2.0]


def test_the_share_of_tokens_is_the_presets(material: Path, tmp_path: Path) -> None:
    called("run", written(material, tmp_path / "run", {"preset": "tokenunlearn-hard:r=0.2"}))
    log = runfolder.open(tmp_path / "run").read_log()
    assert all(0.2 <= line["selected_share"] < 0.35 for line in log)
    assert sum(line["flat"] for line in log) == 0


def test_scores_are_shown_as_training_uses_them(material: Path, tmp_path: Path) -> None:
    file = written(material, tmp_path / "run", {"preset": "tokenunlearn-soft"})
    called("score", file, "--out", str(tmp_path / "scores.parquet"))
    made = recipe.load(file)
    run = runs.unlearn(made)
    shown = {row["id"]: row for row in run.read_table("tokens.parquet").to_pylist() if row["epoch"] == 0.0}
    rows = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    assert len(rows) == 6
    for row in rows:
        assert row["score"] == shown[row["id"]]["score"]
        assert sum(row["weight"]) == pytest.approx(len(row["weight"]), rel=1e-5)


def test_a_list_says_what_each_score_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    listed = {line.split()[0]: line for line in called("list", "scorer").splitlines() if line.strip()}
    assert "an annotation" in listed["given"]
    assert "gold spans" in listed["gold"]
    assert "before training: at most 2 scoring passes" in listed["masking"]
    assert "before training: at most 1 scoring pass, a second model" in listed["base-surprise"]
    assert "before training: the texts, no model" in listed["novel"]
    assert "before training: a corpus" in listed["frequency"]
