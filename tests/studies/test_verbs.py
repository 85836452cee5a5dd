"""The verbs that measure, from recipe to page, on tiny models; and again from the folder alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from expunge import runfolder
from expunge.cli import app
from expunge.evals.snr import MOMENTS
from expunge.registry import build
from expunge.runfolder import RunFolder
from expunge.studies import snr


def call(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def chosen(material: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished selectivity study: two scorers, gold as a third, two models."""
    out = tmp_path_factory.mktemp("selectivity") / "study"
    call(
        "selectivity", str(material / "recipe.yaml"), "--score", "gold", "--score", "entropy", "--model", "target",
        "--model", "retrained=oracle", "--baseline", "random", "--resamples", "40", "--out", str(out),
    )  # fmt: skip
    return runfolder.open(out)


def test_selectivity_tells_a_perfect_score_from_chance(chosen: RunFolder) -> None:
    found = chosen.read_json("measured/findings.json")
    by_place = {(f["model"], f["scorer"], f["level"]): f for f in found}
    assert set(by_place) == {
        (m, s, level)
        for m in ("target", "retrained")
        for s in ("gold", "entropy", "random")
        for level in ("token", "word")
    }
    gold, chance = by_place["target", "gold", "token"], by_place["target", "random", "token"]["auc"]
    assert gold["auc"]["value"] == gold["precision"]["value"] == 1.0
    assert gold["beyond"]["value"] == pytest.approx(1 - chance["value"])
    assert chance["low"] < 0.5 < chance["high"]
    assert gold["proxies"]["informative"][0]["value"] == pytest.approx(1.0)
    assert set(gold["proxies"]) == {"informative"}
    assert set(by_place["target", "gold", "word"]["proxies"]) == {"informative", "rarity"}
    assert gold["auc"]["clusters"] == 10
    assert chosen.manifest["status"] == "finished"
    assert not runfolder.verify(chosen.path)


def test_selectivity_is_judged_again_without_a_model(chosen: RunFolder, material: Path) -> None:
    before = chosen.read_json("measured/findings.json")
    shown = call("selectivity", str(chosen.path), "--baseline", "random", "--resamples", "40")
    assert chosen.read_json("measured/findings.json") == before
    assert "retrained" in shown
    assert "less" in shown
    assert not runfolder.verify(chosen.path)


def test_the_page_has_curves_and_histograms_and_no_text_of_records(chosen: RunFolder, material: Path) -> None:
    page = chosen.file("report.html").read_text(encoding="utf-8")
    for title in ("ROC, gold, under target", "Reliability, gold, under retrained", "Scores of entropy", "Weights of"):
        assert title in page
    answers = [json.loads(line)["answer"] for line in (material / "forget.jsonl").read_text("utf-8").splitlines()]
    assert not [answer for answer in answers if answer in page]


def test_the_page_is_drawn_again_by_report(chosen: RunFolder, tmp_path: Path) -> None:
    call("report", str(chosen.path), "--out", str(tmp_path / "page.html"))
    assert (tmp_path / "page.html").read_bytes() == chosen.file("report.html").read_bytes()


def test_labels_that_are_not_there(material: Path, tmp_path: Path) -> None:
    recipe = str(material / "recipe.yaml")
    said = call("selectivity", recipe, "--score", "entropy", "--label", "given", "--out", str(tmp_path / "a"), code=2)
    assert "label 'given': the forget records have no such spans" in said
    said = call("selectivity", recipe, "--score", "entropi", "--out", str(tmp_path / "b"), code=2)
    assert "Did you mean: entropy" in said
    said = call("selectivity", recipe, "--model", "nowhere/at/all", "--out", str(tmp_path / "c"), code=2)
    assert "is not a folder with a model" in said


@pytest.fixture(scope="module")
def ratios(material: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("snr") / "study"
    call(
        "snr", str(material / "recipe.yaml"), "--score", "entropy", "--score", "gold", "--r", "0.2", "--r", "1.0",
        "--params", "layers.1.mlp", "--resamples", "40", "--out", str(out),
    )  # fmt: skip
    return runfolder.open(out)


def test_snr_has_every_weighting_of_every_record(ratios: RunFolder) -> None:
    rows = ratios.read_table("measured/moments.parquet").cast(MOMENTS).to_pylist()
    assert len({row["id"] for row in rows}) == 20
    kinds = {(row["scorer"], row["weights"], row["share"]) for row in rows if not math.isnan(row["share"])}
    assert kinds == {("", "random", r) for r in (0.2, 1.0)} | {
        (s, "hard", r) for s in ("entropy", "gold") for r in (0.2, 1.0)
    }
    found = {(f["scorer"], f["weights"], f["share"]): f for f in ratios.read_json("measured/signals.json")}
    assert len(found) == 1 + 2 + 2 * 4
    uniform = found["", "uniform", None]
    assert found["entropy", "hard", 1.0]["snr"]["value"] == uniform["snr"]["value"], "all tokens kept is no selection"
    mine = [row for row in rows if row["weights"] == "uniform"]
    m, s = np.mean([row["projection"] for row in mine]), np.mean([row["square"] for row in mine])
    assert uniform["snr"]["value"] == pytest.approx(m**2 / (s - m**2))


def test_snr_is_judged_again_without_a_model(ratios: RunFolder) -> None:
    before = ratios.read_json("measured/signals.json")
    assert "uniform" in call("snr", str(ratios.path), "--resamples", "40")
    assert ratios.read_json("measured/signals.json") == before
    assert "SNR against the share kept" in ratios.file("report.html").read_text(encoding="utf-8")


def test_a_direction_from_gold_spans_measures_other_people(material: Path, tmp_path: Path) -> None:
    call(
        "snr", str(material / "recipe.yaml"), "--score", "gold", "--direction", "gold", "--r", "0.3",
        "--params", "lm_head", "--resamples", "20", "--out", str(tmp_path / "gold"),
    )  # fmt: skip
    rows = runfolder.open(tmp_path / "gold").read_table("measured/moments.parquet").to_pylist()
    assert len({row["subject"] for row in rows}) == 5, "half of ten people give the direction"
    assert np.mean([row["projection"] for row in rows if row["weights"] == "hard"]) > 0


def test_snr_of_a_method_without_a_score_asks_for_one(material: Path, tmp_path: Path) -> None:
    said = call("snr", str(material / "recipe.yaml"), "method.preset=graddiff", "--out", str(tmp_path / "x"), code=2)
    assert "Name one, such as --score entropy" in said


def test_weightings_by_hand() -> None:
    made = snr.weightings({"s": torch.tensor([0.0, 3.0, 1.0, 0.0])}, build("selector", "normalised"), (0.25, 0.5), 7)
    assert made["s", "hard", 0.5].tolist() == [0, 1, 1, 0]
    soft = next(value for (scorer, kind, _), value in made.items() if (scorer, kind) == ("s", "soft"))
    shuffled = next(value for (scorer, kind, _), value in made.items() if (scorer, kind) == ("s", "shuffled"))
    assert soft.tolist() == [0, 3, 1, 0]
    assert sorted(shuffled.tolist()) == [0, 0, 1, 3]
    assert [float(made["", "random", r].sum()) for r in (0.25, 0.5)] == [1, 2]
