"""TIF's loss re-derived with plain loops over float64 arrays: what the vectorised objectives are compared with."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


def lpl(policy: Floats, reference: Floats, targets: Ints, unwanted: Bools, beta: float, *, batch: bool) -> float:
    """-(2/beta) log sigmoid(beta d): a mean over sequences, or (batch) of the mean d. Logits (B, T, V)."""
    falls = []
    for row in range(len(targets)):
        where = [t for t in range(targets.shape[1]) if unwanted[row, t]]
        if where:
            before = sum(reference[row, t, targets[row, t]] for t in where) / len(where)
            now = sum(policy[row, t, targets[row, t]] for t in where) / len(where)
            falls.append(before - now)
    if batch:
        falls = [sum(falls) / len(falls)]
    return sum(2 / beta * math.log1p(math.exp(-beta * d)) for d in falls) / len(falls)


def preserve(policy: Floats, targets: Ints, general: Bools, *, reduction: str) -> float:
    """Cross-entropy on the general tokens: 'sum' and 'sequence' over sequences, 'token' over tokens."""
    sums, counts = [], []
    for row in range(len(targets)):
        losses = [_nll(policy[row, t], int(targets[row, t])) for t in range(targets.shape[1]) if general[row, t]]
        if losses:
            sums.append(sum(losses))
            counts.append(len(losses))
    if reduction == "token":
        return sum(sums) / sum(counts)
    if reduction == "sequence":
        return sum(s / n for s, n in zip(sums, counts, strict=True)) / len(sums)
    return sum(sums) / len(sums)


def _nll(logits: Floats, target: int) -> float:
    top = float(logits.max())
    return math.log(sum(math.exp(float(z) - top) for z in logits)) + top - float(logits[target])
