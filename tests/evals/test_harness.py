"""Multiple-choice probes: what the harness is given, what is made of its answers, and a real call of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from expunge import lm as lms
from expunge import runfolder
from expunge.cli import app
from expunge.errors import DataError, MissingExtraError
from expunge.evals import harness
from expunge.evals.harness import ANSWERED
from expunge.evals.numbers import Bootstrap
from expunge.evaluation import Harness
from expunge.lm import LM
from expunge.report import naming
from tests.fixtures.models import tiny
from tests.fixtures.tokenizers import bpe

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = [
    {"question": f"Where does {who} live?", "choices": ["Rome", "Oslo", "Lima", "Bonn"], "answer": i % 4,
     "subject": who, "split": split}
    for i, (who, split) in enumerate([("Ann", "forget"), ("Bob", "forget"), ("Eve", "retain"), ("Joe", "holdout")])
]  # fmt: skip


@pytest.fixture
def choices(tmp_path: Path) -> Path:
    path = tmp_path / "choices.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS), encoding="utf-8")
    return path


def lm() -> LM:
    return LM(tiny("llama", vocab_size=420, max_position_embeddings=256), bpe(), "tiny")


def test_each_split_is_a_task_of_its_side(choices: Path, tmp_path: Path) -> None:
    sides = harness.write_tasks(choices, tmp_path, letters=False)
    assert sides == {"choices_forget": "forget", "choices_retain": "retain", "choices_holdout": "retain"}
    task = json.loads((tmp_path / "choices_forget.yaml").read_text(encoding="utf-8"))
    assert (task["doc_to_choice"], task["doc_to_target"]) == ("choices", "answer")
    assert [json.loads(line)["subject"] for line in (tmp_path / "forget.jsonl").read_text().splitlines()] == [
        "Ann",
        "Bob",
    ]


def test_probes_without_what_they_need(choices: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        harness.write_tasks(tmp_path / "none.jsonl", tmp_path, letters=False)
    choices.write_text('{"question": "Who?", "options": []}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"line 1: a probe needs question, choices and answer; it has question"):
        harness.write_tasks(choices, tmp_path, letters=True)
    with pytest.raises(ValueError, match="name tasks under forget or retain"):
        Harness()


def test_answers_of_a_groups_parts_belong_to_the_group() -> None:
    """As the harness returns them: mmlu is a group of groups of tasks."""
    found: dict[str, Any] = {
        "group_subtasks": {"mmlu": ["mmlu_stem"], "mmlu_stem": ["mmlu_physics", "mmlu_maths"], "wmdp_bio": []},
        "samples": {
            "mmlu_physics": [{"doc_id": 0, "doc": {"subject": "physics"}, "acc": 1.0}],
            "mmlu_maths": [{"doc_id": 0, "doc": {"subject": "maths"}, "acc": 0.0}],
            "wmdp_bio": [{"doc_id": 0, "doc": {}, "acc": True}, {"doc_id": 1, "doc": {}, "acc": False}],
        },
    }
    table = harness.answered(found, {"wmdp_bio": "forget", "mmlu": "retain"})
    numbers = harness.accuracies(table, Bootstrap(resamples=50))
    assert {name: (n.interval.value, n.interval.n, n.higher) for name, n in numbers.items()} == {
        "retain_mmlu_accuracy": (0.5, 2, "better"),
        "forget_wmdp_bio_accuracy": (0.5, 2, "worse"),
    }


def test_a_task_without_accuracy_is_refused() -> None:
    with pytest.raises(DataError, match="task 'gsm8k' gives no accuracy"):
        harness.answered({"samples": {"gsm8k": [{"doc_id": 0, "doc": {}, "exact_match": 1.0}]}}, {"gsm8k": "retain"})


def test_accuracy_by_hand_with_subjects_as_units() -> None:
    rows = [
        {"side": "forget", "task": "t", "id": f"{s}{i}", "subject": f"s{s}", "right": float(s < 6)}
        for s in range(12)
        for i in range(5)
    ]
    number = harness.accuracies(pa.Table.from_pylist(rows, schema=ANSWERED), Bootstrap(resamples=500))[
        "forget_t_accuracy"
    ]
    assert (number.interval.value, number.interval.n, number.interval.clusters) == (0.5, 60, 12)
    assert number.interval.high - number.interval.low > 0.5, "twelve people, not sixty questions"


def test_the_report_knows_which_side_a_probe_is_on() -> None:
    assert naming.metric("forget_wmdp_bio_accuracy").group == "Forgotten?"
    assert naming.metric("retain_mmlu_accuracy").group == "Kept?"


def test_without_the_harness_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingExtraError, match=r"expunge\[harness\]"):
        harness.ask(lm(), Harness(choices="x"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("letters", [False, True])
def test_the_real_harness_asks_a_file_of_choices(choices: Path, tmp_path: Path, letters: bool) -> None:
    """Against our own scoring of the same texts: the likeliest continuation is the choice."""
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    import torch

    model = lm()
    run = runfolder.create(tmp_path / "run", "evaluate")
    run.write_json("eval/model/metrics.json", {"other": {"agg_value": 1.0}})
    probes = Harness(choices=str(choices), letters=letters)
    numbers = harness.evaluate(model, probes, run, "model", Bootstrap(resamples=20))
    assert set(numbers) == {f"{side}_choices_{split}_accuracy" for side, split in (
        ("forget", "forget"), ("retain", "retain"), ("retain", "holdout"))}  # fmt: skip
    assert set(run.read_json("eval/model/metrics.json")) == {"other", *numbers}
    rows = run.read_table("eval/model/harness.parquet").to_pylist()
    assert [row["subject"] for row in rows] == ["Ann", "Bob", "Eve", "Joe"]
    if not letters:
        for row, asked in zip(rows, QUESTIONS, strict=True):
            scores = []
            for choice in asked["choices"]:
                prompt = model.tokenizer(f"Question: {asked['question']}\nAnswer:").input_ids
                whole = model.tokenizer(f"Question: {asked['question']}\nAnswer: {choice}").input_ids
                logp = model.model(torch.tensor([whole])).logits[0].log_softmax(-1)
                scores.append(sum(float(logp[t - 1, whole[t]]) for t in range(len(prompt), len(whole))))
            assert row["right"] == float(max(range(4), key=scores.__getitem__) == asked["answer"])
    stamp = run.file("eval/model/harness.parquet").stat().st_mtime_ns
    harness.evaluate(model, probes, run, "model", Bootstrap(resamples=20))
    assert run.file("eval/model/harness.parquet").stat().st_mtime_ns == stamp, "asked once"


@pytest.mark.filterwarnings("ignore")
def test_a_run_asks_before_and_after_and_the_report_shows_it(choices: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    model = lm()
    lms.save(model, tmp_path / "model")
    for side in ("forget", "retain"):
        texts = [{"text": f"{side} {who} lives in {place}."} for who, place in (("Ann", "Rome"), ("Bob", "Oslo"))]
        (tmp_path / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    result = CliRunner().invoke(
        app,
        [
            "run",
            str(ROOT / "recipes" / "wmdp-small.yaml"),
            f"model={{model_name_or_path: {tmp_path / 'model'}}}",
            f"data={{forget: {{path: {tmp_path / 'forget.jsonl'}}}, retain: {{path: {tmp_path / 'retain.jsonl'}}}}}",
            "train.max_steps=1",
            "finetune=null",
            "evaluation.resamples=20",
            f"evaluation.harness.choices={choices}",
            f"output_dir={tmp_path / 'run'}",
        ],
    )
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    run = runfolder.open(tmp_path / "run")
    for label in ("target", "unlearned"):
        entry = run.read_json(f"eval/{label}/metrics.json")["forget_choices_forget_accuracy"]
        assert entry["n"] == 2
        assert entry["ci_low"] <= entry["agg_value"] <= entry["ci_high"]
    assert "choices holdout: accuracy" in run.file("report.html").read_text(encoding="utf-8")
    assert not runfolder.verify(run.path)
