"""Influence: the cosine of whole gradients, taken by autograd, with its sign turned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge.core import IGNORE
from expunge.data.encode import Encoded
from expunge.errors import MethodError
from expunge.factors import last_projection
from tests.scorers.test_attribution import RECORDS, language_model, tables


def test_it_is_minus_the_cosine_of_the_gradients() -> None:
    lm = language_model("llama", max_position_embeddings=128)
    made = tables(lm, "influence")
    items = made.encoded["forget"]
    made.encoded, made.records = {"forget": items[:2], "retain": items[1:]}, {"forget": RECORDS, "retain": RECORDS}
    found = made.fill("forget")
    weight: torch.Tensor = last_projection(lm.model).weight  # type: ignore[assignment]

    def losses(item: Encoded) -> list[torch.Tensor]:
        ids = torch.from_numpy(item.input_ids)[None]
        logp = torch.log_softmax(lm.model(input_ids=ids).logits[0], -1)
        at = np.flatnonzero(item.targets != IGNORE)
        return [-logp[t, item.targets[t]] for t in at]

    (retain,) = torch.autograd.grad(torch.stack([x for item in items[1:] for x in losses(item)]).sum(), weight)
    for item, scored in zip(items[:2], found, strict=True):
        expected = []
        for loss in losses(item):
            (g,) = torch.autograd.grad(loss, weight, retain_graph=True)
            expected.append(-float((g * retain).sum() / (g.norm() * retain.norm())))
        assert scored.static["influence"][item.targets != IGNORE].tolist() == pytest.approx(expected, abs=1e-4)


def test_without_retain_records_it_is_refused() -> None:
    lm = language_model("llama", max_position_embeddings=128)
    with pytest.raises(MethodError, match="compares with retain records"):
        tables(lm, "influence").fill("forget")
