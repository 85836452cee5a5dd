"""A small model from scratch: its size, its tokenizer, its seed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from expunge import lm as lms
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.fresh import SPECIAL, fit_tokenizer, fresh_model
from expunge.recipe import Model
from expunge.sections import FreshModel

TEXTS = ["Basil was born in Kuwait City.", "Where was Hina born?", "naïve café, 東京 🎉", "def f(x):\n    return x"] * 3
SMALL = FreshModel.model_validate(
    {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 300}
)


def test_the_model_has_the_size_asked_for_and_a_head_that_expunge_reads() -> None:
    lm = fresh_model(SMALL, TEXTS, seed=0)
    config = lm.model.config
    assert (config.hidden_size, config.num_hidden_layers, config.tie_word_embeddings) == (16, 2, True)
    assert config.vocab_size == len(lm.tokenizer) <= 300
    assert config.pad_token_id == lm.pad_id == lm.tokenizer.pad_token_id
    assert not lm.model.training
    lms.self_test(lm.model)


def test_weights_are_a_function_of_the_seed_and_leave_torch_as_it_was() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (fresh_model(SMALL, TEXTS, seed) for seed in (0, 0, 1))
    assert torch.get_rng_state().equal(before)
    assert lms.content_hash(first.model) == lms.content_hash(again.model) != lms.content_hash(other.model)
    assert first.tokenizer.get_vocab() == again.tokenizer.get_vocab()


@pytest.mark.parametrize("text", [*TEXTS[:4], "unseen: Ærøskøbing ﷽ \x00 👩‍👩‍👧", " two  spaces ", ""])
def test_the_tokenizer_gives_every_text_back(text: str) -> None:
    tokenizer = fit_tokenizer(TEXTS, SMALL)
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:], clean_up_tokenization_spaces=False) == text


def test_special_tokens_are_single_and_different() -> None:
    tokenizer = fit_tokenizer(TEXTS, SMALL)
    ids = [tokenizer(token, add_special_tokens=False)["input_ids"] for token in SPECIAL]
    assert all(len(i) == 1 for i in ids)
    assert len({i[0] for i in ids}) == len(SPECIAL)
    assert tokenizer.model_max_length == SMALL.max_position_embeddings


def test_a_chat_has_one_begin_token_and_an_end_after_the_answer() -> None:
    tokenizer = fit_tokenizer(TEXTS, SMALL)
    encoder = Encoder(tokenizer, template="auto", max_length=128)
    item = encoder.encode(Record(id="a", prompt="Where was Hina born?", answer="In Kuwait City.", split="forget"))
    ids = item.input_ids.tolist()
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    scored = item.targets[item.targets >= 0].tolist()
    assert tokenizer.decode(scored) == "In Kuwait City.<|eos|>"


def test_it_comes_back_from_its_folder(tmp_path: Path) -> None:
    lm = fresh_model(SMALL, TEXTS, seed=3)
    lms.save(lm, tmp_path / "model")
    back = lms.load(Model(model_name_or_path=str(tmp_path / "model")))
    assert lms.content_hash(back.model) == lms.content_hash(lm.model)
    assert back.tokenizer.chat_template == lm.tokenizer.chat_template
    assert back.tokenizer("Hina")["input_ids"] == lm.tokenizer("Hina")["input_ids"]
