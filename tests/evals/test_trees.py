"""Rows of several answers: what they share, how long they get, which models they are for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge.data.encode import Encoded
from expunge.evals import trees
from tests.evals import tiny


def item(ids: list[int], first: int) -> Encoded:
    """A sequence whose tokens from `first` on are the answer."""
    targets = np.array([*ids[1:], -100])
    targets[: first - 1] = -100
    return Encoded("x", np.array(ids), targets, np.zeros((len(ids), 2), np.int32), {})


def test_the_last_token_of_the_prompt_is_repeated_because_it_predicts() -> None:
    items = [item([1, 5, 6, 7, 2], 3), item([1, 5, 6, 8, 9, 2], 3)]
    assert trees.plan(items, ["a", "a"], [0, 1]) == [trees.Tree(2, (0, 1), 2 + 3 + 4)]


def test_prompts_that_are_tokenized_differently_share_what_is_equal() -> None:
    items = [item([1, 5, 6, 7, 2], 3), item([1, 4, 6, 8, 2], 3)]
    assert trees.plan(items, ["a", "a"], [0, 1])[0].shared == 1


def test_other_prompts_begin_other_rows_and_skipped_items_do_not_count() -> None:
    items = [item([1, 5, 6, 7, 2], 3) for _ in range(4)]
    found = trees.plan(items, ["a", "a", "b", "a"], [0, 2, 3])
    assert [tree.members for tree in found] == [(0,), (2,), (3,)]


def test_rows_do_not_grow_without_end() -> None:
    items = [item(list(range(100, 190)), 10) for _ in range(7)]
    found = trees.plan(items, ["a"] * 7, range(7))
    assert [len(tree.members) for tree in found] == [2, 2, 2, 1]
    assert all(tree.length == 9 + 81 * len(tree.members) for tree in found)
    long = [item(list(range(100, 900)), 700) for _ in range(4)]
    assert len(trees.plan(long, ["a"] * 4, range(4))) == 1  # a long prompt is worth sharing


def test_the_mask_shows_the_prompt_and_one_s_own_branch() -> None:
    mask = trees._mask(torch.tensor([[0, 0, 1, 1, 2, -1]]), torch.float32)[0, 0] == 0
    assert mask.long().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 1],
    ]


def test_models_with_windows_or_flash_kernels_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny.small_lm()
    config = lm.model.config
    assert trees.usable(lm)
    monkeypatch.setattr(config, "_attn_implementation_internal", "flash_attention_2")
    assert not trees.usable(lm)
    monkeypatch.undo()
    monkeypatch.setattr(config, "sliding_window", 64, raising=False)
    assert not trees.usable(lm)
