"""Controls: what a run puts in place of its weights to show that the choice of tokens matters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from expunge.core import Selector, Weights, random_scores

Control = Literal["none", "random", "shuffle", "invert", "grad-matched", "update-matched"]
MATCHED: tuple[Control, ...] = ("grad-matched", "update-matched")
"""Controls with weight 1 on every scored token, whose strength is matched to the method's elsewhere (`combine`)."""


def controlled(
    select: Selector, scores: Tensor, mask: Tensor, control: Control, draws: Callable[[int], torch.Generator]
) -> Weights:
    """The weights a control run uses in place of `select(scores, mask)`.

    `random`: scores drawn uniformly, through the same selector. `invert`: min + max - score of each sequence, through
    the same selector. `shuffle`: the true weights, permuted among the scored tokens of their sequence (same count, sum
    and histogram). `draws(row)` must return a generator that depends on the record only: the control stays on the same
    tokens through the run, as the method it controls for does. `grad-matched` and `update-matched`: uniform weights.
    """
    if control in MATCHED:
        return Weights.ones(mask)
    if control == "none":
        return select(scores, mask)
    if control == "random":
        return select(random_scores(mask, draws), mask)
    if control == "invert":
        low = torch.where(mask, scores, math.inf).amin(-1, keepdim=True)
        high = torch.where(mask, scores, -math.inf).amax(-1, keepdim=True)
        return select(torch.where(mask, low + high - scores, 0.0), mask)
    weights = select(scores, mask)
    value, chosen = weights.value.clone(), weights.mask.clone()
    for row in range(mask.shape[0]):
        where = mask[row].nonzero()[:, 0]
        order = where[torch.randperm(len(where), generator=draws(row)).to(where.device)]
        value[row, where], chosen[row, where] = weights.value[row, order], weights.mask[row, order]
    return Weights(value, chosen, flat=weights.flat)
