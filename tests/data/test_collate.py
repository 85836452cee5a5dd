"""Padding, masks and static scores of a batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase

from expunge.data.collate import collate
from expunge.data.encode import Encoder
from expunge.data.records import Record, Span


@pytest.fixture
def items(tokenizers: Mapping[str, PreTrainedTokenizerBase]) -> list:
    encoder = Encoder(tokenizers["bpe"])
    return [
        encoder.encode(Record("a", "Who?", "Kuwait", spans=(Span("answer", 0, 6),))),
        encoder.encode(Record("b", "Who was born in Kuwait City?", "The author was born in Kuwait City.")),
    ]


def test_padding_with_the_end_token_hides_no_end_token(items: list) -> None:
    eos = int(items[0].input_ids[-1])
    batch = collate(items, pad_id=eos)
    lengths = [len(item) for item in items]
    assert batch.attention_mask.sum(1).tolist() == lengths
    assert batch.attention_mask[0].tolist() == [True] * lengths[0] + [False] * (lengths[1] - lengths[0])
    assert (batch.input_ids[0, lengths[0] :] == eos).all()
    assert batch.targets[0, lengths[0] - 2] == eos
    assert (batch.targets[0, lengths[0] - 1 :] == -100).all()


def test_rows_are_the_items(items: list) -> None:
    batch = collate(items, pad_id=0, draws=[7, 2**40])
    for row, item in enumerate(items):
        assert batch.input_ids[row, : len(item)].tolist() == item.input_ids.tolist()
        assert batch.targets[row, : len(item)].tolist() == item.targets.tolist()
    assert batch.ids == ("a", "b")
    assert batch.draws is not None
    assert batch.draws.tolist() == [7, 2**40]
    assert batch.static["given"].shape == batch.targets.shape
    assert batch.static["given"][1].sum() == 0
    np.testing.assert_array_equal(batch.static["given"][0, : len(items[0])].numpy(), items[0].static["given"])
    assert (batch.input_ids.dtype, batch.targets.dtype) == (torch.int64, torch.int64)
    assert (batch.attention_mask.dtype, batch.static["given"].dtype) == (torch.bool, torch.float32)


def test_order_changes_rows_and_nothing_else(items: list) -> None:
    there, back = collate(items, pad_id=0), collate(items[::-1], pad_id=0)
    assert torch.equal(there.input_ids, back.input_ids.flip(0))
    assert torch.equal(there.static["given"], back.static["given"].flip(0))


def test_wrong_calls(items: list) -> None:
    with pytest.raises(ValueError, match="at least one"):
        collate([], pad_id=0)
    with pytest.raises(ValueError, match="2 items but 1 draws"):
        collate(items, pad_id=0, draws=[1])
