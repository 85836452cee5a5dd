"""A score from attention that is less sharp: which tokens the model then no longer knows. Prepared before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge
from torch import Tensor

from expunge.context import Context, Preparation, Scores, looked_up
from expunge.core import NOTHING, Forward, Needs, State
from expunge.registry import Positive, Share, method


@method("scorer", "attention-gap")
@dataclass(frozen=True)
class AttentionGap:
    """max(0, log p - log p_smoothed) of each token, in nats: how much its loss rises under smoothed attention.

    Smoothed is the same model with the softmax of its attention at temperature `attention`, in the first `layers` share
    of its layers. `signed` keeps what falls too. Factual tokens rise far more than function words.

    Source: ours, from what ASU (ICLR 2026, arXiv 2603.01285) reports of its teacher; 2.4 is the middle of its range.
    Relations: `kl:attention=2.4` teaches that model's predictions; `masking` hides a part of the context altogether.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]], targets=[0], static={"attention-gap": [1.5]})
    >>> AttentionGap()(f, None).tolist()
    [[1.5, 0.0]]
    """

    attention: Positive = 2.4
    layers: Share = 1.0
    signed: bool = False
    refresh: Annotated[int, Ge(0)] = 0

    @property
    def needs(self) -> Needs:
        return NOTHING

    @property
    def preparation(self) -> Preparation:
        return Preparation(reads=Needs(), passes=1.0, refresh=self.refresh)

    def prepare(self, context: Context) -> list[Scores]:
        plain = context.read(context.passages, Needs(), _logp)
        smoothed = context.read(context.passages, Needs(), _logp, attention=(self.attention, self.layers))
        return [a - b if self.signed else np.maximum(a - b, 0) for a, b in zip(plain, smoothed, strict=True)]

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return looked_up(self, forward.batch)


def _logp(forward: Forward) -> Tensor:
    return forward.policy.logp
