"""Which records a training reads in which step, how many steps there are, and how large each is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from expunge import ranks
from expunge.core import Side
from expunge.data.encode import Encoded
from expunge.recipe import Train
from expunge.sampling import Sampler


def schedule(
    settings: Train, sides: Mapping[Side, Sequence[Encoded]], seed: int, anchor: Side = "forget"
) -> tuple[Sampler, int]:
    """Which records come in which step, and how many steps there are."""
    sizes: dict[str, int] = {side: len(items) for side, items in sides.items()}
    lengths = [len(item) for item in sides[anchor]] if settings.group_by_length else None
    batch, accumulate = settings.per_device_train_batch_size, settings.gradient_accumulation_steps
    sampler = Sampler(anchor, sizes, batch, accumulate * ranks.here().size, seed, lengths)
    epochs = math.ceil(settings.num_train_epochs * sampler.steps_per_epoch)
    return sampler, settings.max_steps if settings.max_steps > 0 else epochs


def scheduled(
    settings: Train, sides: Mapping[Side, Sequence[Encoded]], seed: int, anchor: Side = "forget"
) -> dict[Side, list[Encoded]]:
    """The records of each side that training will read: all anchors, and of the others those that are drawn."""
    sampler, total = schedule(settings, sides, seed, anchor)
    drawn: dict[str, set[int]] = {side: set() for side in sides}
    for step in range(total):
        for chosen in sampler.micro_batches(step):
            for side, indices in chosen.items():
                drawn[side].update(indices)
    return {
        side: list(items) if side == anchor else [items[i] for i in sorted(drawn[side])]
        for side, items in sides.items()
    }


def learning_rate(settings: Train, step: int, total: int, steps_per_epoch: int) -> float:
    """The step size of step `step` (from 0), as transformers' schedules compute it.

    >>> [learning_rate(Train(learning_rate=1.0, warmup_steps=1), step, 3, 1) for step in range(3)]
    [0.0, 1.0, 0.5]
    """
    warmup = settings.warmup_steps or math.ceil(settings.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return settings.learning_rate * step / max(1, warmup)
    left = (total - step) / max(1, total - warmup)
    if settings.lr_scheduler_type == "constant":
        return settings.learning_rate
    if settings.lr_scheduler_type == "cosine":
        return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (1 - left)))
    return settings.learning_rate * max(0.0, left)
