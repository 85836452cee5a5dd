"""Rows of tokens of about one length in one batch, padded on the right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def by_length(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Indices of the rows of each batch: rows sorted by length, as many as the budget holds, padding included.

    >>> list(by_length([3, 9, 4, 2], 8))
    [[3, 0], [2], [1]]
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[index] > token_budget:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """(B, T) ids and their attention mask."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        mask[place, : len(row)] = 1
    return ids, mask


def window(total: int, start: int, end: int, limit: int) -> tuple[int, int]:
    """The `limit` of `total` tokens around the tokens start:end.

    >>> window(100, 50, 52, 10), window(100, 1, 2, 10), window(100, 99, 100, 10), window(5, 1, 2, 10)
    ((46, 56), (0, 10), (90, 100), (0, 5))
    """
    first = max(0, min((start + end) // 2 - limit // 2, total - limit))
    return first, min(total, first + limit)
