"""The delta-score by hand: which tokens are hidden, and how much of the rest's loss that changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge.core import IGNORE
from expunge.scorers.perturbed import Delta
from tests.scorers.test_attribution import QUESTION, Told, language_model, tables


def test_each_token_of_the_first_half_is_hidden_from_the_second() -> None:
    told = Told([QUESTION])  # a log-probability is minus the number of tokens that may be seen
    (found,) = Delta().prepare(told)
    assert found.tolist() == [2.0, 2.0, 0.0, 0.0], "one token fewer, at the two tokens of the rest"
    assert [np.flatnonzero(p.hidden).tolist() for p in told.seen] == [[], [5], [6]]
    assert [p.scored.tolist() for p in told.seen] == [[4, 5, 6, 7], [6, 7], [6, 7]]


@pytest.mark.parametrize(("prefix", "tried"), [(0.0, 0), (0.3, 2), (1.0, 3)])
def test_something_is_left_to_look_at(prefix: float, tried: int) -> None:
    told = Told([QUESTION])
    (found,) = Delta(prefix=prefix).prepare(told)
    assert len(told.seen) == 1 + tried
    assert len(found) == 4


def test_it_is_what_a_model_says_that_may_not_attend_to_the_token() -> None:
    lm = language_model("llama", max_position_embeddings=128)
    made = tables(lm, "delta")
    item = made.encoded["forget"][0]
    found = made.fill("forget")[0].static["delta"]
    at = np.flatnonzero(item.targets != IGNORE)
    split = -(-len(at) // 2)

    def loss(hidden: int | None) -> float:
        mask = torch.ones(1, len(item), dtype=torch.long)
        if hidden is not None:
            mask[0, hidden] = 0
        with torch.no_grad():
            places = torch.arange(len(item))[None]
            out = lm.model(input_ids=torch.from_numpy(item.input_ids)[None], attention_mask=mask, position_ids=places)
        logp = torch.log_softmax(out.logits[0], -1)
        return -sum(float(logp[t, item.targets[t]]) for t in at[split:])

    expected = [abs(loss(int(t) + 1) - loss(None)) for t in at[:split]]
    assert found[at[:split]].tolist() == pytest.approx(expected, abs=1e-4)
    assert found[at[split:]].tolist() == [0.0] * (len(at) - split)
