from __future__ import annotations

import pytest
import torch

from expunge.core import Needs
from expunge.data.collate import collate
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.evals.known import LEVEL, probabilities, unknown_records
from expunge.fresh import fresh_model
from expunge.lm import LM, Scored
from expunge.sections import FreshModel

LEARNED = [Record("a", "Who keeps bees?", "Ilse Brandt keeps bees."), Record("b", "Who sails?", "Tomas Rey sails.")]
STRANGE = Record("c", "Who paints?", "Nobody here has ever heard of Oda Finch.")


@pytest.fixture(scope="module")
def model() -> LM:
    """A model that has learned two answers by heart."""
    settings = FreshModel(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=300,
        max_position_embeddings=128,
    )  # fmt: skip
    lm = fresh_model(settings, [text for r in [*LEARNED, STRANGE] for text in (r.prompt, r.answer)], seed=0)
    encoder = Encoder(lm.tokenizer)
    batch = collate([encoder.encode(record) for record in LEARNED], lm.pad_id)
    scored, optimizer = Scored(lm.model), torch.optim.AdamW(lm.model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        (-scored(batch, Needs()).logp.sum() / batch.mask.sum()).backward()
        optimizer.step()
    return lm


def test_a_model_knows_what_it_learned(model: LM) -> None:
    encoder = Encoder(model.tokenizer)
    assert all(p > 0.9 for p in probabilities(model, encoder, LEARNED, 512).values())
    assert unknown_records(model, encoder, LEARNED) == []


def test_what_it_never_read_is_named(model: LM) -> None:
    [finding] = unknown_records(model, Encoder(model.tokenizer), [*LEARNED, STRANGE])
    assert (finding.name, finding.severity, finding.count, finding.examples) == ("not-known", "warning", 1, ("c",))
    assert f"1 of 3 forget answers at most {LEVEL:.2f}" in finding.message


def test_a_model_that_knows_nothing_has_nothing_to_unlearn(model: LM) -> None:
    [finding] = unknown_records(model, Encoder(model.tokenizer), [STRANGE])
    assert finding.message.endswith("there is nothing to unlearn")


def test_the_holdout_set_sets_the_level(model: LM) -> None:
    twenty = [Record(f"h{i}", LEARNED[i % 2].prompt, LEARNED[i % 2].answer) for i in range(20)]
    [finding] = unknown_records(model, Encoder(model.tokenizer), LEARNED, twenty)
    assert finding.count >= 1
    assert "95th percentile of the holdout set" in finding.message
