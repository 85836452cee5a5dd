"""Three requests in a row on a tiny model, through the command line: entered, tested again, proved, and told of."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from expunge import pipeline, recipe, runfolder, synth
from expunge.cli import app
from expunge.data.load import load, save
from expunge.data.records import Record
from expunge.ledger.chain import ENTRIES, Entry, Ledger
from expunge.progress import Silent
from expunge.recipe import Source
from tests.test_pipeline import settings

pytestmark = pytest.mark.slow
CASES = ("case-1", "case-2", "case-3")
GATE = """\
min_items: 4
few_subjects: true
confidence: 0.8
conditions:
  - {metric: forget_Q_A_Prob, at_most: 0.6, of: target}
  - {metric: retain_Q_A_Prob, at_least: 0.0}
"""
_WORD = re.compile(r"\w+")


def expunge(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def ledger(root: Path, verb: str, *arguments: object) -> Result:
    return expunge("ledger", verb, *arguments, "--ledger", root / "ledger")


def entries(root: Path) -> list[Entry]:
    return Ledger(root / "ledger").entries()


def removal(root: Path, case: str, start: Path | None) -> dict[str, Any]:
    """The recipe of a request, from the model that the request before it left."""
    made = settings(root, output_dir=str(root / case), method={"preset": "graddiff"})
    sides = {"forget": {"path": str(root / f"{case}.jsonl")}, "retain": {"path": str(root / f"keep-{case}.jsonl")}}
    made["data"] = {**sides, "max_length": 128}
    made["evaluation"] |= {"gate": str(root / "gate.yaml"), "limit": 12, "generate": False}
    made["train"] |= {"num_train_epochs": 6, "per_device_train_batch_size": 2}
    made["finetune"]["oracle"] = False
    if start is not None:
        del made["finetune"]
        made["model"] = {"model_name_or_path": str(start)}
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished runs, each from the model of the one before, and the ledger that they were entered into."""
    folder = tmp_path_factory.mktemp("requests")
    people = synth.make(people=20, seed=0, facts=4, shared=0, pairs=1, forget_share=0.2)
    bare = [replace(r, perturbed=(), paraphrase="") for r in people.records("forget")]
    kept = [replace(r, perturbed=(), paraphrase="") for r in people.records("retain")[:16]]
    subjects = sorted({record.subject for record in bare})[:3]
    (folder / "gate.yaml").write_text(GATE, encoding="utf-8")
    start = None
    for place, case in enumerate(CASES):
        save(folder / f"{case}.jsonl", [r for r in bare if r.subject == subjects[place]])
        save(folder / f"keep-{case}.jsonl", [*[r for r in bare if r.subject in subjects[place + 1 :]], *kept])
        pipeline.run(recipe.load(removal(folder, case, start)), Silent())
        added = ledger(folder, "add", folder / case, "--request", case)
        assert added.exit_code == 0, added.output
        start = folder / case / "model"
    return folder


def forget(root: Path, case: str) -> list[Record]:
    return load(Source(path=str(root / f"{case}.jsonl")), "forget")


def test_after_the_third_request_the_first_two_still_pass(root: Path) -> None:
    book = entries(root)
    assert [entry.kind for entry in book] == ["ledger", "request", "request", "request"]
    again = [[(one["request"], one["outcome"]) for one in entry.body["retests"]] for entry in book[1:]]
    assert again == [[], [("case-1", "PASS")], [("case-1", "PASS"), ("case-2", "PASS")]]
    for before, after in itertools.pairwise(book[1:]):
        assert after.body["before"]["weights"] == before.body["after"]["weights"]
    first = book[1].body
    assert [mark["spans"] for mark in first["records"]] == [len(record.spans) for record in forget(root, "case-1")]
    assert (first["verdict"]["outcome"], first["verdict"]["registered"]) == ("PASS", True)


def test_what_a_later_request_removed_is_not_asked_of_an_earlier_one(root: Path) -> None:
    asked = runfolder.open(root / "case-2/retests/0001").read_table("eval/model/scores/retain.parquet")
    held = runfolder.open(root / "case-2/retests/0001").read_table("eval/target/scores/retain.parquet")
    first = runfolder.open(root / "case-1").read_table("eval/unlearned/scores/retain.parquet")
    gone = {record.id for record in forget(root, "case-2")}
    assert gone <= set(first["id"].to_pylist())
    assert set(asked["id"].to_pylist()) == set(held["id"].to_pylist()) == set(first["id"].to_pylist()) - gone


def test_a_model_that_still_knows_fails_every_request(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    _copied(root, copy)
    tested = expunge("ledger", "retest", root / "models/target", "--ledger", copy, "--out", tmp_path / "tables")
    assert tested.exit_code == 1, tested.output
    last = Ledger(copy).entries()[-1]
    assert last.kind == "retest"
    assert last.body["retests"][0]["outcome"] == "FAIL"
    shown = expunge("ledger", "list", "--ledger", copy).output
    assert "case-1 FAIL" in shown
    assert "4 records" in shown


def test_the_ledger_is_proved_and_a_changed_weight_file_is_noticed(root: Path, tmp_path: Path) -> None:
    proved = ledger(root, "verify", "--head", entries(root)[1].hash)
    assert proved.exit_code == 0, proved.output
    assert entries(root)[-1].hash in proved.output
    assert ledger(root, "verify", "--head", "ab" * 32).exit_code == 1
    weights = root / "case-2/model/model.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        changed = ledger(root, "verify")
    finally:
        weights.write_bytes(whole)
    assert changed.exit_code == 1
    assert "case-2: changed: model/model.safetensors" in changed.output


def test_records_that_changed_since_are_noticed(root: Path) -> None:
    file = root / "case-3.jsonl"
    whole = file.read_text(encoding="utf-8")
    try:
        save(file, [replace(record, answer=record.answer + "!") for record in forget(root, "case-3")])
        assert (
            "case-3: the records that the recipe names are not those that were entered" in ledger(root, "verify").output
        )
    finally:
        file.write_text(whole, encoding="utf-8")


def test_the_receipt_holds_and_the_requester_s_key_finds_their_records_only(root: Path, tmp_path: Path) -> None:
    paper, key = tmp_path / "receipt.json", tmp_path / "key"
    made = ledger(root, "receipt", "case-2", "--out", paper, "--key", key)
    assert made.exit_code == 0, made.output
    assert key.stat().st_mode & 0o777 == 0o600
    told = json.loads(paper.read_text(encoding="utf-8"))
    assert [again["outcome"] for again in told["tested_again"]] == ["PASS"]
    assert ledger(root, "verify", "--receipt", paper).exit_code == 0
    named = expunge("ledger", "match", paper, "--key", key, "--data", root / "case-2.jsonl")
    assert (named.exit_code, named.output.split(".")[0]) == (0, "4 of 4 records are named in the receipt")
    assert expunge("ledger", "match", paper, "--key", key, "--data", root / "case-1.jsonl").exit_code == 1
    told["verdict"]["outcome"] = "FAIL"
    paper.write_text(json.dumps(told), encoding="utf-8")
    assert "the receipt's 'verdict' is not what was entered" in ledger(root, "verify", "--receipt", paper).output


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = _WORD.findall(text.casefold())
    return zip(*(words[place:] for place in range(5)), strict=False)


def test_no_five_words_of_the_forget_sets_stand_in_what_is_passed_on(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = {g for case in CASES for r in forget(root, case) for text in (r.prompt, r.body) for g in _grams(text)}
    assert len(secret) > 50
    redacted = expunge("report", root / "case-1", "--redact", "--out", tmp_path / "redacted.html")
    printed = [redacted.output, ledger(root, "list").output, ledger(root, "verify").output]
    for case in CASES:
        printed.append(ledger(root, "receipt", case, "--out", tmp_path / f"{case}.json").output)
    run = root / "case-1"
    files = [*tmp_path.iterdir(), *(root / "ledger").iterdir(), run / "log.jsonl", run / "diagnostics.jsonl",
             run / "model/README.md", run / "manifest.json", run / "verdict.json"]  # fmt: skip
    texts = {str(file): file.read_text(encoding="utf-8") for file in files if file.is_file()}
    texts |= {"printed": "\n".join(printed), "logged": "\n".join(record.getMessage() for record in caplog.records)}
    assert len(texts) >= 13
    assert [name for name, text in texts.items() if secret & set(_grams(text))] == []
    assert secret & set(_grams((run / "report.html").read_text(encoding="utf-8"))), "the search finds what is there"


@pytest.mark.parametrize(
    ("run", "request_name", "says"),
    [
        ("case-1", "case-1", "in the ledger already"),
        ("case-1", "Mr Al-Kuwaiti, Kuwait", "cannot name a request"),
        ("models/target", "case-9", "of kind finetune"),
    ],
)
def test_what_is_not_entered(root: Path, run: str, request_name: str, says: str) -> None:
    size = (root / "ledger" / ENTRIES).stat().st_size
    refused = ledger(root, "add", root / run, "--request", request_name)
    assert refused.exit_code == 2
    assert says in " ".join(refused.output.split())
    assert (root / "ledger" / ENTRIES).stat().st_size == size


def _copied(root: Path, copy: Path) -> None:
    """The ledger in another folder, whose entries then lead to the same runs."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    book = Ledger(copy)
    for file in ("salt",):
        copy.mkdir(exist_ok=True)
        (copy / file).write_bytes((root / "ledger" / file).read_bytes())
        (copy / file).chmod(0o600)
    for entry in entries(root):
        body = dict(entry.body)
        if "run" in body:
            body["run"] = str(root / body["request"])
        book.append(entry.kind, body)
