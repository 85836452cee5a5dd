"""An audit of tiny models from files alone: probes, tables, gate and verdict in one folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from expunge import lm as lms
from expunge import pipeline, runfolder
from expunge.cli import app
from expunge.data.load import save
from expunge.data.probes import FRAMES, reworded
from expunge.errors import DataError
from tests.evals import tiny


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and records to forget and to keep."""
    folder = tmp_path_factory.mktemp("audit")
    lms.save(tiny.small_lm(), folder / "base")
    for split in ("forget", "retain", "holdout"):
        rows = [replace(r, subject="", perturbed=(), paraphrase="") for r in tiny.records(24, split)]
        save(folder / f"{split}.jsonl", rows)
    return folder


def test_probes_follow_from_the_salt_alone() -> None:
    records = tiny.records(12)
    assert reworded(records, "a") == reworded(records, "a")
    assert [p.prompt for p in reworded(records, "a")] != [p.prompt for p in reworded(records, "b")]
    assert len({p.id for p in reworded(records, "a")} | {r.id for r in records}) == 24
    assert all(frame.count("{}") == 1 for frame in FRAMES)


def test_a_model_that_forgot_nothing_fails_its_audit(root: Path, tmp_path: Path) -> None:
    base = str(root / "base")
    result = CliRunner().invoke(
        app,
        ["audit", "--candidate", base, "--base", base, "--data", str(root / "forget.jsonl"),
         "--retain", str(root / "retain.jsonl"), "--out", str(tmp_path / "audit"), "evaluation.max_new_tokens=2",
         "evaluation.resamples=50", "data.max_length=128"],
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "FAIL" in result.output
    run = runfolder.open(tmp_path / "audit")
    assert run.labels == ["model", "target"]
    assert run.tables("model", "scores") == ["forget", "forget_reworded", "retain"]
    assert run.manifest["audit"]["salt"]
    assert run.read_json(runfolder.VERDICT)["registered"] is True
    entries = run.read_json("eval/model/metrics.json")
    assert entries["forget_reworded_Q_A_Prob"]["higher"] == "worse"
    assert runfolder.verify(run.path) == []


def test_without_records_to_keep_there_is_no_gate() -> None:
    with pytest.raises(DataError, match="a broken one would pass"):
        pipeline.audit_gate({"forget": tiny.records(2)})
    text = pipeline.audit_gate({name: tiny.records(2) for name in ("forget", "retain", "holdout", "forget_reworded")})
    assert "forget_excess_Prob" in text
    assert "mia_loss" in text
