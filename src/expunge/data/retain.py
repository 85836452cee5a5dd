"""A retain set out of the user's own training data, where none is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from expunge.data import overlap
from expunge.data.records import Record
from expunge.errors import DataError


def draw_retain(
    training: Sequence[Record],
    forget: Sequence[Record],
    *,
    size: int | None = None,
    seed: int = 0,
    exclude: Sequence[Record] = (),
    same_subjects: bool = False,
) -> list[Record]:
    """Up to `size` training records (all if None) that may be kept, in their order; their split is 'retain'.

    Left out: what the forget set or `exclude` (a holdout set) holds too, exactly or nearly, and records about a subject
    of the forget set unless `same_subjects`. Which ones are drawn follows from the seed and the order alone. What is
    kept is only as good as the training data given: knowledge that stands in none of them is not protected.
    """
    banned = [*forget, *exclude]
    keys = {overlap.key(record) for record in banned}
    near = {right.id for _, right, _ in overlap.near_duplicates(banned, training)}
    subjects = set() if same_subjects else {record.subject for record in forget if record.subject}
    kept = [
        record
        for record in training
        if overlap.key(record) not in keys and record.id not in near and record.subject not in subjects
    ]
    if not kept:
        raise DataError(
            f"none of the {len(training)} training records is left for the retain set: all of them are in the forget "
            "set, or about its subjects. Give data.retain, or more training records."
        )
    if size is not None and size < len(kept):
        chosen = np.random.default_rng([seed, len(kept)]).choice(len(kept), size, replace=False)
        kept = [kept[i] for i in sorted(chosen.tolist())]
    return [replace(record, split="retain") for record in kept]
