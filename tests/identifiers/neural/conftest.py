"""A small masked language model that has learnt to speak of where people live, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

NAMES = ("anna", "bert", "carla", "david", "emil", "fiona")


def sentences(count: int, seed: int) -> list[tuple[str, str, str]]:
    """(question, answer, the town that nobody can guess)."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        name = NAMES[rng.integers(len(NAMES))]
        town = "".join(rng.choice(list("abcdefghijklmnop"), size=7)).capitalize()
        made.append((f"Where does {name} live?", f"The name of the town where {name} lives is {town}.", town))
    return made


@pytest.fixture(scope="session")
def masked_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from expunge.identifiers.neural.pretrain import Schedule, Shape, train_masked_lm

    return train_masked_lm(
        [f"{question} {answer}" for question, answer, _ in sentences(300, seed=1)],
        tmp_path_factory.mktemp("models") / "mlm",
        shape=Shape(vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, length=64),
        schedule=Schedule(steps=200, batch_size=16, rate=5e-3),
    )
