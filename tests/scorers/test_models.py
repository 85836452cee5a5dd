"""Scores from other models, from dropout, and from the model as it was; and the tables they are kept in."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge import api, registry
from expunge import lm as lms
from expunge.bench import Bench
from expunge.context import Passage, Scores, prepared_in
from expunge.core import IGNORE, Forward, Needs, Smoothing
from expunge.data.records import Record
from expunge.errors import MethodError, ModelError
from expunge.fused import Head, disagreement
from expunge.lm import LM
from expunge.scorers.models import MutualInformation
from expunge.scoretables import ScoreTables
from tests.fixtures.models import tiny
from tests.fixtures.tokenizers import bpe
from tests.scorers.test_attribution import RECORDS, language_model, tables


@pytest.fixture(scope="module")
def lm() -> LM:
    return language_model("gpt2-tied-positions", n_positions=128, resid_pdrop=0.2)


def scores(made: ScoreTables, spec: str) -> list[np.ndarray]:
    return [item.static[spec][item.targets != IGNORE] for item in made.fill("forget")]


def test_a_frozen_score_is_the_score_of_the_model_as_it_is(lm: LM) -> None:
    found = scores(tables(lm, "frozen:score=confidence"), "frozen:score=confidence")
    bench = tables(lm, "frozen")._bench("forget", [registry.build("scorer", "frozen")])
    for row, logp in zip(found, bench.read(bench.passages, Needs(), lambda f: f.policy.logp), strict=True):
        np.testing.assert_allclose(row, np.exp(logp), rtol=1e-6)


def test_a_frozen_score_may_look_at_whole_rows(lm: LM) -> None:
    (first, *_) = scores(tables(lm, "frozen:score=entropy:top_k=4"), "frozen:score=entropy:top_k=4")
    assert 0 < first.max() <= math.log(4) + 1e-6


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ("masking", "is prepared before training as it is"),
        ("given", "does not come from the model's own predictions alone"),
        ("0.5*entropy+0.5*novel", "is prepared before training as it is"),
    ],
)
def test_only_what_the_model_says_can_be_frozen(inner: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        registry.build("scorer", {"name": "frozen", "score": inner})


def test_base_surprise_is_what_the_other_model_says(lm: LM, tmp_path: Path) -> None:
    base = tiny("gpt2-tied-positions", vocab_size=420, n_positions=128, seed=5)
    lms.save(LM(base, bpe(), "base"), tmp_path / "base")
    spec = f"base-surprise:model={tmp_path / 'base'}"
    made = tables(lm, spec)
    item = made.fill("forget")[0]
    with torch.no_grad():
        logp = torch.log_softmax(base(torch.from_numpy(item.input_ids)[None]).logits[0], -1)
    at = np.flatnonzero(item.targets != IGNORE)
    expected = [-float(logp[t, item.targets[t]]) for t in at]
    assert item.static[spec][at].tolist() == pytest.approx(expected, abs=1e-5)


def test_another_model_must_be_named_and_speak_the_same_tokens(lm: LM, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=r"base-surprise needs a model .* write base-surprise:model=FOLDER"):
        tables(lm, "base-surprise").fill("forget")
    other = copy.deepcopy(bpe())
    other.add_tokens(["<other>"])
    lms.save(LM(tiny("llama", vocab_size=421), other, "x"), tmp_path / "other")
    with pytest.raises(ModelError, match="another tokenizer"):
        tables(lm, f"base-surprise:model={tmp_path / 'other'}").fill("forget")


def test_mutual_information_of_two_predictions_by_hand() -> None:
    """One sample says (1, 0), the other (0, 1): H of the mean is log 2, each is sure; and two that agree."""
    sure = torch.tensor([[50.0, -50.0], [0.0, 0.0]])
    found = disagreement([sure, torch.tensor([[-50.0, 50.0], [0.0, 0.0]])], Head(torch.eye(2)))
    assert found.tolist() == pytest.approx([math.log(2), 0.0], abs=1e-6)


def test_dropout_is_drawn_for_the_record_alone_and_the_model_left_as_it_was(lm: LM) -> None:
    whole = scores(tables(lm, "mutual-information:samples=3"), "mutual-information:samples=3")
    alone = scores(tables(lm, "mutual-information:samples=3", RECORDS[1:2]), "mutual-information:samples=3")
    assert np.array_equal(whole[1], alone[0])
    assert 0 < whole[1].max() <= math.log(3)
    assert not any(module.training for module in lm.model.modules())


def test_a_model_without_dropout_has_no_mutual_information() -> None:
    with pytest.raises(MethodError, match="mutual-information needs dropout, and 'llama' has none"):
        tables(language_model("llama", max_position_embeddings=128), "mutual-information").fill("forget")
    assert MutualInformation().preparation.passes == 8


def test_parts_of_sums_and_products_are_prepared() -> None:
    made = registry.build("scorer", "0.5*masking+0.5*frequency*novel")
    assert [str(part) for part in prepared_in(made)] == ["masking", "frequency", "novel"]
    assert not made.needs.policy


class Counting(Bench):
    """Counts how often a model is asked."""

    asked = 0

    def read(
        self,
        passages: Sequence[Passage],
        needs: Needs,
        of: Callable[[Forward], torch.Tensor],
        *,
        model: str = "",
        attention: Smoothing | None = None,
    ) -> list[Scores]:
        Counting.asked += 1
        return super().read(passages, needs, of, model=model, attention=attention)


def test_a_table_is_found_again_for_the_same_content_and_for_no_other(
    lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("expunge.scoretables.Bench", Counting)

    def made(records: list[Record], model: LM = lm, spec: str = "frozen") -> list[np.ndarray]:
        again = tables(model, spec, records)
        again.folder = tmp_path
        Counting.asked = 0
        return scores(again, spec)

    first = made(RECORDS)
    assert Counting.asked == 1
    assert all(np.array_equal(a, b) for a, b in zip(made(RECORDS), first, strict=True))
    assert Counting.asked == 0
    changed = [Record(id="a", prompt=RECORDS[0].prompt, answer="In Oslo."), *RECORDS[1:]]
    made(changed)
    assert Counting.asked == 1, "other text"
    made(changed, language_model("gpt2-tied-positions", n_positions=128, seed=1))
    assert Counting.asked == 1, "another model"
    made(changed, spec="frozen:score=confidence")
    assert Counting.asked == 1, "another score"
    file = next(tmp_path.glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:100])
    made(changed, spec="frozen:score=confidence")
    made(changed, language_model("gpt2-tied-positions", n_positions=128, seed=1))
    assert len(list(tmp_path.glob("*.parquet"))) == 2


def test_scores_are_made_anew_when_due_and_carried_over(lm: LM) -> None:
    made = tables(lm, "frozen:refresh=2")
    before = scores(made, "frozen:refresh=2")
    assert not made.refresh(0)
    assert not made.refresh(3)
    kept = made.state()
    assert list(kept) == ["forget/frozen:refresh=2"]
    changed = language_model("gpt2-tied-positions", n_positions=128, seed=9)
    made.lm = changed
    assert made.refresh(4)
    after = scores(made, "frozen:refresh=2")
    assert not np.array_equal(before[0], after[0])
    made.restore(kept)
    assert all(np.array_equal(a, b) for a, b in zip(scores(made, "frozen:refresh=2"), before, strict=True))
    assert tables(lm, "frozen").state() == {}


def test_words_of_a_record_are_numbered_for_selectors_that_ask(lm: LM) -> None:
    item = tables(lm, "entropy", select="pool:by=word > top").fill("forget")[0]
    numbers = item.static["word"][item.targets != IGNORE]
    assert "word" not in tables(lm, "entropy").fill("forget")[0].static
    # Basil Mahfouz was born in Kuwait City . </s>: seven words, then a sign and the end without one
    assert sorted(set(numbers.tolist()) - {0.0}) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert numbers[-1] == 0.0
    assert (np.diff(numbers[numbers > 0]) >= 0).all()


def test_weights_for_other_trainers_need_logits_alone() -> None:
    logits, labels = torch.zeros(1, 3, 4), torch.tensor([[-100, 1, 2]])
    for spec in ("masking", "0.5*entropy+0.5*novel"):
        with pytest.raises(MethodError, match="is prepared from whole records; use it in a recipe, or score_tokens"):
            api.token_weights(logits, labels, score=spec)
    with pytest.raises(MethodError, match="gives ranks, which are an order and no weights; select 'normalised'"):
        api.token_weights(logits, labels, score="rank(entropy+confidence)")
    found = api.token_weights(logits, labels, score="entropy:top_k=2,normalised=true", select="raw")
    assert found.tolist() == [[0.0, pytest.approx(1.0), pytest.approx(1.0)]]
