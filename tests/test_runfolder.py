from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from expunge import recipe as recipes
from expunge import runfolder
from expunge.errors import Interrupted, RunFolderError

SCORES = pa.table({"id": ["a", "b"], "logp": pa.array([[-1.0, -2.0], [-0.5]], pa.list_(pa.float32()))})


def make(path: Path, **settings: object) -> runfolder.RunFolder:
    run = runfolder.create(path, "unlearn", recipes.load({"name": "first", **settings}))
    run.append_log({"step": 1, "loss": 0.5})
    run.write_table("eval/unlearned/scores/forget.parquet", SCORES)
    run.write_json("eval/unlearned/metrics.json", {"model_utility": {"agg_value": 0.6}})
    return run


def test_a_run_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    make(tmp_path / "run").finish()
    run = runfolder.open(tmp_path / "run")
    assert run.manifest["status"] == "finished"
    assert run.manifest["kind"] == "unlearn"
    assert run.recipe == recipes.load({"name": "first"})
    assert run.read_log() == [{"step": 1, "loss": 0.5}]
    assert run.labels == ["unlearned"]
    assert run.tables("unlearned", "scores") == ["forget"]
    assert run.tables("unlearned", "generations") == []
    assert run.read_table("eval/unlearned/scores/forget.parquet").equals(SCORES)
    assert run.read_table("eval/unlearned/scores/forget.parquet", columns=["id"]).column_names == ["id"]
    assert not list(run.path.rglob("*.tmp"))


def test_another_run_is_refused_and_named_unless_overwrite(tmp_path: Path) -> None:
    old = make(tmp_path / "run")
    (old.path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"holds another run: 'first' \(unlearn, running.*overwrite=true"):
        runfolder.create(tmp_path / "run", "unlearn", recipes.load())
    assert old.read_log()
    new = runfolder.create(tmp_path / "run", "finetune", recipes.load({"name": "second"}), overwrite=True)
    assert new.manifest["name"] == "second"
    assert new.read_log() == []
    assert new.labels == []
    assert (new.path / "notes.txt").read_text() == "mine", "what expunge did not write stays"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("manifest", [None, "{}", "not json", '{"format": "web app"}'])
def test_a_folder_that_is_no_run_is_never_touched(tmp_path: Path, overwrite: bool, manifest: str | None) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    before = {file.name: file.read_text() for file in tmp_path.iterdir()}
    with pytest.raises(RunFolderError, match=r"not empty and holds no run \(found: .*thesis.tex"):
        runfolder.create(tmp_path, "unlearn", recipes.load(), overwrite=overwrite)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == before


def test_an_empty_folder_is_taken_and_a_file_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert runfolder.create(tmp_path / "empty", "study").manifest["name"] == "study"
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="is a file"):
        runfolder.create(tmp_path / "file", "study")


def test_overwriting_a_demo_removes_the_runs_inside_and_nothing_else(tmp_path: Path) -> None:
    root = runfolder.create(tmp_path / "demo", "study").path
    make(root / "etw")
    make(root / "wga")
    (root / "wga" / "figure.png").write_bytes(b"x")
    runfolder.create(root, "study", overwrite=True)
    assert not (root / "etw").exists()
    assert [f.name for f in (root / "wga").iterdir()] == ["figure.png"]


def test_overwriting_does_not_follow_a_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "weights").write_text("precious")
    run = make(tmp_path / "run")
    (run.path / "model").symlink_to(tmp_path / "elsewhere")
    runfolder.create(run.path, "unlearn", recipes.load(), overwrite=True)
    assert (tmp_path / "elsewhere" / "weights").read_text() == "precious"
    assert not (run.path / "model").exists()


@pytest.mark.parametrize("path", ["../other.json", "/etc/passwd", "eval/../../x", "model/../.."])
def test_paths_outside_the_folder_are_refused(tmp_path: Path, path: str) -> None:
    run = make(tmp_path / "run")
    with pytest.raises(RunFolderError, match="outside the run folder"):
        run.write_json(path, {})
    with pytest.raises(RunFolderError, match="outside the run folder"):
        run.read_json(path)


def test_a_link_that_leads_outside_is_refused(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    (run.path / "eval" / "target").symlink_to(tmp_path)
    with pytest.raises(RunFolderError, match="outside"):
        run.write_json("eval/target/metrics.json", {})


def test_verify_finds_every_change(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    assert runfolder.verify(run.path) == ["no hashes: the run has not finished"]
    run.finish()
    assert runfolder.verify(run.path) == []
    table = run.path / "eval/unlearned/scores/forget.parquet"
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    (run.path / "log.jsonl").unlink()
    run.write_json("eval/oracle/metrics.json", {})
    assert runfolder.verify(run.path) == [
        "added: eval/oracle/metrics.json",
        "changed: eval/unlearned/scores/forget.parquet",
        "missing: log.jsonl",
    ]
    run.seal()
    assert runfolder.verify(run.path) == []


def test_verify_looks_into_the_runs_of_a_demo(tmp_path: Path) -> None:
    demo = runfolder.create(tmp_path / "demo", "study", recipes.load())
    inner = make(demo.path / "etw")
    inner.finish()
    demo.finish()
    inner.append_log({"step": 2})
    assert runfolder.verify(demo.path) == ["etw: changed: log.jsonl"]


def test_models_one_level_deeper_belong_to_the_demo_too(tmp_path: Path) -> None:
    demo = runfolder.create(tmp_path / "demo", "study", recipes.load())
    target = make(demo.path / "models" / "target")
    target.finish()
    demo.finish()
    assert runfolder.verify(demo.path) == []
    target.append_log({"step": 2})
    assert runfolder.verify(demo.path) == ["models/target: changed: log.jsonl"]
    runfolder.create(demo.path, "study", overwrite=True)
    assert not target.path.exists()


def test_a_table_that_fails_halfway_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path / "run")

    def torn(table: pa.Table, stream: object, **_: object) -> None:
        stream.write(b"PAR1 half of a table")  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runfolder.pq, "write_table", torn)
    with pytest.raises(OSError, match="No space left"):
        run.write_table("eval/unlearned/scores/forget.parquet", SCORES)
    assert run.read_table("eval/unlearned/scores/forget.parquet").equals(SCORES)
    assert not list(run.path.rglob("*.tmp"))


def test_the_log_survives_a_torn_line(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    with (run.path / "log.jsonl").open("a") as stream:
        stream.write('{"step": 2, "lo')
    assert [line["step"] for line in run.read_log()] == [1]
    run.append_log({"step": 3})
    assert [line["step"] for line in run.read_log()] == [1, 3], "the torn line does not swallow the next one"
    run.trim_log(1)
    assert [line["step"] for line in run.read_log()] == [1]


def test_numbers_become_json_that_any_reader_takes(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run.append_log({"step": np.int64(7), "loss": float("nan"), "terms": {"ga": np.float32(0.5)}, "drift": np.ones(2)})
    last = json.loads((run.path / "log.jsonl").read_text().splitlines()[-1], parse_constant=pytest.fail)
    assert last == {"step": 7, "loss": None, "terms": {"ga": 0.5}, "drift": [1.0, 1.0]}


def test_text_of_any_kind_survives(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    text = "Ω\u2028 \u202e gnp.exe \x00 \ud800"
    run.write_lines("spans.jsonl", [{"text": text}])
    assert run.read_lines("spans.jsonl") == [{"text": text.replace("\ud800", "?")}]
    run.append_log({"error": text})
    assert run.read_log()[-1]["error"].endswith("?")


def test_update_merges_one_level(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    run.update(data={"forget": {"count": 40}})
    run.update(data={"retain": {"count": 160}}, model={"name": "tiny"})
    assert run.manifest["data"] == {"forget": {"count": 40}, "retain": {"count": 160}}
    assert run.manifest["model"] == {"name": "tiny"}


def test_recording_says_how_the_run_ended(tmp_path: Path) -> None:
    with runfolder.recording(make(tmp_path / "good")):
        pass
    with pytest.raises(ValueError, match="NaN"), runfolder.recording(make(tmp_path / "bad")):
        raise ValueError("loss is\nNaN")
    with pytest.raises(Interrupted), runfolder.recording(make(tmp_path / "cut")):
        raise Interrupted("asked to stop")
    assert runfolder.open(tmp_path / "good").manifest["status"] == "finished"
    assert runfolder.open(tmp_path / "bad").manifest["error"] == "ValueError: loss is NaN"
    assert runfolder.open(tmp_path / "bad").manifest["status"] == "failed"
    assert runfolder.open(tmp_path / "cut").manifest["status"] == "interrupted"
    assert runfolder.verify(tmp_path / "cut") == [], "an interrupted run is whole too"


def test_missing_and_damaged_files_say_what_there_is(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"has no 'eval/unlearned/scores/retain.parquet'. Found beside it: forget"):
        run.read_table("eval/unlearned/scores/retain.parquet")
    (run.path / "eval/unlearned/scores/forget.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunFolderError, match="cannot be read"):
        run.read_table("eval/unlearned/scores/forget.parquet")
    (run.path / "eval/unlearned/metrics.json").write_text("{")
    with pytest.raises(RunFolderError, match="is not JSON"):
        run.read_json("eval/unlearned/metrics.json")
    with pytest.raises(RunFolderError, match="does not exist"):
        runfolder.open(tmp_path / "nowhere")
    with pytest.raises(RunFolderError, match=r"has no recipe\.yaml"):
        _ = runfolder.create(tmp_path / "bare", "evaluate").recipe
    (run.path / "manifest.json").write_text('{"format": "expunge-run/9"}')
    with pytest.raises(RunFolderError, match=r"expunge-run/9'; this expunge reads 'expunge-run/1"):
        runfolder.open(run.path)


def test_the_recipe_hash_changes_with_the_numbers_only() -> None:
    base = runfolder.recipe_hash(recipes.load())
    assert base == runfolder.recipe_hash(recipes.load({"name": "x", "output_dir": "elsewhere", "overwrite": True}))
    assert base != runfolder.recipe_hash(recipes.load({"seed": 1}))
    assert base != runfolder.recipe_hash(recipes.load({"train": {"learning_rate": 2e-5}}))


def test_no_torch_is_loaded() -> None:
    code = "import sys, expunge.runfolder as r; r.environment(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_can_be_read_by_others(tmp_path: Path) -> None:
    """A temporary file made for one's own eyes would keep its mode after the rename."""
    run = make(tmp_path / "run")
    (tmp_path / "plain").write_text("")
    assert (run.path / "manifest.json").stat().st_mode == (tmp_path / "plain").stat().st_mode
