"""What would be shipped: an adapter merged, weights rounded, a server; each beside the weights that were judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from expunge import adapters, pipeline, runfolder
from expunge import recipe as recipes
from expunge.artefacts import sheet
from expunge.cli import app
from expunge.evals.paired import compare
from expunge.runfolder import RunFolder
from tests.identifiers.chatserver import serving
from tests.test_audit_hosted import LIMIT, TinyServer, root
from tests.test_runs import made, material

__all__ = ["material", "root"]  # fixtures


def ship(run: Path, names: str, *more: str) -> Any:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["attack", str(run), "--artefacts", names, *more])


def differences(run: RunFolder) -> dict[str, dict[str, dict[str, Any]]]:
    found = run.read_json("artefacts/differences.json")
    return {name: {one["name"]: one for one in own} for name, own in found.items()}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_an_adapter_is_judged_merged_and_rounded(material: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    asked = made(
        material, tmp_path / "run", "npo",
        train={"adapter": {"r": 2, "save": "adapter"}, "trace": False},
        evaluation={"generate": False, "resamples": 20},
    )  # fmt: skip
    run = pipeline.run(asked)
    done = ship(run.path, "merged,int8")
    assert done.exit_code == 0, done.output
    found = differences(run)
    assert set(found) == {"merged", "int8"}
    merged, rounded = (found[name]["forget_Q_A_Prob"]["difference"]["value"] for name in ("merged", "int8"))
    assert abs(merged) < 1e-6 < abs(rounded)
    inner = runfolder.open(run.file("artefacts/merged"))
    assert inner.manifest["status"] == "finished"
    assert "As shipped" in run.file("report.html").read_text(encoding="utf-8")
    assert "By what is shipped" in done.output
    assert runfolder.verify(run.path) == []
    assert adapters.CONFIG in {file.name for file in run.file("model").iterdir()}


def test_a_server_is_judged_beside_the_weights(root: Path, tmp_path: Path) -> None:
    """It serves the same model, so nothing differs; what it does not tell is not there."""
    asked = recipes.load(
        {
            "output_dir": str(tmp_path / "run"), "device": "cpu",
            "model": {"model_name_or_path": str(root / "base")},
            "data": {side: {"path": str(root / f"{side}.jsonl")} for side in ("forget", "retain")}
            | {"max_length": 128},
            "evaluation": {"max_new_tokens": LIMIT, "resamples": 20},
            "method": {"preset": "graddiff"},
            "train": {"max_steps": 1, "learning_rate": 1e-12, "trace": False},
        }
    )  # fmt: skip
    run = pipeline.run(asked)
    refused = ship(run.path, "endpoint")
    assert refused.exit_code == 2
    assert "needs an address" in refused.output
    with serving(TinyServer()) as server:
        done = ship(run.path, "endpoint", "--address", server.url, "--served", "m")
        assert done.exit_code == 0, done.output
        assert server.requests
    found = differences(run)["endpoint"]
    assert {"forget_Q_A_Prob", "forget_Q_A_ROUGE", "retain_Q_A_Prob", "extraction_strength"} <= set(found)
    for name, one in found.items():
        assert one["difference"]["value"] == pytest.approx(0, abs=1e-5), name


def test_what_cannot_be_judged_is_refused(material: Path, tmp_path: Path) -> None:
    run = runfolder.create(tmp_path / "run", "unlearn", made(material, tmp_path / "run"))
    assert "Did you mean" in ship(run.path, "mergd").output
    assert "was not judged" in ship(run.path, "merged").output


def test_the_sheet_says_how_far_each_is_from_what_was_judged() -> None:
    one = compare("forget_Q_A_Prob", [0.5, 0.7], [0.25, 0.25], ["a", "b"], resamples=50)
    rows = sheet({"int8": [one], "nf4": []}).tables[0].rows
    assert rows[0][1].startswith("0.250")
    assert rows[0][2].startswith("0.600 (+0.350 [")
    assert rows[0][3] == "n/a"
