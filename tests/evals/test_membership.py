"""Membership: true-positive rates by hand, void where words alone separate the sets, gradients as the peer has them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from expunge.data.encode import Encoder
from expunge.evals import gradients, membership, scoring, table
from expunge.evals.measure import CONVENTIONS, Measured
from expunge.evals.numbers import Bootstrap
from tests.evals import tiny

QUICK = Bootstrap(resamples=200)
HOW = CONVENTIONS["expunge"]


def measured(name: str, count: int, level: float, word: str = "same", norms: bool = False) -> Measured:
    rng = np.random.default_rng([len(name), count])
    rows = [
        {"id": f"{name}-{i}", "text": f"{word} thing", "logp": (-level - rng.random(3)).tolist()} for i in range(count)
    ]
    scores = tiny.scores(rows)
    if norms:
        scores = scores.append_column(table.GRAD_NORM, pa.array([level + float(r["logp"][0]) for r in rows]))
    return Measured.of(scores)


def test_the_rate_by_hand() -> None:
    members, others = np.array([0.0, 1.0, 2.0, 9.0]), np.arange(1.0, 21.0)
    rate = membership.weighted_rate(members, others, 0.05)
    # one of twenty may be below: the threshold is the second smallest, 2; 0 and 1 lie below it
    assert rate(np.ones((1, 4)), np.ones((1, 20))).tolist() == [0.5]
    none = membership.weighted_rate(members, others, 0.01)  # none of twenty may: the threshold is 1
    assert none(np.ones((1, 4)), np.ones((1, 20))).tolist() == [0.25]
    twice = np.ones((1, 20))
    twice[0, 0], twice[0, 1] = 0.0, 2.0  # 1 was not drawn, 2 was drawn twice: the threshold is 2
    assert rate(np.array([[1.0, 1.0, 1.0, 3.0]]), twice).tolist() == [2 / 6]


def test_rates_need_as_many_holdout_records_as_they_count_in() -> None:
    few = membership.judge({"forget": measured("f", 40, 1), "holdout": measured("h", 40, 3)}, None, HOW, QUICK)
    assert "mia_loss_tpr_at_5_fpr" in few.numbers
    why = "a false-positive rate of 1% needs at least 100 holdout records; there are 40"
    assert few.absent["mia_loss_tpr_at_1_fpr"] == why
    assert few.numbers["mia_loss_tpr_at_5_fpr"].interval.value == 1.0
    many = membership.judge({"forget": measured("f", 40, 1), "holdout": measured("h", 100, 1)}, None, HOW, QUICK)
    assert many.numbers["mia_min_k_tpr_at_1_fpr"].interval.value < 0.2


def test_sets_that_words_tell_apart_void_the_attacks() -> None:
    clean = membership.judge({"forget": measured("f", 40, 1), "holdout": measured("h", 40, 3)}, None, HOW, QUICK)
    assert clean.numbers["set_drift"].interval.value == 0.5
    assert "void" not in clean.numbers["mia_loss"].entry()
    sets = {"forget": measured("f", 40, 1, "old"), "holdout": measured("h", 40, 3, "new")}
    drifted = membership.judge(sets, None, HOW, QUICK)
    assert drifted.numbers["set_drift"].interval.value == 1.0
    for name in ("mia_loss", "mia_min_k", "mia_loss_tpr_at_5_fpr"):
        entry = drifted.numbers[name].entry()
        assert entry["void"] is True
        assert "words alone" in entry["why"]


def test_gradient_norms_are_an_attack_where_they_were_measured() -> None:
    sets = {"forget": measured("f", 20, 1, norms=True), "holdout": measured("h", 20, 3, norms=True)}
    found = membership.judge(sets, None, HOW, QUICK)
    assert found.numbers["mia_gradnorm"].interval.n == 20
    assert (
        "mia_gradnorm"
        in membership.judge(
            {name: replace(m, answers=replace(m.answers, grad_norm=None)) for name, m in sets.items()}, None, HOW, QUICK
        ).absent
    )


def test_gradient_norms_equal_autograd_on_the_model_s_own_logits() -> None:
    lm = tiny.small_lm()
    encoder = Encoder(lm.tokenizer, max_length=128)
    rows = scoring.items(encoder, tiny.records(2))
    found = gradients.norms(lm, rows)
    assert [math.isnan(v) for v in found[:4]] == [False, True, True, True]
    row = rows[0].encoded
    scored = np.flatnonzero(rows[0].mask)[:-1]  # without the token that ends the text
    lm.model.zero_grad()
    logits = lm.model(input_ids=torch.from_numpy(row.input_ids)[None]).logits[0].log_softmax(-1)
    (-logits[torch.from_numpy(scored), torch.from_numpy(row.targets[scored])].mean()).backward()
    norms = [float(p.grad.norm()) for p in lm.model.parameters() if p.grad is not None]
    lm.model.zero_grad(set_to_none=True)
    assert found[0] == pytest.approx(float(np.mean(norms)), rel=1e-4)
    assert not lm.model.training


def test_gradient_norms_equal_openunlearning_s(shared: Path) -> None:
    import json

    from expunge import lm as lms
    from expunge.data.load import load
    from expunge.recipe import Model, Source

    lm = lms.load(Model(model_name_or_path=str(shared / "parity/models/target")))
    log = json.loads((shared / "parity/evaluation/target/TOFU_EVAL.json").read_text())["mia_gradnorm"]
    records = load(Source(path=str(shared / "parity/data/forget01_perturbed.json"), limit=6), "forget")
    rows = scoring.items(_peer_encoder(lm), records, ("answer",))
    expected = [log["forget"]["value_by_index"][str(i)]["score"] for i in range(6)]
    assert gradients.norms(lm, rows) == pytest.approx(expected, rel=2e-3)


def _peer_encoder(lm: object) -> Encoder:
    from tests.evals.test_parity import encoder_of

    return encoder_of(lm)  # type: ignore[arg-type]
