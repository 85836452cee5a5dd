"""Rows of several sequences: what they share, how long they get, what may be looked at, which models they are for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge import trees
from expunge.trees import Path, Tree
from tests.evals import tiny


def path(ids: list[int], first: int, hidden: tuple[int, ...] = ()) -> Path:
    """A sequence whose tokens from `first` on are the answer; those at `hidden` no other token may look at."""
    targets = np.array([*ids[1:], -100])
    targets[: first - 1] = -100
    seen = ~np.isin(np.arange(len(ids)), hidden)
    return Path(np.array(ids), targets, np.arange(len(ids)), seen)


def test_the_first_is_read_whole_and_of_the_others_what_differs() -> None:
    paths = [path([1, 5, 6, 7, 2], 3), path([1, 5, 6, 8, 9, 2], 3), path([1, 5, 6, 7, 8, 2], 3)]
    assert trees.plan(paths, ["a"] * 3, range(3)) == [Tree((0, 1, 2), (0, 0, 0), (0, 3, 4), 5 + 3 + 2)]


def test_a_path_that_begins_another_costs_nothing() -> None:
    assert trees.plan([path([1, 5, 6, 7, 2], 3), path([1, 5, 6], 2)], ["a"] * 2, range(2)) == [
        Tree((0, 1), (0, 0), (0, 3), 5)
    ]


def test_what_is_hidden_or_stands_elsewhere_is_not_shared() -> None:
    plain = path([1, 5, 6, 7, 2], 3)
    assert plain.common(path([1, 5, 6, 7, 2], 3, hidden=(2,))) == 2
    assert (
        plain.common(Path(plain.input_ids, plain.targets, plain.positions + np.array([0, 0, 0, 1, 1]), plain.seen)) == 3
    )


def test_prompts_that_are_tokenized_differently_share_what_is_equal() -> None:
    paths = [path([1, 5, 6, 7, 2], 3), path([1, 4, 6, 8, 2], 3)]
    assert trees.plan(paths, ["a", "a"], [0, 1])[0].forks == (0, 1)


def test_other_prompts_begin_other_rows_and_skipped_items_do_not_count() -> None:
    paths = [path([1, 5, 6, 7, 2], 3) for _ in range(4)]
    found = trees.plan(paths, ["a", "a", "b", "a"], [0, 2, 3])
    assert [tree.members for tree in found] == [(0,), (2,), (3,)]


def test_rows_do_not_grow_without_end() -> None:
    paths = [path([*range(100, 115), *range(200 + 100 * k, 275 + 100 * k)], 15) for k in range(7)]
    found = trees.plan(paths, ["a"] * 7, range(7))
    assert [len(tree.members) for tree in found] == [2, 2, 2, 1]
    assert all(tree.length == 15 + 75 * len(tree.members) for tree in found)
    long = [path([*range(100, 800), *range(1000 * k, 1000 * k + 100)], 700) for k in range(1, 5)]
    assert len(trees.plan(long, ["a"] * 4, range(4))) == 1  # a long prompt is worth sharing


def test_a_branch_that_shares_next_to_nothing_goes_alone() -> None:
    """The begin token of the windows of a text: attention over the others would cost more."""
    paths = [path([1, *range(10 * k, 10 * k + 9)], 2) for k in range(1, 4)]
    assert [tree.members for tree in trees.plan(paths, ["a"] * 3, range(3))] == [(0,), (1,), (2,)]


def test_a_path_grows_from_the_one_that_it_is_most_like() -> None:
    """Wrong answers share a beginning with the paraphrase and not with the answer that comes first."""
    paths = [path([1, 5, 6, 7, 2], 3), path([1, 5, 8, 9, 3, 2], 3), path([1, 5, 8, 9, 4, 2], 3)]
    (tree,) = trees.plan(paths, ["a"] * 3, range(3))
    assert tree == Tree((0, 1, 2), (0, 0, 1), (0, 2, 4), 5 + 4 + 2)
    assert [places.tolist() for places in tree.places(paths)] == [
        [0, 1, 2, 3, 4],
        [0, 1, 5, 6, 7, 8],
        [0, 1, 5, 6, 9, 10],
    ]


def test_what_comes_after_the_last_prediction_is_not_read() -> None:
    needed = path([1, 5, 6, 7, 2], 3).needed()
    assert needed.input_ids.tolist() == [1, 5, 6, 7]
    assert needed.targets.tolist() == [-100, -100, 7, 2]
    assert len(path([1, 5, 6], 3).needed()) == 0


def test_one_may_look_at_what_came_before_unless_it_is_hidden() -> None:
    looks = trees._may_look(path([1, 5, 6, 7, 2], 3, hidden=(1,)), 3)
    assert looks.astype(int).tolist() == [[1, 0, 1, 1, 0], [1, 0, 1, 1, 1]]


def test_states_of_a_branch_are_those_of_its_path_alone() -> None:
    lm = tiny.small_lm()
    paths = [path([1, 5, 6, 7, 2], 3), path([1, 5, 8, 9, 3, 2], 3), path([1, 5, 8, 9, 4, 2], 3, hidden=(1,))]
    grown = trees.plan(paths, ["a"] * 3, range(3))
    assert [tree.members for tree in grown] == [(0, 1, 2)]
    alone = [Tree((k,), (0,), (0,), len(paths[k])) for k in range(3)]
    with torch.no_grad():
        (together, targets), (apart, expected) = (trees.hidden(lm, paths, some) for some in (grown, alone))
    assert targets.tolist() == expected.tolist()
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_a_token_that_may_look_at_nothing_looks_at_itself() -> None:
    mask = trees._mask(torch.zeros(1, 2, 2, dtype=torch.bool), torch.float32)[0, 0] == 0
    assert mask.tolist() == [[True, False], [False, True]]


def test_models_with_windows_or_flash_kernels_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny.small_lm()
    config = lm.model.config
    assert trees.usable(lm)
    monkeypatch.setattr(config, "_attn_implementation_internal", "flash_attention_2")
    assert not trees.usable(lm)
    monkeypatch.undo()
    monkeypatch.setattr(config, "sliding_window", 64, raising=False)
    assert not trees.usable(lm)
