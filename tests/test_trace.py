"""The token view: the same numbers as in training, one row a record and epoch, and the model left as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from expunge import runfolder
from expunge.core import Needs
from expunge.data.encode import Encoder
from expunge.data.records import Record, Span
from expunge.lm import LM, Scored
from expunge.recipe import Method
from expunge.refcache import Reference
from expunge.runfolder import TOKENS_TABLE
from expunge.sides import encode_all
from expunge.terms import Term, build_terms
from expunge.trace import SCHEMA, Scoring, TokenView, observe, token_texts
from tests.contract import harness as h
from tests.fixtures.models import tiny
from tests.fixtures.tokenizers import bpe

ANSWERS = ["in Kuwait City", "a doctor; naïve 🎉", "Karachi"]
RECORDS = [
    Record(
        id=f"f{i}", prompt="Where was she born?", answer=a, split="forget", spans=(Span("answer", 0, 2, source="gold"),)
    )
    for i, a in enumerate(ANSWERS)
]
BY_ID = {r.id: r for r in RECORDS}


@pytest.fixture(scope="module")
def lm() -> LM:
    return LM(tiny("gpt2-tied-positions", vocab_size=420, resid_pdrop=0.3), bpe(), "tiny")


@pytest.fixture(scope="module")
def encoded() -> list[h.Encoded]:
    return encode_all(Encoder(bpe(), template="Q: {prompt} A: {answer}"), RECORDS)


def term(preset: str = "etw", control: str = "none") -> Term:
    return build_terms(Method.model_validate({"preset": preset, "control": control}))[0]


def test_a_row_says_of_each_token_what_training_saw(lm: LM, encoded: list[h.Encoded]) -> None:
    rows = Scoring(lm, term(), seed=0).rows(encoded, BY_ID, 2.0, Scored(lm.model)).to_pylist()
    assert [row["id"] for row in rows] == ["f0", "f1", "f2"]
    for row, item, record in zip(rows, encoded, RECORDS, strict=True):
        assert (row["epoch"], row["prompt"], row["text"]) == (2.0, record.prompt, record.answer)
        lengths = {len(row[key]) for key in ("tokens", "weight", "score", "gold", "logp", "entropy", "start", "end")}
        assert lengths == {item.scored}
        assert sum(row["weight"]) == pytest.approx(item.scored, rel=1e-5)
        assert row["score"] == pytest.approx(row["entropy"])
        assert row["gold"][0] == 1.0
        assert 0.0 in row["gold"]
        with torch.no_grad():
            logits = lm.model(input_ids=torch.from_numpy(item.input_ids)[None]).logits[0].log_softmax(-1)
        own = [float(logits[t, y]) for t, y in enumerate(item.targets) if y >= 0]
        assert row["logp"] == pytest.approx(own, rel=1e-4, abs=1e-5)
        covered = {i for start, end in zip(row["start"], row["end"], strict=True) for i in range(start, end)}
        assert {i for i, character in enumerate(record.answer) if character != " "} <= covered


def test_controls_show_in_the_weights_but_not_in_the_scores(lm: LM, encoded: list[h.Encoded]) -> None:
    plain, shuffled = (
        Scoring(lm, term(control=control), seed=0).rows(encoded, BY_ID, 0.0, Scored(lm.model)).to_pylist()
        for control in ("none", "shuffle")
    )
    for a, b in zip(plain, shuffled, strict=True):
        assert a["score"] == b["score"]
        assert sorted(a["weight"]) == sorted(b["weight"])
    assert any(a["weight"] != b["weight"] for a, b in zip(plain, shuffled, strict=True))


def test_an_epochs_rows_replace_those_it_had(lm: LM, encoded: list[h.Encoded], tmp_path: Path) -> None:
    run = runfolder.create(tmp_path / "run", "unlearn")
    view = TokenView(Scoring(lm, term(), seed=0), encoded, BY_ID, run)
    module = Scored(lm.model)
    for epoch in (0, 1, 1, 2, 0):
        view(epoch, module)
    table = run.read_table(TOKENS_TABLE)
    assert table.schema.names == SCHEMA.names
    assert sorted((row["epoch"], row["id"]) for row in table.to_pylist()) == [
        (epoch, f"f{i}") for epoch in (0.0, 1.0, 2.0) for i in range(3)
    ]


@pytest.mark.parametrize("training", [True, False])
def test_looking_changes_nothing(lm: LM, encoded: list[h.Encoded], training: bool) -> None:
    module = Scored(lm.model).train(training)
    batch = h.batch_of(encoded)
    torch.manual_seed(4)
    before = torch.get_rng_state()
    first, again = (observe(module, batch, Needs(), None).policy.logp for _ in range(2))
    assert torch.equal(first, again), "no dropout, whatever the mode"
    assert torch.get_rng_state().equal(before)
    assert module.training is module.model.training is training
    assert not first.requires_grad
    module.eval()


def test_a_score_may_compare_with_the_reference(lm: LM, encoded: list[h.Encoded]) -> None:
    reference = Reference(Scored(tiny("gpt2-tied-positions", seed=1, vocab_size=420)))
    forward = observe(Scored(lm.model), h.batch_of(encoded), Needs(reference=True), reference)
    assert forward.reference is not None
    assert not torch.equal(forward.reference.logp, forward.policy.logp)
    assert observe(Scored(lm.model), h.batch_of(encoded), Needs(), reference).reference is None


def test_texts_of_tokens_are_those_of_the_scored_ones(encoded: list[h.Encoded]) -> None:
    texts = token_texts(bpe(), encoded[0].targets)
    assert "".join(texts).strip().startswith("in Kuwait City")
    assert len(texts) == encoded[0].scored
