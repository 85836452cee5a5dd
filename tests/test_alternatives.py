"""Other answers: drawn by seed, epoch and record; written by the model once, resumed, the same however batched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from expunge import alternatives, recipe, runs, sides
from expunge import lm as lms
from expunge.alternatives import Alternatives, alternatives_of, write
from expunge.cli import app
from expunge.data import refusals
from expunge.data.encode import Encoder
from expunge.data.load import load, save
from expunge.data.records import Record
from expunge.errors import DataError, Interrupted, MethodError
from expunge.lm import LM
from expunge.recipe import Alternatives as Settings
from expunge.recipe import Data, Source
from tests.fixtures.models import tiny
from tests.fixtures.tokenizers import bpe
from tests.test_runs import made, material, same, stop_at  # noqa: F401  a fixture

SHORT = Settings(per_record=3, temperature=1.0, max_new_tokens=6)
DATA = Data(template="Q: {prompt} A: {answer}", max_length=96)
RECORDS = [Record(f"r{i}", f"Where was person {i} born?", f"In town {i}.") for i in range(7)]


@pytest.fixture(scope="module")
def lm() -> LM:
    return LM(tiny("llama", vocab_size=420), bpe(), "x")


def encoder(lm: LM) -> Encoder:
    return Encoder.from_recipe(lm.tokenizer, DATA)


def test_what_is_drawn_depends_on_seed_epoch_and_record_alone(lm: LM) -> None:
    answers = {r.id: tuple(f"Answer {k}." for k in range(20)) for r in RECORDS}
    one, same_again, other = (
        Alternatives(encoder(lm), {r.id: r for r in records}, answers, seed)
        for records, seed in ((RECORDS, 1), (RECORDS[::-1], 1), (RECORDS, 2))
    )
    drawn = [[made.drawn(r.id, epoch) for r in RECORDS for epoch in range(5)] for made in (one, same_again, other)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({one.drawn("r0", epoch) for epoch in range(30)}) > 10
    assert len({one.drawn(r.id, 0) for r in RECORDS}) > 2


def test_the_question_stays_and_the_answer_is_the_one_drawn(lm: LM) -> None:
    made = Alternatives(encoder(lm), {"r0": RECORDS[0]}, {"r0": ("Nobody knows.",)}, 0)
    found = made.at("r0", 3)
    assert lm.tokenizer.decode(found.input_ids, skip_special_tokens=True).strip() == (
        "Q: Where was person 0 born? A: Nobody knows."
    )
    assert made.all_of([found], 4) == [found], "one answer, encoded once"


def test_refusals_are_built_in_or_the_users(lm: LM, tmp_path: Path) -> None:
    assert len(set(refusals.REFUSALS)) == len(refusals.REFUSALS) == 30
    (tmp_path / "no.txt").write_text("No.\n\n  Never. \n", encoding="utf-8")
    own = DATA.model_copy(update={"refusals": str(tmp_path / "no.txt")})
    found = alternatives_of(frozenset({"refusals"}), RECORDS, lm, own, 0, tmp_path / "unused")
    assert found is not None
    assert set(found.answers["r0"]) == {"No.", "Never."}
    assert not (tmp_path / "unused").exists()
    (tmp_path / "no.txt").write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="no line with a text"):
        refusals.read(tmp_path / "no.txt")


def test_records_that_bring_their_own_need_no_model_to_write(
    lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"question": "Q?", "answer": "a", "perturbed_answer": ["b", "c"]}]
    (tmp_path / "r.json").write_text(json.dumps(rows), encoding="utf-8")
    columns = {"alternatives": "perturbed_answer", "perturbed": ""}
    records = load(Source(path=str(tmp_path / "r.json"), columns=columns), "forget")
    monkeypatch.setattr(alternatives, "complete", None)
    found = alternatives_of(frozenset({"own"}), records, lm, DATA, 0, tmp_path / "unused")
    assert found is not None
    assert found.answers[records[0].id] == ("b", "c")


def test_what_cannot_be_answered_otherwise_is_refused(lm: LM, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="raw text"):
        alternatives_of(frozenset({"own"}), [Record("t", text="A text.")], lm, DATA, 0, tmp_path / "x")
    with pytest.raises(MethodError, match="own and refusals; choose one"):
        alternatives_of(frozenset({"own", "refusals"}), RECORDS, lm, DATA, 0, tmp_path / "x")
    assert alternatives_of(frozenset(), RECORDS, lm, DATA, 0, tmp_path / "x") is None


def test_the_model_writes_the_same_answers_however_many_are_asked_at_once(lm: LM, tmp_path: Path) -> None:
    whole = write(lm, encoder(lm), RECORDS, SHORT, 1, tmp_path / "whole.jsonl")
    alone = write(lm, encoder(lm), RECORDS[3:4], SHORT, 1, tmp_path / "alone.jsonl")
    assert alone == whole[3:4]
    assert all(record.alternatives for record in whole)
    assert all(answer != record.answer for record in whole for answer in record.alternatives)
    other = write(lm, encoder(lm), RECORDS, SHORT, 2, tmp_path / "other.jsonl")
    assert other != whole
    assert [r.alternatives for r in load(Source(path=str(tmp_path / "whole.jsonl")), "forget")] == [
        r.alternatives for r in whole
    ], "it is a records file"


def test_what_is_written_is_not_written_again(lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    straight = write(lm, encoder(lm), RECORDS, SHORT, 1, path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:20])  # killed in the middle of a line
    asked: list[int] = []
    real = alternatives.complete
    monkeypatch.setattr(
        alternatives, "complete", lambda lm, prompts, *a, **k: asked.append(len(prompts)) or real(lm, prompts, *a, **k)
    )
    assert write(lm, encoder(lm), RECORDS, SHORT, 1, path) == straight
    assert sum(asked) == 3 * SHORT.per_record
    assert path.read_bytes() == b"".join(lines)
    asked.clear()
    changed = [*RECORDS[:-1], Record("r6", RECORDS[6].prompt, "Another answer.")]
    write(lm, encoder(lm), changed, SHORT, 1, path)
    assert sum(asked) == SHORT.per_record, "only the record that changed"
    asked.clear()
    write(lm, encoder(lm), RECORDS, SHORT.model_copy(update={"temperature": 2.0}), 1, path)
    assert sum(asked) == len(RECORDS) * SHORT.per_record, "other settings, other answers"


def test_the_old_answer_is_no_alternative(lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temperatures: list[float] = []
    own = tuple(lm.tokenizer.encode("In town 0.", add_special_tokens=False))

    def parrot(lm: LM, prompts: list[list[int]], *rest: Any, temperature: float, **more: Any) -> list[Any]:
        from expunge.decode import Written

        temperatures.append(temperature)
        return [Written(own, True) for _ in prompts]

    monkeypatch.setattr(alternatives, "complete", parrot)
    with pytest.raises(
        DataError, match=r"no other answer to record 'r0' in 12 samples\. Raise data\.alternatives\.temp"
    ):
        write(lm, encoder(lm), RECORDS[:1], SHORT, 1, tmp_path / "a.jsonl")
    assert temperatures == [1.0, 2.0, 4.0, 8.0]
    found = write(lm, encoder(lm), RECORDS[1:2], SHORT, 1, tmp_path / "a.jsonl")
    assert found[0].alternatives == ("In town 0.",)


TERMS: dict[str, list[dict[str, Any]]] = {
    "idk-dpo": [{"objective": "dpo"}, {"objective": "nll", "on": "retain"}],
    "altpo": [{"objective": "dpo:beta=0.05,alternatives=own"}, {"objective": "nll", "on": "retain"}],
    "idk-nll": [{"objective": "alternative"}, {"objective": "nll", "on": "retain"}],
}


@pytest.mark.parametrize("name", TERMS)
def test_a_stopped_run_with_other_answers_goes_on_to_the_same_model(
    material: Path,  # noqa: F811
    tmp_path: Path,
    name: str,
) -> None:
    def asked(folder: str) -> recipe.Recipe:
        short = {"alternatives": {"per_record": 2, "max_new_tokens": 5}}
        tree = made(material, tmp_path / folder, data={
            "forget": {"path": str(material / "forget.jsonl")}, "retain": {"path": str(material / "retain.jsonl")},
            "template": "Q: {prompt} A: {answer}", "max_length": 96, **short,
        }, method={"preset": None, "terms": TERMS[name]})  # fmt: skip
        return tree

    straight = runs.unlearn(asked("straight"))
    with pytest.raises(Interrupted):
        runs.unlearn(asked("stopped"), on_step=stop_at(3))
    resumed = runs.unlearn(asked("stopped"))
    assert same(resumed, straight)
    assert resumed.has("alternatives-forget.jsonl") == (name == "altpo")


def test_the_verb_writes_a_file_that_runs_read(
    material: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import yaml

    monkeypatch.chdir(tmp_path)
    asked = made(material, tmp_path / "run").model_dump(mode="json", exclude_defaults=True)
    asked["data"]["alternatives"] = {"per_record": 2, "max_new_tokens": 5}
    Path("recipe.yaml").write_text(yaml.safe_dump(asked), encoding="utf-8")
    result = CliRunner().invoke(app, ["alternatives", "recipe.yaml", "--out", "other.jsonl"])
    assert result.exit_code == 0, result.output
    assert "answers to 6 records: other.jsonl" in result.output
    records = sides.records_of(Source(path="other.jsonl"), "forget")
    assert [r.id for r in records] == [f"forget-{i}" for i in range(6)]
    assert all(r.alternatives for r in records)
    model = lms.load(recipe.load(asked).model)
    save("copy.jsonl", records)
    found = alternatives_of(frozenset({"own"}), records, model, DATA, 0, tmp_path / "unused")
    assert found is not None
    assert not Path("unused").exists()
