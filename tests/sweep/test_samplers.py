"""Samplers by hand: every stratum once, grids that come out, TPE that says the same again."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from expunge.search import Range, Sweep
from expunge.sweep.samplers import Outcome, grid, suggest
from expunge.sweep.trials import Trial, choose


def test_a_range_reads_places_by_its_kind() -> None:
    assert [Range(choice=("a", "b", "c")).at(place) for place in (0.0, 0.34, 0.999)] == ["a", "b", "c"]
    assert [Range(whole=(2, 5)).at(place) for place in (0.0, 0.25, 0.999)] == [2, 3, 5]
    assert Range(log=(1e-4, 1e-2)).at(0.5) == pytest.approx(1e-3)
    assert Range(uniform=(1.0, 3.0)).at(0.25) == 1.5


@pytest.mark.parametrize(
    "wrong", [{}, {"log": (0, 1)}, {"log": (1, 1)}, {"choice": ("a",), "whole": (1, 2)}, {"uniform": (2, 1)}]
)
def test_ranges_that_say_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Range.model_validate(wrong)


def test_random_trials_fill_every_stratum_and_agree_between_arms() -> None:
    rate = Range(uniform=(0.0, 1.0))
    how = Sweep(trials=4, space={"rate": rate}, arm_space={"b": {"beta": rate}})
    alone = [suggest(how, "a", trial, (), seed=1) for trial in range(4)]
    both = [suggest(how, "b", trial, (), seed=1) for trial in range(4)]
    assert sorted(int(float(one["rate"]) * 4) for one in alone) == [0, 1, 2, 3]
    assert sorted(int(float(one["beta"]) * 4) for one in both) == [0, 1, 2, 3]
    assert [one["rate"] for one in alone] == [one["rate"] for one in both]
    assert alone != [suggest(how, "a", trial, (), seed=2) for trial in range(4)]


def test_a_grid_takes_every_combination_once() -> None:
    ranges = [Range(choice=("a", "b")), Range(uniform=(0.0, 1.0))]
    assert grid(ranges, 6) == [("a", 0.0), ("a", 0.5), ("a", 1.0), ("b", 0.0), ("b", 0.5), ("b", 1.0)]
    assert grid([Range(whole=(1, 3))], 3) == [(1,), (2,), (3,)]
    for trials, wrong in ((5, ranges), (4, [ranges[1], ranges[1]]), (2, [Range(whole=(1, 3))])):
        with pytest.raises(ValueError, match="does not come out"):
            grid(wrong, trials)


def test_the_choice_is_the_most_forgotten_of_those_that_keep_the_floor() -> None:
    def trial(number: int, forgotten: float | None, kept: float | None) -> Trial:
        return Trial("a", number, {}, "", forgotten, kept)

    tried = [trial(0, 0.4, 0.95), trial(1, 0.1, 0.90), trial(2, 0.0, 0.89), trial(3, None, None), trial(4, 0.1, 1.0)]
    assert [choose(tried, floor) for floor in (0.9, 0.95, 0.5)] == [tried[1], tried[4], tried[2]]
    assert choose(tried[2:4], 0.9) == tried[2]  # none keeps it: the one that kept most
    assert choose(tried[3:4], 0.9) is None


def test_tpe_is_a_function_of_seed_and_outcomes() -> None:
    pytest.importorskip("optuna", reason="needs the extra 'sweep'")
    how = Sweep(
        trials=9, sampler="tpe", space={"rate": Range(log=(1e-4, 1e-2)), "name": Range(choice=("a", "b"))},
        arm_space={}
    )  # fmt: skip

    def after(seed: int) -> list[Outcome]:
        """A run of trials with the optimum at 1e-3, and a floor that rates above 3e-3 break."""
        done: list[Outcome] = []
        for trial in range(how.trials):
            settings = suggest(how, "x", trial, done, seed)
            rate = float(settings["rate"])
            done.append(Outcome(settings, None if trial == 1 else abs(rate - 1e-3), rate - 3e-3))
        return done

    assert after(0) == after(0)
    assert after(0) != after(1)
    assert all(1e-4 <= float(one.settings["rate"]) <= 1e-2 for one in after(0))
