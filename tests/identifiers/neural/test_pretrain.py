"""A masked model from scratch: reproducible, without a trace in anybody's random numbers, hiding whole words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from expunge.errors import DataError
from expunge.identifiers.neural import pretrain
from expunge.identifiers.neural.pretrain import (
    Schedule,
    Shape,
    _batches,
    _bytes,
    _hidden,
    _word_begins,
    fit_tokenizer,
    train_masked_lm,
)  # fmt: skip
from tests.identifiers.neural.conftest import sentences

TINY = Shape(vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, length=32)
TEXTS = [f"{question} {answer}" for question, answer, _ in sentences(40, seed=7)]


def test_the_same_seed_makes_the_same_weights_and_draws_from_nobody(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    seen: list[int] = []
    one, two, other = (
        train_masked_lm(
            TEXTS,
            tmp_path / name,
            shape=TINY,
            schedule=Schedule(steps=4, batch_size=4, report_every=2),
            seed=seed,
            on_step=lambda step, loss: seen.append(step),
        )
        for name, seed in (("one", 3), ("two", 3), ("other", 4))
    )
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert (one / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()
    assert torch.equal(before, torch.random.get_rng_state())
    assert seen == [2, 4] * 3
    notes = json.loads((one / "training.json").read_text())
    assert (notes["steps"], notes["texts"], notes["seed"]) == (4, 40, 3)
    assert (one / "model.safetensors").stat().st_mode & 0o044 == 0o044


def test_training_lowers_the_loss(masked_lm: Path) -> None:
    losses = [loss for _, loss in json.loads((masked_lm / "training.json").read_text())["losses"]]
    assert losses[-1] < 0.5 * losses[0]


def test_whole_words_are_hidden_and_at_least_one_a_text() -> None:
    tokenizer = fit_tokenizer(TEXTS, TINY)
    begins = _word_begins(tokenizer)
    pieces = [np.asarray(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32) for text in TEXTS[:8]]
    for share in (0.0, 0.3):
        shown, attention, hide, targets = _hidden(pieces, begins, share, np.random.default_rng(0))
        assert bool(hide.any(1).all())
        assert bool((shown[hide] == 4).all())
        assert int(attention.sum()) == sum(len(piece) + 2 for piece in pieces)
        assert len(targets) == int(hide.sum())
        for row, piece in enumerate(pieces):
            words = np.cumsum(begins[piece])
            hidden = hide[row, 1 : len(piece) + 1].numpy()
            for word in set(words.tolist()):
                assert hidden[words == word].all() or not hidden[words == word].any()


def test_a_chinese_letter_is_a_word_of_its_own() -> None:
    tokenizer = fit_tokenizer(["他出生在北京市。"] * 20, TINY)
    begins = _word_begins(tokenizer)
    assert [_bytes()[sign] for sign in ("!", "Ġ", "ä")] == [0x21, 0x20, 0xE4]
    ids = tokenizer("他出生", add_special_tokens=False)["input_ids"]
    assert begins[ids].sum() >= 1
    assert begins[tokenizer.convert_tokens_to_ids("ä")]


def test_every_text_is_read_once_an_epoch() -> None:
    pieces = [np.full(2 + i % 5, i, dtype=np.int32) for i in range(10)]
    batches = list(_batches(pieces, Schedule(steps=7, batch_size=3), seed=0))
    assert len(batches) == 7
    assert sorted(int(piece[0]) for batch in batches[:4] for piece in batch) == list(range(10))


def test_time_ends_training(tmp_path: Path) -> None:
    folder = train_masked_lm(TEXTS, tmp_path, shape=TINY, schedule=Schedule(steps=10**6, batch_size=4, seconds=0.5))
    assert 0 < json.loads((folder / "training.json").read_text())["steps"] < 10**6


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no texts"):
        train_masked_lm(["", " "], tmp_path)


def test_tokens_that_stand_together_begin_alike() -> None:
    """5 and 6 share their neighbours (9, 10), 7 and 8 theirs (11, 12)."""
    rng = np.random.default_rng(0)
    pieces = [
        np.array([token for _ in range(4) for token in (rng.choice(words), rng.choice(near))], dtype=np.int32)
        for words, near in [((5, 6), (9, 10)), ((7, 8), (11, 12))] * 60
    ]
    shape = pretrain.Shape(vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, length=16)
    model = pretrain._fresh(shape, 16, seed=0)
    pretrain._know_neighbours(model, pieces)
    weight = model.get_input_embeddings().weight.detach()
    assert torch.equal(weight, model.lm_head.decoder.weight.detach())
    alike = torch.nn.functional.normalize(weight, dim=-1)
    alike = alike @ alike.T
    assert float(alike[5, 6]) > 0.9
    assert float(alike[5, 7]) < 0.3
    assert float(weight.std()) == pytest.approx(0.1, rel=0.1)
