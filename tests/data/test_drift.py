"""Sets that differ in their words are told apart; sets that differ in names alone are not."""

from __future__ import annotations

import numpy as np

from expunge.data import drift

NOUNS = ("river", "harbour", "teacher", "garden", "winter", "letter", "bridge", "market")


def texts(seed: int, people: int = 12, *, style: str = "") -> tuple[list[str], list[str]]:
    """Sentences about people whose names nobody else has, and whom each is about."""
    rng = np.random.default_rng(seed)
    rows, subjects = [], []
    for person in range(people):
        name = f"name{seed}x{person}"
        for _ in range(5):
            rows.append(f"{name} saw the {rng.choice(NOUNS)} and the {rng.choice(NOUNS)}{style}")
            subjects.append(name)
    return rows, subjects


def auc(first: tuple[list[str], list[str]], second: tuple[list[str], list[str]]) -> float:
    one, two = drift.separation(first[0], second[0], first[1], second[1])
    return float(((one[:, None] > two) + 0.5 * (one[:, None] == two)).mean())


def test_names_alone_separate_nothing() -> None:
    assert 0.35 < auc(texts(1), texts(2)) < 0.65


def test_a_turn_of_phrase_separates_everything() -> None:
    assert auc(texts(1), texts(2, style=", as the paper reported in May")) == 1.0


def test_a_single_subject_leaves_nothing_to_learn_from() -> None:
    one, two = drift.separation(["a cat", "a cat"], ["a dog"], ["x", "x"], ["y"])
    assert one.tolist() == [0.0, 0.0]
    assert two.tolist() == [0.0]
