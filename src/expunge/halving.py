"""Micro-batches that do not fit into memory: told from other faults, and parted into smaller ones.

Denominators are those of the whole step, so that parts add up to the gradient of the whole, to rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch

from expunge.core import Side
from expunge.errors import TrainingError
from expunge.terms import Term, coupled

Micro = Mapping[str, Sequence[int]]
_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """True for what torch and Python raise where an allocation fails, on a GPU or a CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def parted(micro: Sequence[Micro], parts: int) -> list[dict[Side, list[int]]]:
    """Each micro-batch in so many parts of nearly one size, as far as it has records.

    >>> parted([{"forget": [0, 1, 2], "retain": [7, 8, 9]}], 2)
    [{'forget': [0, 1], 'retain': [7, 8]}, {'forget': [2], 'retain': [9]}]
    """
    out: list[dict[Side, list[int]]] = []
    for chosen in micro:
        count = len(next(iter(chosen.values())))
        pieces = min(parts, count)
        ends = [-(-count * k // pieces) for k in range(pieces + 1)]
        out += [
            {side: list(rows[start:end]) for side, rows in chosen.items()}  # type: ignore[misc]
            for start, end in itertools.pairwise(ends)
        ]
    return out


def require_halvable(terms: Sequence[Term], largest: int, processes: int, error: BaseException) -> None:
    """TrainingError, from `error`, if a micro-batch whose largest part has so many records cannot be parted further."""
    why = ""
    if largest <= 1:
        why = "one record alone does not fit. Set train.gradient_checkpointing=true or a smaller data.max_length"
    elif found := coupled(terms):
        why = f"{found[0]} couples the records of a micro-batch. Set a smaller train.per_device_train_batch_size"
    elif processes > 1:
        why = "several processes must agree on it. Set a smaller train.per_device_train_batch_size"
    if why:
        raise TrainingError(f"out of memory, and the micro-batch cannot be parted: {why}") from error
