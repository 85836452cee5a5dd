"""Attention's gap: the rise of each token's loss under smoothed attention, as the smoothed model gives it."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.attention import smoothed
from expunge.core import IGNORE
from tests.scorers.test_attribution import language_model, tables


@pytest.mark.parametrize(("more", "layers"), [("", 1.0), (",layers=0.5", 0.5)])
def test_it_is_what_the_smoothed_model_says_otherwise(more: str, layers: float) -> None:
    lm = language_model("llama", max_position_embeddings=128)
    spec = f"attention-gap:attention=2.0{more}"

    def read(name: str) -> np.ndarray:
        return np.concatenate([i.static[name][i.targets != IGNORE] for i in tables(lm, name).fill("forget")])

    plain = read("frozen:score=surprisal")
    with smoothed(lm.model, (2.0, layers)):
        blurred = read("frozen:score=surprisal")
    np.testing.assert_allclose(read(f"{spec},signed=True"), blurred - plain, atol=1e-5)
    found = read(spec)
    np.testing.assert_allclose(found, np.maximum(blurred - plain, 0), atol=1e-5)
    assert found.max() > 0.01
    assert (blurred < plain).any(), "some fall, and score 0"
