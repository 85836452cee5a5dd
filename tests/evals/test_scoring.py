"""The one pass: equal to whole logits in float64, whatever the batches, and leaving the model as it was."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pyarrow as pa
import pytest
import torch

from expunge import trees
from expunge.core import IGNORE
from expunge.data.collate import budgeted
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.decode import inference
from expunge.errors import DataError
from expunge.evals import metrics, scoring, table
from tests.evals import naive, tiny


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(tiny.small_lm().tokenizer)


@pytest.fixture(scope="module")
def scores(encoder: Encoder) -> pa.Table:
    return scoring.score(tiny.small_lm(), encoder, tiny.records())


def test_a_row_for_every_variant_in_the_order_of_the_records(scores: pa.Table) -> None:
    assert scores.schema == table.SCORES
    names = scores.column("variant").to_pylist()
    assert names == ["answer", "paraphrase", "perturbed:0", "perturbed:1"] * 6
    assert scores.column("id").to_pylist()[:5] == ["forget-0"] * 4 + ["forget-1"]
    assert scores.column("text").to_pylist()[3] == "The birthplace is Paris."


def test_every_number_equals_that_of_whole_logits_in_float64(encoder: Encoder) -> None:
    lm = tiny.small_lm()
    record = tiny.records()[3]
    row = scoring.score(lm, encoder, [record], ("answer",)).to_pylist()[0]
    encoded = encoder.encode(record)
    with torch.no_grad():
        logits = lm.model.double()(input_ids=torch.from_numpy(encoded.input_ids)[None]).logits[0]
    lm.model.float()
    places = np.flatnonzero(encoded.targets != IGNORE)
    targets = encoded.targets[places]
    rows = torch.log_softmax(logits[places], -1)
    probabilities = rows.exp()
    expected = {
        "logp": rows[range(len(targets)), targets],
        "label_logit": logits[places, targets],
        "lse": torch.logsumexp(logits[places], -1),
        "entropy": -(probabilities * rows).sum(-1),
        "second_moment": (probabilities * rows**2).sum(-1),
    }
    for name, values in expected.items():
        assert row[name] == pytest.approx(values.tolist(), rel=1e-5, abs=1e-5), name
    assert row["top1"] == (rows.argmax(-1) == torch.from_numpy(targets)).tolist()
    assert any(row["top1"]) or not all(row["top1"])


def test_tokens_and_places_spell_the_answer(scores: pa.Table) -> None:
    for row in scores.to_pylist():
        inside = [(s, e) for s, e in zip(row["start"], row["end"], strict=True) if s >= 0]
        covered = sorted({place for s, e in inside for place in range(s, e)})
        assert covered == list(range(len(row["text"])))
        assert row["eos"]
        assert row["start"][-1] == -1
        assert row["tokens"][-1] == "<|eos|>"
        assert row["tokens"][0] == row["text"][row["start"][0] : row["end"][0]]


@pytest.mark.parametrize("budget", [1, 64, 100000])
def test_batches_change_nothing(encoder: Encoder, scores: pa.Table, budget: int) -> None:
    other = scoring.score(tiny.small_lm(), encoder, tiny.records(), token_budget=budget)
    for name in ("logp", "entropy", "second_moment", "lse"):
        ours, theirs = (np.concatenate(t.column(name).to_pylist()) for t in (scores, other))
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)
    assert scores.column("top1").equals(other.column("top1"))


@pytest.mark.parametrize("share", [True, False])
def test_reading_the_prompt_once_changes_nothing(encoder: Encoder, scores: pa.Table, share: bool) -> None:
    other = scoring.score(tiny.small_lm(), encoder, tiny.records(), share_prompts=share)
    for name in ("logp", "entropy", "second_moment", "lse", "label_logit"):
        ours, theirs = (np.concatenate(t.column(name).to_pylist()) for t in (scores, other))
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)
    assert scores.drop_columns(other.column_names[9:14]).equals(other.drop_columns(other.column_names[9:14]))


def test_a_branch_that_saw_another_would_be_noticed(
    encoder: Encoder, scores: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaking(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return real(torch.ones_like(allowed).tril(), dtype)

    real = trees._mask
    monkeypatch.setattr(trees, "_mask", leaking)
    forced = scoring.score(tiny.small_lm(), encoder, tiny.records(), share_prompts=True)
    assert forced.column("logp") != scores.column("logp")
    by_itself = scoring.score(tiny.small_lm(), encoder, tiny.records())
    apart = scoring.score(tiny.small_lm(), encoder, tiny.records(), share_prompts=False)
    assert by_itself.equals(apart)


def test_the_order_of_records_changes_nothing(encoder: Encoder, scores: pa.Table) -> None:
    turned = scoring.score(tiny.small_lm(), encoder, tiny.records()[::-1])
    by_key = {(r["id"], r["variant"]): r["logp"] for r in turned.to_pylist()}
    for row in scores.to_pylist():
        assert row["logp"] == pytest.approx(by_key[row["id"], row["variant"]], rel=2e-5, abs=2e-5)


def test_budgets_hold_and_every_row_is_scored_once() -> None:
    lengths = [3, 10, 7, 50, 1, 9]
    groups = list(budgeted(lengths, range(6), 20))
    assert sorted(index for group in groups for index in group) == list(range(6))
    for group in groups:
        assert len(group) == 1 or max(lengths[i] for i in group) * len(group) <= 20
    assert groups[0] == [3]
    assert groups[1] == [1, 5]


def test_training_mode_is_as_before_and_dropout_is_off(encoder: Encoder) -> None:
    lm = tiny.small_lm()
    lm.model.train()
    lm.model.base_model.layers[0].eval()
    before = [module.training for module in lm.model.modules()]
    with inference(lm):
        assert not any(module.training for module in lm.model.modules())
        assert torch.is_inference_mode_enabled()
    assert [module.training for module in lm.model.modules()] == before
    with pytest.raises(RuntimeError, match="stop"), inference(lm):
        raise RuntimeError("stop")
    assert [module.training for module in lm.model.modules()] == before
    lm.model.eval()


def test_progress_counts_up_to_all_rows(encoder: Encoder) -> None:
    seen: list[tuple[int, int]] = []
    scoring.score(
        tiny.small_lm(), encoder, tiny.records(), token_budget=200, progress=lambda done, of: seen.append((done, of))
    )
    assert seen[-1] == (24, 24)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_answers_that_are_cut_say_so_and_have_no_end_token(encoder: Encoder) -> None:
    record = tiny.records()[2]
    whole = len(encoder.encode(record))
    part = dataclasses.replace(encoder, max_length=whole - 4)
    row = scoring.score(tiny.small_lm(), part, [record], ("answer",)).to_pylist()[0]
    assert row["truncated"]
    assert not row["eos"]
    assert len(row["logp"]) == encoder.encode(record).scored - 4


def test_an_answer_wholly_cut_off_is_a_row_without_tokens(encoder: Encoder) -> None:
    part = dataclasses.replace(encoder, max_length=3)
    view = table.answers(scoring.score(tiny.small_lm(), part, tiny.records()[:2], ("answer",)))
    assert view.lengths.tolist() == [0, 0]
    assert math.isnan(metrics.average_loss(view).aggregate)


def test_no_records_give_an_empty_table(encoder: Encoder) -> None:
    assert scoring.score(tiny.small_lm(), encoder, []).num_rows == 0


def test_raw_text_is_scored_whole(encoder: Encoder) -> None:
    row = scoring.score(tiny.small_lm(), encoder, [Record(id="t", text="Rome is old.")]).to_pylist()[0]
    assert row["text"] == "Rome is old."
    assert "".join(row["tokens"][:-1]) == "Rome is old."


def test_an_unknown_variant_is_refused(encoder: Encoder) -> None:
    with pytest.raises(DataError, match="unknown variant 'wrong'"):
        scoring.score(tiny.small_lm(), encoder, tiny.records()[:1], ("wrong",))


def test_the_hash_of_items_sees_texts_ids_and_template(encoder: Encoder) -> None:
    records = tiny.records()[:2]
    base = scoring.content_hash(scoring.items(encoder, records))
    assert base == scoring.content_hash(scoring.items(encoder, records))
    changed = [
        scoring.items(encoder, [dataclasses.replace(records[0], perturbed=("x",)), records[1]]),
        scoring.items(encoder, [dataclasses.replace(records[0], id="other"), records[1]]),
        scoring.items(encoder, records[::-1]),
        scoring.items(dataclasses.replace(encoder, template="{prompt} {answer}"), records),
    ]
    assert len({base, *(scoring.content_hash(rows) for rows in changed)}) == 5


def test_all_metrics_equal_those_of_a_pass_for_each(encoder: Encoder) -> None:
    lm, oracle = tiny.small_lm(), tiny.small_lm(1)
    sets = {"forget": tiny.records(7), "holdout": tiny.records(5, "holdout")}
    theirs, count = naive.every_pass(lm.model, oracle.model, encoder, sets)
    views = {name: table.answers(scoring.score(lm, encoder, records)) for name, records in sets.items()}
    forget = scoring.score(lm, encoder, sets["forget"])
    ours = {f"forget/{v}": metrics.average_loss(table.answers(forget, v)).values for v in table.variants(forget)}
    for name, view in views.items():
        loss = metrics.average_loss(view)
        ours[f"mia_loss/{name}"] = loss.values
        ours[f"mia_zlib/{name}"] = metrics.zlib_score(loss, view.texts).values
        ours[f"mia_min_k/{name}"] = metrics.min_k(view).values
        ours[f"mia_min_k_plus_plus/{name}"] = metrics.min_k_plus_plus(view).values
    ours["extraction_strength"] = metrics.extraction_strength(views["forget"]).values
    ours["exact_memorization"] = metrics.exact_memorization(views["forget"]).values
    assert set(ours) == set(theirs)
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name], rtol=3e-4, atol=3e-5, err_msg=name)
    assert count.sequences > 3 * 7 + 5
