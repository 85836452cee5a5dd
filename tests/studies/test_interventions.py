"""Interventions: what is changed and what is not, and the verb from recipe to page."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from expunge import lm as lms
from expunge import recipe, runfolder
from expunge.data import annotations
from expunge.data.encode import Encoder
from expunge.data.load import load
from expunge.data.records import Record
from expunge.errors import RunFolderError
from expunge.evals import scoring
from expunge.lm import LM
from expunge.recipe import Model, Source
from expunge.studies import interventions, recall
from expunge.studies.matching import Pool, answer_places, answer_tokens
from tests.studies.test_verbs import call


@pytest.fixture(scope="module")
def target(material: Path) -> LM:
    return lms.load(Model(model_name_or_path=str(material / "target")))


@pytest.fixture(scope="module")
def encoder(target: LM) -> Encoder:
    return Encoder(target.tokenizer, template="Q: {prompt} A: {answer}", max_length=192)


@pytest.fixture(scope="module")
def records(material: Path) -> list[Record]:
    return load(Source(path=str(material / "forget.jsonl")), "forget")


def test_replaced_tokens_change_what_is_read_and_nothing_else(encoder: Encoder, records: list[Record]) -> None:
    items = [encoder.encode(record) for record in records]
    pool, own = Pool.of(items), items[0]
    made = interventions.replaced(own, [1, 3], pool, 5)
    assert np.array_equal(made.targets, own.targets)
    changed = np.flatnonzero(made.input_ids != own.input_ids)
    assert changed.tolist() == [answer_places(own)[place] + 1 for place in (1, 3)]
    assert np.array_equal(interventions.replaced(own, [1, 3], pool, 5).input_ids, made.input_ids)


def test_tokens_before_a_replaced_one_do_not_feel_it(target: LM, encoder: Encoder, records: list[Record]) -> None:
    item = encoder.encode(records[0])
    made = interventions.replaced(item, [2], Pool.of([encoder.encode(r) for r in records]), 5)
    rows = [scoring.Item(records[0], name, records[0].body, one) for name, one in (("a", item), ("b", made))]
    whole, changed = interventions._logps(target, rows, 2048)
    assert len(whole) == len(answer_tokens(item))
    assert np.allclose(whole[:3], changed[:3], atol=1e-5), "the replaced token's own prediction neither"
    assert not np.allclose(whole[3:], changed[3:], atol=1e-3)


def test_picks_are_the_top_but_never_the_last_token(encoder: Encoder, records: list[Record]) -> None:
    items = [encoder.encode(record) for record in records]
    count = len(answer_tokens(items[0]))
    scores = np.arange(count, dtype=float)
    found = interventions.pick(items[0], scores, Pool.of(items), 0.2, 1)
    assert found is not None
    size = math.ceil(0.2 * (count - 1))
    assert found.top == tuple(range(count - 1 - size, count - 1))
    assert len(set(found.matched)) == size
    assert not set(found.matched) & {*found.top, count - 1}


def test_dependence_is_zero_for_a_model_that_ignores_the_prompt(
    target: LM, encoder: Encoder, records: list[Record]
) -> None:
    item = encoder.encode(records[0])
    found = interventions.dependence(target, encoder, records[0], item, 2048)
    assert found.shape == (len(answer_tokens(item)),)
    assert (found > 0).all()
    assert np.isnan(interventions.dependence(target, encoder, Record("r", "", "Rome"), item, 2048)).all()


@pytest.fixture(scope="module")
def study(material: Path, tmp_path_factory: pytest.TempPathFactory) -> runfolder.RunFolder:
    out = tmp_path_factory.mktemp("interventions") / "study"
    call(
        "intervene", str(material / "recipe.yaml"), "--score", "entropy", "--score", "gold", "--resamples", "40",
        "--out", str(out), "data.forget.limit=8",
    )  # fmt: skip
    return runfolder.open(out)


def test_the_study_has_paired_effects_and_picks_as_annotations(
    study: runfolder.RunFolder, records: list[Record]
) -> None:
    effects = study.read_json("measured/effects.json")
    assert [one["name"] for one in effects["effects"]] == [
        "entropy: replaced", "entropy: rests", "gold: replaced", "gold: rests",
    ]  # fmt: skip
    for one in effects["effects"]:
        gap = one["first"]["value"] - one["second"]["value"]
        assert one["difference"]["value"] == pytest.approx(gap, abs=1e-9)
        assert one["difference"]["n"] == 8
    top, other = (annotations.read(study.file(f"measured/1-{side}.jsonl")) for side in ("top", "matched"))
    assert len(top) == len(other) == 8
    assert all(span.source == "top:gold" for one in top for span in one.spans)
    attached = annotations.attach(records[:8], top)
    assert all(any(span.source == "top:gold" for span in record.spans) for record in attached)
    before = study.read_json("measured/effects.json")
    call("intervene", str(study.path), "--resamples", "40")
    assert study.read_json("measured/effects.json") == before
    assert "Are the picked tokens causes?" in study.file("report.html").read_text(encoding="utf-8")
    assert not runfolder.verify(study.path)


def test_the_picks_can_be_unlearned_and_the_runs_compared(
    study: runfolder.RunFolder, material: Path, tmp_path: Path
) -> None:
    """(c) from end to end: a run on the top tokens, one on the matched ones, then recall of the paraphrases."""
    for side in ("top", "matched"):
        call(
            "run", str(material / "recipe.yaml"), f"output_dir={tmp_path / side}", "data.forget.limit=8",
            f"data.forget.annotations={study.file(f'measured/1-{side}.jsonl')}",
            "method={terms: [{objective: ga, score: given, select: raw}]}", "train.max_steps=2",
            "train.learning_rate=1e-3", "evaluation.oracle=null", "evaluation.generate=false",
            "evaluation.resamples=20",
        )  # fmt: skip
    shown = call(
        "recall", "--run", str(tmp_path / "top"), "--control", str(tmp_path / "matched"), "--resamples", "40", "--out",
        str(tmp_path / "recall"),
    )  # fmt: skip
    assert "difference" in shown
    [answer, paraphrase] = runfolder.open(tmp_path / "recall").read_json("measured/recall.json")
    assert (answer["name"], paraphrase["name"]) == ("answer", "paraphrase")
    assert answer["difference"]["n"] == paraphrase["difference"]["n"] == 8
    assert paraphrase["first"]["value"] != paraphrase["second"]["value"]


def test_runs_without_an_evaluation_are_named(study: runfolder.RunFolder) -> None:
    with pytest.raises(RunFolderError, match=r"scores/forget.parquet'. Evaluate it"):
        recall.compare([study.path], [study.path])


def test_recipes_of_the_study_are_read_back(study: runfolder.RunFolder) -> None:
    assert study.recipe == recipe.load(study.file("recipe.yaml"))
    assert study.manifest["kind"] == "measure"
