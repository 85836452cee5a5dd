"""Encoded records as one padded batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from expunge.core import IGNORE, Batch
from expunge.data.encode import Encoded


def collate(items: Sequence[Encoded], pad_id: int, draws: Sequence[int] | None = None) -> Batch:
    """The items as a `Batch`, padded on the right to the longest of them.

    The attention mask comes from lengths: `pad_id` may be the id of a real token. A static score that only some items
    have is 0 in the others. `draws` are the per-row seeds.

    >>> import numpy as np
    >>> def item(*ids):
    ...     targets = np.array([*ids[1:], -100])
    ...     return Encoded("r", np.array(ids), targets, np.zeros((len(ids), 2), np.int32), {})
    >>> batch = collate([item(5, 2), item(5, 6, 2)], pad_id=2)
    >>> batch.input_ids.tolist(), batch.attention_mask.sum(1).tolist(), batch.targets.tolist()
    ([[5, 2, 2], [5, 6, 2]], [2, 3], [[2, -100, -100], [6, 2, -100]])
    """
    if not items:
        raise ValueError("a batch needs at least one item")
    if draws is not None and len(draws) != len(items):
        raise ValueError(f"{len(items)} items but {len(draws)} draws")
    shape = (len(items), max(map(len, items)))
    ids = np.full(shape, pad_id, np.int64)
    targets = np.full(shape, IGNORE, np.int64)
    mask = np.zeros(shape, np.bool_)
    names = sorted({name for item in items for name in item.static})
    static = {name: np.zeros(shape, np.float32) for name in names}
    for row, item in enumerate(items):
        ids[row, : len(item)] = item.input_ids
        targets[row, : len(item)] = item.targets
        mask[row, : len(item)] = True
        for name, score in item.static.items():
            static[name][row, : len(item)] = score
    return Batch(
        input_ids=torch.from_numpy(ids),
        targets=torch.from_numpy(targets),
        attention_mask=torch.from_numpy(mask),
        ids=tuple(item.id for item in items),
        static={name: torch.from_numpy(score) for name, score in static.items()},
        draws=None if draws is None else torch.tensor(draws, dtype=torch.int64),
    )


def budgeted(lengths: Sequence[int], indices: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Groups of `indices`, the longest first, whose padded size is at most `token_budget` tokens.

    No row is shorter than two thirds of the longest of its group, so that few sequences are not mostly padding.
    """
    batch: list[int] = []
    for index in sorted(indices, key=lambda i: -lengths[i]):
        longest = lengths[batch[0]] if batch else 0
        if batch and (longest * (len(batch) + 1) > token_budget or 3 * lengths[index] < 2 * longest):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
