"""TNPO's weights against the published formula, written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge import api, registry
from expunge.errors import MethodError
from expunge.scorers.relative import TNPO
from expunge.testing import forward_from_probabilities

P = np.array([0.9, 0.5, 0.05, 1e-6, 1.0])
BEFORE = np.array([0.9, 0.9, 0.05, 0.8, 1e-6])


@pytest.mark.parametrize(("spec", "beta", "alpha"), [("tnpo", 4, 0), ("tnpo:alpha=1.5", 4, 1.5), ("tnpo:beta=2", 2, 0)])
def test_the_weight_is_the_published_one(spec: str, beta: float, alpha: float) -> None:
    rows, before = ([[p, 1 - p] for p in values] for values in (P, BEFORE))
    forward = forward_from_probabilities(rows, targets=[0] * 5, reference=before)
    found = registry.build("scorer", spec)(forward, None)[0]
    expected = 2 * P ** (beta + alpha) / (P**beta + BEFORE**beta + 1e-5)
    np.testing.assert_allclose(found[:-1].numpy(), expected, rtol=1e-4, atol=1e-12)
    assert found[-1] == 0, "nothing is scored there"


def test_a_sure_token_weighs_1_at_the_start_and_less_as_it_is_forgotten() -> None:
    rows = [[p, 1 - p] for p in (1.0, 0.8, 0.4, 0.1)]
    forward = forward_from_probabilities(rows, targets=[0] * 4, reference=[[1.0, 0.0]] * 4)
    found = TNPO()(forward, None)[0, :4].tolist()
    assert found[0] == pytest.approx(1, abs=1e-5)
    assert found == sorted(found, reverse=True)
    assert found[-1] < 1e-3


def test_for_other_trainers_it_needs_the_references_logits() -> None:
    logits, labels = torch.zeros(1, 3, 2), torch.tensor([[-100, 1, 0]])
    with pytest.raises(MethodError, match="Give reference_logits"):
        api.token_weights(logits, labels, score="tnpo", select="raw")
    found = api.token_weights(logits, labels, score="tnpo:beta=1", select="raw", reference_logits=logits)
    assert found.tolist() == [[0.0, pytest.approx(1, abs=1e-4), pytest.approx(1, abs=1e-4)]]
