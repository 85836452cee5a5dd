"""A score from gradients: which tokens can be forgotten without harm to the retain set. Prepared before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from expunge.context import Context, Preparation, Scores, looked_up
from expunge.core import NOTHING, Forward, Needs, State
from expunge.registry import method


@method("scorer", "influence")
@dataclass(frozen=True)
class Influence:
    """-cos(grad l_i, grad L_r) on the last feed-forward projection: high where forgetting harms retaining least.

    In [-1, 1], so it goes through `top`, `threshold` or `softmax`. l_i is the token's loss, L_r that of all answer
    tokens of `records` retain records, evenly taken from them all. The gradient of one token there is an outer product
    of two vectors, so that a pass over the records with the gradient of their last layer's end is enough. The run needs
    retain records.

    Source: ours; a token's form of the G-effect (Wang et al., ICLR 2025, arXiv 2502.19301), of which ATWU
    (arXiv 2606.06320) learns a surrogate.
    Relations: `learned` finds such tokens while it trains.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]], targets=[0], static={"influence": [-0.25]})
    >>> Influence()(f, None).tolist()
    [[-0.25, 0.0]]
    """

    records: Annotated[int, Ge(1)] = 64
    refresh: Annotated[int, Ge(0)] = 0

    @property
    def needs(self) -> Needs:
        return NOTHING

    @property
    def preparation(self) -> Preparation:
        return Preparation(passes=2.0, retain=True, refresh=self.refresh)

    def prepare(self, context: Context) -> list[Scores]:
        retained = context.retained
        chosen = [retained[i] for i in np.unique(np.linspace(0, len(retained) - 1, self.records).round().astype(int))]
        whole = torch.zeros(())
        for _, deltas, inputs in context.factors(chosen):
            whole = whole + deltas.T @ inputs
        out = [np.zeros(len(passage.scored), np.float32) for passage in context.passages]
        for place, deltas, inputs in context.factors(context.passages):
            length = deltas.norm(dim=-1) * inputs.norm(dim=-1) * whole.norm()
            inner = ((deltas @ whole) * inputs).sum(-1)
            out[place] = torch.where(length > 0, -inner / length.clamp(min=1e-30), 0.0).numpy().clip(-1, 1)
        return out

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return looked_up(self, forward.batch)
