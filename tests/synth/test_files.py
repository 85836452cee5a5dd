"""A benchmark on disk reads back, in both layouts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from expunge.data.load import load
from expunge.errors import DataError
from expunge.evals.tofu import load_suite
from expunge.recipe import Source
from expunge.synth import Benchmark, make
from expunge.synth.files import MANIFEST, tofu_names, write


@pytest.fixture(scope="module")
def benchmark() -> Benchmark:
    return make(people=20, seed=4, general=20)


def test_our_layout_reads_back_to_equal_records(benchmark: Benchmark, tmp_path: Path) -> None:
    paths = write(benchmark, tmp_path)
    assert paths[-1].name == MANIFEST
    for split in ("forget", "retain", "holdout"):
        assert load(Source(path=str(tmp_path / f"{split}.jsonl")), split) == benchmark.records(split)
        text = load(Source(path=str(tmp_path / f"{split}_text.jsonl")), split)
        assert text == benchmark.records(split, ("spread", "biography"))
    entangled = load(Source(path=str(tmp_path / "entangled.jsonl")), "forget")
    assert entangled == benchmark.records("forget", ("entangled",))
    general = load(Source(path=str(tmp_path / "general.jsonl")), "general")
    assert general == benchmark.records("general", ("qa", "sentence"))


def test_the_manifest_counts_and_hashes_every_file(benchmark: Benchmark, tmp_path: Path) -> None:
    paths = write(benchmark, tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text(encoding="utf-8"))
    assert set(manifest["files"]) == {path.name for path in paths[:-1]}
    assert manifest["settings"]["people"] == 20
    for name, told in manifest["files"].items():
        data = (tmp_path / name).read_bytes()
        assert told == {"rows": data.count(b"\n"), "sha256": hashlib.sha256(data).hexdigest()}
    assert not list(tmp_path.glob("*.part"))


def test_multiple_choice_has_the_shape_of_mmlu(benchmark: Benchmark, tmp_path: Path) -> None:
    write(benchmark, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "choices.jsonl").read_text(encoding="utf-8").splitlines()]
    people = {row["id"]: row for row in map(json.loads, (tmp_path / "people.jsonl").read_text("utf-8").splitlines())}
    assert len(rows) == 20 * 16
    for row in rows:
        assert row["choices"][row["answer"]] == people[row["subject"]]["facts"][row["fact"]]
        assert "A." not in row["question"]


def test_tofus_layout_is_what_tofus_suite_reads(benchmark: Benchmark, tmp_path: Path) -> None:
    paths = {path.name for path in write(benchmark, tmp_path, "tofu")}
    assert tofu_names(benchmark) == ("forget10", "retain90", "holdout10")
    sets = load_suite(tmp_path, "forget10")
    assert {name: len(records) for name, records in sets.items()} == {
        "forget": 32, "retain": 256, "real_authors": 20, "world_facts": 20, "holdout": 32
    }  # fmt: skip
    assert sets["forget"] == benchmark.records("forget")
    row = json.loads((tmp_path / "forget10_perturbed.json").read_text(encoding="utf-8").splitlines()[0])
    assert {"question", "answer", "paraphrased_question", "paraphrased_answer", "perturbed_answer"} <= set(row)
    assert len(row["perturbed_answer"]) == 5
    assert not {"prompt", "paraphrase", "perturbed"} & set(row)
    full = (tmp_path / "full.json").read_text(encoding="utf-8").splitlines()
    assert len(full) == 32 + 256 + 40
    assert all("perturbed_answer" not in json.loads(line) for line in full)
    assert {"forget10.json", "retain90.json", "holdout10.json"} <= paths


def test_judged_retain_records_are_of_all_people_and_kinds(tmp_path: Path) -> None:
    made = make(people=100, seed=4)
    write(made, tmp_path, "tofu")
    rows = [json.loads(line) for line in (tmp_path / "retain_perturbed.json").read_text("utf-8").splitlines()]
    assert 200 < len(rows) <= 400
    assert len({row["fact"] for row in rows}) == 16
    assert len({row["subject"] for row in rows}) == 80


def test_files_in_the_way_are_kept_unless_asked(benchmark: Benchmark, tmp_path: Path) -> None:
    (tmp_path / "retain.jsonl").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"already holds retain\.jsonl"):
        write(benchmark, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["retain.jsonl"]
    write(benchmark, tmp_path, overwrite=True)
    assert (tmp_path / "retain.jsonl").read_text(encoding="utf-8") != "mine"


def test_an_unknown_layout_is_refused(benchmark: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unknown layout of a benchmark 'muse'"):
        write(benchmark, tmp_path, "muse")  # type: ignore[arg-type]
