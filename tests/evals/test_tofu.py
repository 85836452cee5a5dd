"""The suite: its files, tables made once, and a judgement that a second call does not compute again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from expunge import runfolder
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.errors import DataError
from expunge.evals import generation, scoring, tofu
from expunge.evals.numbers import Bootstrap
from expunge.evals.tofu import Settings, evaluate, load_suite, metrics_from_folder
from expunge.lm import LM
from expunge.runfolder import RunFolder
from tests.evals import tiny

SETTINGS = Settings(max_new_tokens=4, bootstrap=Bootstrap(resamples=50))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return runfolder.create(tmp_path / "run", "evaluate")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(tiny.small_lm().tokenizer)


def sets() -> dict[str, list[Record]]:
    return {name: tiny.records(4, name) for name in ("forget", "retain", "holdout")}


def forbid(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model was run again")

    monkeypatch.setattr(scoring, "score_items", refuse)
    monkeypatch.setattr(generation, "generate", refuse)


def files(run: RunFolder, label: str = "target") -> dict[str, int]:
    return {p.relative_to(run.path).as_posix(): p.stat().st_mtime_ns for p in run.file(f"eval/{label}").rglob("*.*")}


def test_tables_metrics_and_reasons_are_in_the_folder(run: RunFolder, encoder: Encoder) -> None:
    found = evaluate(tiny.small_lm(), encoder, sets(), run, "target", settings=SETTINGS)
    assert run.tables("target", "scores") == ["forget", "holdout", "retain"]
    assert run.tables("target", "generations") == ["forget", "retain"]
    written = run.read_json("eval/target/metrics.json")
    assert written.keys() == found.numbers.keys()
    assert "no oracle" in run.read_json("eval/target/absent.json")["privleak"]
    again = metrics_from_folder(run.file("eval/target"), resamples=50)
    assert runfolder.plain(again) == written
    items = run.read_table(f"eval/target/{runfolder.ITEMS_TABLE}").to_pylist()
    ratios = [row["value"] for row in items if row["metric"] == "forget_truth_ratio"]
    assert sum(ratios) / len(ratios) == pytest.approx(written["forget_truth_ratio"]["agg_value"])


def test_an_oracle_beside_it_gives_the_numbers_that_need_one(run: RunFolder, encoder: Encoder) -> None:
    evaluate(tiny.small_lm(1), encoder, sets(), run, "oracle", settings=SETTINGS)
    oracle = run.file("eval/oracle")
    found = evaluate(tiny.small_lm(), encoder, sets(), run, "target", reference=oracle, settings=SETTINGS)
    assert found.numbers["privleak"].reference == "oracle"
    assert {"forget_quality", "mia_reference"} <= found.numbers.keys()


def test_a_second_evaluation_runs_no_model(run: RunFolder, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate(tiny.small_lm(), encoder, sets(), run, "target", settings=SETTINGS)
    forbid(monkeypatch)
    second = evaluate(tiny.small_lm(), encoder, sets(), run, "target", settings=SETTINGS)
    assert first.entries() == second.entries()


def changed_record(s: dict[str, list[Record]]) -> dict[str, list[Record]]:
    return {**s, "forget": [dataclasses.replace(s["forget"][0], answer="Somewhere else."), *s["forget"][1:]]}


@pytest.mark.parametrize(
    ("model", "data", "settings", "stale"),
    [
        (lambda: tiny.small_lm(2), lambda s: s, SETTINGS, {"scores/forget", "scores/retain", "generations/forget"}),
        (tiny.small_lm, changed_record, SETTINGS, {"scores/forget", "generations/forget"}),
        (tiny.small_lm, lambda s: s, dataclasses.replace(SETTINGS, max_new_tokens=3), {"generations/forget"}),
        (tiny.small_lm, lambda s: s, dataclasses.replace(SETTINGS, token_budget=100), set()),
    ],
)
def test_whatever_changes_a_table_makes_it_again(
    run: RunFolder,
    encoder: Encoder,
    model: Callable[[], LM],
    data: Callable[[dict[str, list[Record]]], dict[str, list[Record]]],
    settings: Settings,
    stale: set[str],
) -> None:
    evaluate(tiny.small_lm(), encoder, sets(), run, "target", settings=SETTINGS)
    before = files(run)
    evaluate(model(), encoder, data(sets()), run, "target", settings=settings)
    after = files(run)
    tables = [name for name in before if "/scores/" in name or "/generations/" in name]
    remade = {name for name in tables if before[name] != after[name]}
    for name in stale:
        assert f"eval/target/{name}.parquet" in remade
    if not stale:
        assert not remade


def test_an_interrupted_evaluation_goes_on_with_the_set_it_had_not_finished(run: RunFolder, encoder: Encoder) -> None:
    def stop(what: str, done: int, of: int) -> None:
        if what == "retain: scoring":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny.small_lm(), encoder, sets(), run, "target", settings=SETTINGS, progress=stop)
    before = files(run)
    assert set(before) == {"eval/target/scores/forget.parquet", "eval/target/generations/forget.parquet"}
    seen: list[str] = []
    evaluate(
        tiny.small_lm(), encoder, sets(), run, "target", settings=SETTINGS, progress=lambda what, *_: seen.append(what)
    )
    assert {name: files(run)[name] for name in before} == before
    assert not any(what.startswith("forget") for what in seen)
    assert {"retain: scoring", "retain: generating", "holdout: scoring"} == set(seen)


def test_a_damaged_table_is_made_again(run: RunFolder, encoder: Encoder) -> None:
    first = evaluate(tiny.small_lm(), encoder, sets(), run, "target", settings=SETTINGS)
    path = run.file("eval/target/scores/forget.parquet")
    path.write_bytes(path.read_bytes()[:100])
    second = evaluate(tiny.small_lm(), encoder, sets(), run, "target", settings=SETTINGS)
    assert first.entries() == second.entries()


def test_tables_of_sets_no_longer_asked_for_do_not_linger(run: RunFolder, encoder: Encoder) -> None:
    evaluate(tiny.small_lm(), encoder, sets(), run, "target", settings=SETTINGS)
    fewer = {name: sets()[name] for name in ("forget", "retain")}
    quiet = dataclasses.replace(SETTINGS, generate=False)
    found = evaluate(tiny.small_lm(), encoder, fewer, run, "target", settings=quiet)
    assert run.tables("target", "scores") == ["forget", "retain"]
    assert run.tables("target", "generations") == []
    assert "mia_loss" in found.absent
    assert "forget_Q_A_ROUGE" not in found.numbers


def test_an_evaluation_needs_a_forget_set(run: RunFolder, encoder: Encoder) -> None:
    with pytest.raises(DataError, match="needs a forget set; it was given retain"):
        evaluate(tiny.small_lm(), encoder, {"retain": tiny.records(2)}, run, "target")


def write_files(folder: Path) -> Path:
    """A folder with TOFU's file names and columns."""
    folder.mkdir()
    rows = [
        {
            "question": f"Who is number {i}?",
            "answer": f"Number {i} is a writer.",
            "paraphrased_answer": f"A writer, number {i}.",
            "perturbed_answer": ["A painter.", "A cook."],
            "paraphrased_question": f"What about number {i}?",
        }
        for i in range(40)
    ]
    short = [{key: row[key] for key in ("question", "answer", "perturbed_answer")} for row in rows]
    plain = [{key: f"{row[key]} holdout" for key in ("question", "answer")} for row in rows]
    named = {
        "forget01_perturbed": rows,
        "retain_perturbed": rows,
        "real_authors_perturbed": short,
        "world_facts_perturbed": short,
        "holdout01": plain,
    }
    for name, lines in named.items():
        (folder / f"{name}.json").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


def test_the_suite_is_read_from_files_with_tofu_s_names(tmp_path: Path) -> None:
    found = load_suite(write_files(tmp_path / "data"), limit=25)
    assert list(found) == ["forget", "retain", "real_authors", "world_facts", "holdout"]
    assert {name: len(records) for name, records in found.items()} == dict.fromkeys(found, 25)
    first = found["forget"][0]
    assert (first.id, first.paraphrase, first.perturbed) == (
        "forget-00000", "A writer, number 0.", ("A painter.", "A cook."),
    )  # fmt: skip
    assert len({record.subject for record in found["forget"]}) == 2
    assert {record.subject for record in found["real_authors"]} == {""}
    assert len({record.id for records in found.values() for record in records}) == 125


def test_a_holdout_set_of_one_s_own_goes_before_the_file(tmp_path: Path) -> None:
    own = tiny.records(3, "holdout")
    folder = write_files(tmp_path / "data")
    assert load_suite(folder, holdout=own)["holdout"] == own
    (folder / "holdout01.json").unlink()
    assert "holdout" not in load_suite(folder)


def test_a_missing_file_is_named_with_what_there_is(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "data")
    (folder / "world_facts_perturbed.json").unlink()
    with pytest.raises(
        DataError, match=r"needs world_facts_perturbed\.json in .*; the folder holds forget01_perturbed"
    ):
        load_suite(folder)


def test_the_real_files(shared: Path) -> None:
    found = load_suite(shared / "data" / "tofu", "forget05")
    sizes = {name: len(records) for name, records in found.items()}
    assert sizes == {"forget": 200, "retain": 400, "real_authors": 100, "world_facts": 117}
    assert len({record.subject for record in found["retain"]}) == 20
    assert all(len(record.perturbed) == 3 for record in found["world_facts"])


def test_the_log_in_openunlearning_s_form(run: RunFolder, encoder: Encoder) -> None:
    evaluate(tiny.small_lm(), encoder, sets(), run, "oracle", settings=SETTINGS)
    path = tofu.write_log(run, "oracle")
    assert path == run.file("eval/oracle/TOFU_EVAL.json")
    evaluate(tiny.small_lm(), encoder, sets(), run, "target", reference=path, settings=SETTINGS)
    entry = run.read_json("eval/target/metrics.json")["forget_quality"]
    assert entry["agg_value"] == pytest.approx(1.0)
