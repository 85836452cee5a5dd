"""MUSE: its files, its prompts, its scores by hand, and the whole path on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from expunge import runfolder
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.errors import DataError
from expunge.evals import metrics, muse, tofu
from expunge.evals.judge import metrics_from_folder
from expunge.evals.numbers import Bootstrap
from tests.evals import tiny


def write(folder: Path) -> Path:
    """A corpus of four texts a set, in the layout of files."""
    rng = ["river", "harbour", "garden", "winter"]
    folder.mkdir()

    def rows(name: str, values: list[dict[str, str]]) -> None:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(v) + "\n" for v in values))

    for split in ("forget", "retain", "holdout"):
        rows(f"privleak_{split}", [{"text": f"The {split} news tells of the {w} and the town."} for w in rng])
    rows("verbmem_forget", [{"prompt": f"The town and the {w}", "gt": f" saw the {w} at night."} for w in rng])
    for split in ("forget", "retain"):
        rows(f"knowmem_{split}_qa", [{"question": f"Where is the {split} {w}?", "answer": w} for w in rng])
        rows(f"knowmem_{split}_qa_icl", [{"question": "Who sings?", "answer": "Ada"}] * 2)
    return folder


def test_the_suite_of_a_folder(tmp_path: Path) -> None:
    sets = muse.load_suite(write(tmp_path / "news"), limit=3)
    assert {name: len(records) for name, records in sets.items()} == dict.fromkeys(
        ("forget", "holdout", "retain", "forget_verbmem", "forget_knowmem", "retain_knowmem"), 3
    )
    asked = sets["forget_knowmem"][0]
    assert muse.TASKS["forget_knowmem"].prompt(asked) == (
        "Question: Who sings?\nAnswer: Ada\n\nQuestion: Who sings?\nAnswer: Ada\n\n"
        "Question: Where is the forget river?\nAnswer: "
    )
    (tmp_path / "news/verbmem_forget.jsonl").unlink()
    with pytest.raises(DataError, match=r"needs verbmem_forget\.jsonl or verbmem/forget\.json"):
        muse.load_suite(tmp_path / "news")


def test_the_published_files(shared: Path) -> None:
    sets = muse.load_suite(shared / "data/muse_news")
    assert {len(records) for records in sets.values()} == {100}
    assert len(sets["retain_knowmem"][0].history) == 20
    assert sets["forget_knowmem"][0].answer == "1472"


def test_scores_equal_the_published_definition_on_given_generations() -> None:
    table = tiny.generations([("a", "the cat sat", "a cat sat down"), ("b", "1472", ""), ("c", "running", "run")])
    # a: the longest common subsequence is 'cat sat': precision 2/4, recall 2/3; c: nothing is stemmed
    assert metrics.rouge_f1(table).values.tolist() == pytest.approx([2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3), 0, 0])


def test_an_answer_ends_where_the_next_question_begins() -> None:
    cut = muse.TASKS["forget_knowmem"].cut
    assert cut(" 1472\n\nQuestion: x") == " 1472"
    assert cut("so Question: y") == "so "
    assert muse.TASKS["forget_verbmem"].cut("one\n\ntwo") == "one\n\ntwo"


def test_long_prompts_lose_their_beginning() -> None:
    lm = tiny.small_lm()
    record = Record("a", "word " * 300, "end")
    task = muse.Task("{}", 4)
    encoder = Encoder(lm.tokenizer, max_length=20)
    [ids] = muse.prompt_ids(encoder, task, [record])
    assert len(ids) == 16
    assert ids[-8:] == muse.prompt_ids(Encoder(lm.tokenizer, max_length=4000), task, [record])[0][-8:]
    with pytest.raises(DataError, match="leaves no room"):
        muse.prompt_ids(Encoder(lm.tokenizer, max_length=4), task, [record])


def test_the_whole_path_and_its_numbers_without_the_model(tmp_path: Path) -> None:
    lm = tiny.small_lm()
    sets = muse.load_suite(write(tmp_path / "news"))
    run = runfolder.create(tmp_path / "run", "evaluate")
    settings = tofu.Settings(tasks=muse.TASKS, bootstrap=Bootstrap(50))
    encoder = Encoder(lm.tokenizer, max_length=200)
    found = tofu.evaluate(lm, encoder, sets, run, "oracle", settings=settings)
    six = {"forget_verbmem_ROUGE", "forget_knowmem_ROUGE", "retain_knowmem_ROUGE", "mia_min_k", "set_drift"}
    assert six <= set(found.numbers)
    assert run.tables("oracle", "generations") == ["forget_knowmem", "forget_verbmem", "retain_knowmem"]
    assert run.tables("oracle", "scores") == ["forget", "holdout", "retain"]
    assert max(run.read_table("eval/oracle/generations/forget_knowmem.parquet")["n_tokens"].to_pylist()) <= 32
    folder = run.file("eval/oracle")
    again = metrics_from_folder(folder, resamples=50)
    assert runfolder.plain(again) == run.read_json("eval/oracle/metrics.json")
    judged = metrics_from_folder(folder, folder, resamples=50)
    assert judged["privleak"]["agg_value"] == 0.0
    assert judged["forget_verbmem_ROUGE"]["higher"] == "worse"
    assert judged["retain_knowmem_ROUGE"]["higher"] == "better"


def test_a_second_evaluation_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny.small_lm()
    sets = muse.load_suite(write(tmp_path / "news"), limit=1)
    run = runfolder.create(tmp_path / "run", "evaluate")
    settings = tofu.Settings(tasks=muse.TASKS, bootstrap=Bootstrap(2))
    tofu.evaluate(lm, Encoder(lm.tokenizer, max_length=200), sets, run, "model", settings=settings)
    monkeypatch.setattr(muse, "complete", None)
    tofu.evaluate(lm, Encoder(lm.tokenizer, max_length=200), sets, run, "model", settings=settings)
