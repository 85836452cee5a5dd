"""Which record comes when: a pure function of seed, epoch and index."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge.sampling import Sampler, record_draw

SIZES = {"forget": 13, "retain": 5, "general": 100}


def sampler(batch: int = 4, accumulate: int = 1, seed: int = 7, lengths: list[int] | None = None) -> Sampler:
    return Sampler("forget", SIZES, batch, accumulate, seed, lengths)


def epoch(made: Sampler, number: int, side: str = "forget") -> list[int]:
    """All records of one side in an epoch, in order."""
    first = number * made.steps_per_epoch
    steps = range(first, first + made.steps_per_epoch)
    return [i for step in steps for micro in made.micro_batches(step) for i in micro[side]]


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 60),
    batch=st.integers(1, 9),
    accumulate=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    lengths=st.booleans(),
)
def test_every_epoch_is_a_permutation_of_the_anchors(
    size: int, batch: int, accumulate: int, seed: int, lengths: bool
) -> None:
    known = [(7 * i) % 11 for i in range(size)] if lengths else None
    made = Sampler("forget", {"forget": size, "retain": 3}, batch, accumulate, seed, known)
    for number in (0, 1, 5):
        assert sorted(epoch(made, number)) == list(range(size))
        steps = [made.micro_batches(number * made.steps_per_epoch + k) for k in range(made.steps_per_epoch)]
        assert all(len(micro) <= accumulate for micro in steps)
        assert all(0 < len(m["forget"]) <= batch and len(m["forget"]) == len(m["retain"]) for s in steps for m in s)
        full = [step for step in steps if sum(len(m["forget"]) for m in step) == batch * accumulate]
        assert len(full) >= len(steps) - 1, "only the last step of an epoch may be smaller"


def test_epochs_and_seeds_differ() -> None:
    orders = [epoch(sampler(), 0), epoch(sampler(), 1), epoch(sampler(seed=8), 0)]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_it_is_a_pure_function_of_the_step() -> None:
    before = np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state()  # noqa: NPY002
    first = [sampler(accumulate=2).micro_batches(k) for k in range(6)]
    again = [sampler(accumulate=2).micro_batches(k) for k in reversed(range(6))]
    assert first == again[::-1]
    assert np.random.get_state()[1].tolist() == before[0]  # noqa: NPY002
    assert random.getstate() == before[1]
    assert torch.get_rng_state().equal(before[2])


def test_order_and_partners_do_not_depend_on_how_steps_are_cut() -> None:
    for side in SIZES:
        orders = [epoch(sampler(batch, accumulate), 2, side) for batch, accumulate in ((1, 1), (4, 1), (2, 3), (13, 1))]
        assert all(order == orders[0] for order in orders)


def test_partners_are_drawn_with_equal_chances_and_apart_for_each_side() -> None:
    made = Sampler("forget", {"forget": 3000, "retain": 5, "general": 5}, 100, 1, 0)
    retain, general = epoch(made, 0, "retain"), epoch(made, 0, "general")
    counts = np.bincount(retain, minlength=5)
    assert counts.min() > 600 - 5 * 22  # 600 expected, deviation sqrt(3000 * 0.2 * 0.8) = 22
    assert counts.max() < 600 + 5 * 22
    assert retain != general
    assert epoch(made, 1, "retain") != retain


def test_an_epoch_has_its_steps_and_a_last_smaller_one() -> None:
    made = sampler(batch=4, accumulate=2)
    assert made.steps_per_epoch == 2
    assert [[len(m["forget"]) for m in made.micro_batches(k)] for k in range(2)] == [[4, 4], [4, 1]]
    assert [made.epoch_of(k) for k in range(5)] == [0, 0, 1, 1, 2]


def test_texts_of_like_length_share_a_step_where_asked_for() -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 100, 256)]
    wide, narrow = (Sampler("forget", {"forget": 256}, 8, 2, 3, known) for known in (None, lengths))

    def padding(made: Sampler) -> int:
        steps = [m["forget"] for k in range(made.steps_per_epoch) for m in made.micro_batches(k)]
        return sum(max(lengths[i] for i in chosen) * len(chosen) for chosen in steps)

    assert padding(narrow) < 0.75 * padding(wide)


@pytest.mark.parametrize(("seed", "name"), [(0, "forget-00001"), (2**32 - 1, "ü" * 50)])
def test_a_draw_is_a_63_bit_number_from_seed_and_name(seed: int, name: str) -> None:
    draw = record_draw(seed, name)
    assert 0 <= draw < 2**63
    assert draw == record_draw(seed, name)
    assert len({record_draw(seed, name), record_draw(seed ^ 1, name), record_draw(seed, name + "1")}) == 3
    torch.Generator().manual_seed(draw)


def test_a_draw_stays_what_it_was() -> None:
    """A changed draw changes every control run: this number may change only with a note on it."""
    assert record_draw(0, "forget-00000") == 900217196923182935
