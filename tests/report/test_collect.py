from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from expunge import recipe as recipes
from expunge import runfolder
from expunge.errors import RunFolderError
from expunge.report import collect


def test_a_demo_stands_for_its_unlearning_runs_in_the_order_it_names(demo: Path) -> None:
    seen = collect.views([demo])
    assert [view.name for view in seen] == ["graddiff", "wga", "etw"]
    assert [view.method for view in seen] == ["graddiff", "wga", "etw"]
    assert all(view.absent == () for view in seen)


def test_target_and_oracle_come_from_the_neighbours_and_stand_once(demo: Path) -> None:
    models = collect.columns(collect.views([demo]))
    assert [(model.name, model.role) for model in models] == [
        ("target", "target"),
        ("oracle", "oracle"),
        ("graddiff", "run"),
        ("wga", "run"),
        ("etw", "run"),
    ]
    assert models[0].cells["forget_Q_A_Prob"].value > 0.9
    assert models[1].subjects["forget-00000"] == "Ilse Varnholt"


def test_the_runs_own_target_goes_before_the_neighbour(demo: Path, tmp_path: Path) -> None:
    shutil.copytree(demo / "etw", tmp_path / "etw")
    runfolder.open(tmp_path / "etw").write_json("eval/target/metrics.json", {"model_utility": {"agg_value": 0.25}})
    [view] = collect.views([tmp_path / "etw"])
    assert view.target is not None
    assert view.target.cells["model_utility"].value == 0.25
    assert view.oracle is None
    assert "the oracle that the manifest names" in view.absent[0]


def test_different_targets_are_kept_apart(demo: Path, tmp_path: Path) -> None:
    for name, value in (("etw", 0.5), ("wga", 0.6)):
        shutil.copytree(demo / name, tmp_path / name)
        runfolder.open(tmp_path / name).write_json("eval/target/metrics.json", {"model_utility": {"agg_value": value}})
    models = collect.columns(collect.views([tmp_path / "etw", tmp_path / "wga"]))
    assert [model.name for model in models] == ["target of etw", "target of wga", "etw", "wga"]


def test_runs_of_one_name_are_told_apart(demo: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        shutil.copytree(demo / "etw", tmp_path / folder)
    assert [view.name for view in collect.views([tmp_path / "one", tmp_path / "two"])] == ["one", "two"]
    (tmp_path / "sub").mkdir()
    shutil.copytree(demo / "etw", tmp_path / "sub" / "one")
    names = [view.name for view in collect.views([tmp_path / "one", tmp_path / "sub" / "one"])]
    assert names == ["one (1)", "one (2)"]
    assert len(collect.views([tmp_path / "one", tmp_path / "one"])) == 1, "the same folder twice is one run"


def test_a_bare_run_lists_what_it_lacks(tmp_path: Path) -> None:
    runfolder.create(tmp_path / "bare", "unlearn")
    [view] = collect.views([tmp_path / "bare"])
    assert view.absent == (
        "settings (recipe.yaml)",
        "training log (log.jsonl)",
        "token weights over the epochs (tokens.parquet)",
        "its metrics (eval/unlearned/metrics.json)",
        "the target's metrics (eval/target/metrics.json)",
        "the oracle's metrics (eval/oracle/metrics.json)",
    )
    assert collect.columns([view])[0].cells == {}


def test_damaged_parts_are_absent_and_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    run = runfolder.create(tmp_path / "run", "unlearn", recipes.load({"name": "run"}))
    run.write_text("eval/unlearned/metrics.json", "{")
    run.write_text("recipe.yaml", "nonsense: {")
    [view] = collect.views([run.path])
    assert any("readable metrics" in text for text in view.absent)
    assert any("settings that this version" in text for text in view.absent)
    assert view.recipe_text == "nonsense: {"
    with pytest.raises(RunFolderError, match="not a run folder"):
        collect.views([tmp_path])
    with pytest.raises(RunFolderError, match="no run folder was given"):
        collect.views([])


def test_cells_take_what_is_a_number_and_leave_the_rest() -> None:
    found = collect.cells(
        {
            "good": {"agg_value": 0.5, "n": 4, "ci_low": 0.4, "ci_high": 0.6, "higher": "better"},
            "bare": 3,
            "nan": {"agg_value": float("nan")},
            "null": {"agg_value": None},
            "text": {"agg_value": "high"},
            "flag": {"agg_value": True},
        }
    )
    assert sorted(found) == ["bare", "good"]
    assert found["good"] == collect.Cell(0.5, 0.4, 0.6, 4, "better")
    assert collect.cells(["not", "a", "mapping"]) == {}


def test_items_are_the_values_whose_mean_is_the_aggregate() -> None:
    rows = {
        "a": {"avg_loss": 2.0, "prob": 0.2},
        "b": {"avg_loss": 1.0, "prob": 0.4},
        "c": {"avg_loss": 9.0, "prob": None},
    }
    assert collect.cells({"m": {"agg_value": 0.3, "value_by_index": rows}})["m"].items == {"a": 0.2, "b": 0.4}
    assert collect.cells({"auc": {"agg_value": 0.7, "value_by_index": rows}})["auc"].items == {}


def test_a_method_written_as_terms_is_named_by_its_objectives(tmp_path: Path) -> None:
    terms = [{"objective": {"name": "npo", "beta": 0.1}}, {"objective": "nll", "on": "retain"}]
    recipe = recipes.load({"method": {"terms": terms, "control": "shuffle"}})
    runfolder.create(tmp_path / "run", "unlearn", recipe)
    [view] = collect.views([tmp_path / "run"])
    assert view.method == "npo:beta=0.1 on forget + nll on retain, weights shuffle"


def test_values_by_record_come_from_the_items_table(tmp_path: Path) -> None:
    run = runfolder.create(tmp_path / "run", "unlearn")
    rows = [{"metric": "m", "id": "a", "value": 0.2}, {"metric": "m", "id": "b", "value": 0.4}]
    run.write_json("eval/unlearned/metrics.json", {"m": {"agg_value": 0.3}, "other": {"agg_value": 0.3}})
    run.write_table("eval/unlearned/items.parquet", pa.Table.from_pylist(rows, schema=runfolder.ITEMS))
    [view] = collect.views([run.path])
    assert view.own.cells["m"].items == {"a": 0.2, "b": 0.4}
    assert view.own.cells["other"].items == {}


def test_a_model_that_was_only_evaluated_is_the_runs_own(tmp_path: Path) -> None:
    run = runfolder.create(tmp_path / "run", "evaluate", name="someone's")
    for label, value in (("oracle", 0.1), ("model", 0.2)):
        run.write_json(f"eval/{label}/metrics.json", {"m": {"agg_value": value, "optimistic": label == "model"}})
    run.write_json("eval/model/absent.json", {"privleak": "there is no holdout set"})
    [view] = collect.views([run.path])
    assert (view.own.label, view.own.cells["m"].value, view.own.cells["m"].optimistic) == ("model", 0.2, True)
    assert view.own.unmeasured == {"privleak": "there is no holdout set"}
    assert view.oracle is not None
    assert view.oracle.cells["m"].value == 0.1
