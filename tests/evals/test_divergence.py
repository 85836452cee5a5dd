"""How far a model is from another: numbers by hand, the table against whole logits, tables made once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from typer.testing import CliRunner

from expunge import lm as lms
from expunge import runfolder
from expunge.cli import app
from expunge.data.encode import Encoder
from expunge.data.load import save
from expunge.data.records import Record, Span
from expunge.evals import beside, divergence, scoring
from expunge.evals.beside import Other
from expunge.evals.numbers import Bootstrap
from expunge.lm import LM
from expunge.runfolder import RunFolder
from tests.evals import tiny

Row = tuple[str, Sequence[float], Sequence[bool] | None]


def table(*rows: Row) -> pa.Table:
    filled = [
        {"id": name, "subject": "", "start": [0] * len(kl), "end": [1] * len(kl), "kl": kl, "informative": marks}
        for name, kl, marks in rows
    ]
    return pa.Table.from_pylist(filled, schema=divergence.KL)


def marked(count: int = 4) -> list[Record]:
    """Records whose place of birth is marked as gold, but for the last."""
    made = tiny.records(count)
    spans = [Span("answer", r.answer.index("in ") + 3, len(r.answer) - 1, source="gold") for r in made]
    return [*(replace(r, spans=(s,)) for r, s in zip(made[:-1], spans, strict=False)), made[-1]]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return runfolder.create(tmp_path / "run", "evaluate")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(tiny.small_lm().tokenizer)


def test_means_are_over_the_tokens_of_a_record_and_of_its_parts() -> None:
    found = divergence.per_record(
        "retain", "oracle", table(("a", [4.0, 1.0, 0.0], [True, False, False]), ("b", [2.0], None), ("c", [], None))
    )
    assert {name: item.values.tolist() for name, item in found.items()} == {
        "retain_KL_oracle": [pytest.approx(5 / 3), 2.0, pytest.approx(np.nan, nan_ok=True)],
        "retain_KL_oracle_informative": [4.0, *[pytest.approx(np.nan, nan_ok=True)] * 2],
        "retain_KL_oracle_structural": [0.5, *[pytest.approx(np.nan, nan_ok=True)] * 2],
    }


def test_numbers_have_intervals_and_a_side(run: RunFolder) -> None:
    rows = [(str(i), [float(i)], None) for i in range(1, 10)]
    for other in ("oracle", "target"):
        run.write_table(f"eval/model/kl/{other}/forget.parquet", table(*rows))
    found = divergence.judge(run.file("eval/model"), Bootstrap(200))
    number = found.numbers["forget_KL_oracle"]
    assert (number.interval.value, number.interval.n, number.higher, number.reference) == (5.0, 9, "worse", "oracle")
    assert 2.5 < number.interval.low < 5 < number.interval.high < 7.5
    assert found.numbers["forget_KL_target"].higher == "neither"
    assert "marked spans" in found.absent["forget_KL_oracle_informative"]


def test_the_table_is_that_of_whole_logits(encoder: Encoder) -> None:
    own, other, rows = tiny.small_lm(), tiny.small_lm(1), scoring.items(encoder, marked(), ("answer",))
    found = beside.divergences(own, other, rows, token_budget=64).to_pylist()
    for row, made in zip(rows, found, strict=True):
        ids = torch.from_numpy(row.encoded.input_ids)[None]
        with torch.no_grad():
            mine, theirs = (one.model(ids).logits[0].double().log_softmax(-1) for one in (own, other))
        kl = (theirs.exp() * (theirs - mine)).sum(-1)[torch.from_numpy(row.mask)]
        assert made["kl"] == pytest.approx(kl.tolist(), rel=1e-4)
        assert min(made["kl"]) > 0
    places = zip(*(found[0][column] for column in ("start", "end", "informative")), strict=True)
    said = [rows[0].text[start:end] for start, end, marked in places if marked]
    assert "".join(said).strip().startswith("Kuwait City")
    assert found[-1]["informative"] is None
    assert max(max(row["kl"]) for row in beside.divergences(own, own, rows).to_pylist()) == 0


def test_a_second_call_computes_nothing(run: RunFolder, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, others = tiny.small_lm(), [Other("oracle", lambda: tiny.small_lm(1))]
    sets = {"forget": marked(), "retain": tiny.records(2, "retain")}
    assert beside.make_tables(lm, encoder, sets, run, "model", others) == {}
    with monkeypatch.context() as patch:
        patch.setattr(beside, "divergences", lambda *_, **__: pytest.fail("the models were run again"))
        beside.make_tables(lm, encoder, sets, run, "model", others)
        for changed in ({**sets, "forget": tiny.records(4)}, {**sets, "retain": tiny.records(3, "retain")}):
            with pytest.raises(pytest.fail.Exception):
                beside.make_tables(lm, encoder, changed, run, "model", others)
        with pytest.raises(pytest.fail.Exception):
            beside.make_tables(lm, encoder, sets, run, "model", [Other("oracle", lambda: tiny.small_lm(2))])
    beside.make_tables(lm, encoder, sets, run, "model", ())
    assert not list(run.file("eval/model/kl").glob("*/*.parquet"))


def test_what_cannot_be_compared_is_absent_with_the_reason(run: RunFolder, encoder: Encoder) -> None:
    def other() -> LM:
        return replace(tiny.small_lm(1, 320), name="small")

    others = [Other("oracle", other), Other("target", None, "nobody knows it")]
    why = beside.make_tables(tiny.small_lm(), encoder, {"forget": marked()}, run, "model", others)
    assert "'small' predicts" in why["forget_KL_oracle"]
    assert why["forget_KL_target_structural"] == "nobody knows it"


def test_from_the_command_line(tmp_path: Path) -> None:
    for seed, name in enumerate(("candidate", "oracle")):
        lms.save(tiny.small_lm(seed), tmp_path / name)
    for split, records in (("forget", marked()), ("retain", tiny.records(4, "retain"))):
        save(tmp_path / f"{split}.jsonl", records)
    settings = {"kl": "true", "generate": "false", "resamples": "50", "oracle": str(tmp_path / "oracle")}
    arguments = [
        "evaluate", str(tmp_path / "candidate"), "--suite", "own", "--out", str(tmp_path / "judged"),
        *(f"data.{split}.path={tmp_path}/{split}.jsonl" for split in ("forget", "retain")),
        *(f"evaluation.{key}={value}" for key, value in settings.items()),
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "judged/eval/model"
    metrics, absent = (json.loads((folder / f"{name}.json").read_text()) for name in ("metrics", "absent"))
    names = ["forget_KL_oracle", "forget_KL_oracle_informative", "forget_KL_oracle_structural", "retain_KL_oracle"]
    assert [(metrics[name]["n"], metrics[name]["agg_value"] > 0) for name in names] == [
        (4, True), (3, True), (3, True), (4, True),
    ]  # fmt: skip
    assert "no weights of the target" in absent["forget_KL_target"]
    assert "marked spans" in absent["retain_KL_oracle_informative"]
