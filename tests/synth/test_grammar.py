"""Patterns, marks and dice: worked by hand."""

from __future__ import annotations

import pytest

from expunge.synth.grammar import Dice, Mark, Marked, choose, fill, join, parse, render, text_of

LISTS = {"town": ("Ulm", "Ely"), "pet": ("a {animal} named Bo",), "animal": ("cat",), "aside": ("{name} says: ",)}


def test_dice_draw_the_same_on_every_platform() -> None:
    dice = Dice(0, "golden")
    assert [dice.below(1000) for _ in range(6)] == [524, 791, 801, 490, 707, 742]
    assert Dice("a", 1).order(8) == Dice("a", 1).order(8)
    assert Dice("a", 1).order(50) != Dice("a1").order(50)


def test_dice_are_fair_enough() -> None:
    dice = Dice("fair")
    counts = [0] * 6
    for _ in range(6000):
        counts[dice.below(6)] += 1
    assert min(counts) > 850
    assert max(counts) < 1150


def test_slots_are_marked_where_they_stand() -> None:
    pieces = choose("in {town}, {name} owns {pet}", Dice(1), {**LISTS, "town": ("Ulm",)})
    marked = fill(pieces, {"name": "Ann"})
    assert marked.text == "in Ulm, Ann owns a cat named Bo"
    assert marked.marks == (Mark("town", 3, 6), Mark("name", 8, 11), Mark("pet", 17, 31), Mark("animal", 19, 22))
    assert text_of(pieces, {"name": "Ann"}) == marked.text


def test_an_aside_may_have_open_slots_of_its_own() -> None:
    assert render("{aside}yes", Dice(1), LISTS, {"name": "Ann"}) == Marked("Ann says: yes", (Mark("name", 0, 3),))


def test_marks_of_a_filled_text_move_with_it() -> None:
    inner = render("{pet}!", Dice(1), LISTS)
    outer = render("see {it} {it}", Dice(1), {}, {"it": inner})
    assert [outer.text[start:end] for start, end in outer.ranges("animal")] == ["cat", "cat"]
    assert outer.ranges("it") == ((4, 19), (20, 35))
    assert join([inner, inner], " / ").ranges("animal") == ((2, 5), (20, 23))


@pytest.mark.parametrize(("gender", "text"), [(0, "she and her cat"), (1, "he and his cat")])
def test_gender_is_no_matter_of_dice(gender: int, text: str) -> None:
    assert {render("<she|he> and <her|his> cat", Dice(k), {}, gender=gender).text for k in range(5)} == {text}


def test_every_choice_comes_up_and_empty_ones_count() -> None:
    texts = {render("a[|b|[c|d]]", Dice(k), {}).text for k in range(60)}
    assert texts == {"a", "ab", "ac", "ad"}


def test_a_backslash_keeps_brackets() -> None:
    assert render(r"x\[0\] -\> \{\}", Dice(1), {}).text == "x[0] -> {}"


@pytest.mark.parametrize("pattern", ["a [b", "a {b", "<a|b", "a ]", "a [b|c>"])
def test_brackets_that_do_not_match_are_an_error(pattern: str) -> None:
    if pattern == "a ]":
        assert parse(pattern) == ("a ]",)  # outside of a choice it is text
        return
    with pytest.raises(ValueError, match="not closed"):
        parse(pattern)
