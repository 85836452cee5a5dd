"""What a model's key words are worth along a path of weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from expunge.attacks import asking
from expunge.attacks.scene import Scene, Tell, row
from expunge.evals.reductions import Row
from expunge.lm import LM


def along(scene: Scene, lm: LM, places: Sequence[float], move: Callable[[float], str], tell: Tell) -> Iterator[Row]:
    """A row a record and place; `move` changes the weights of `lm` to those of a place, and names it."""
    encoder, records = scene.encoder(lm), scene.examined()
    for done, place in enumerate(places):
        with torch.no_grad():
            name = move(place)
        seen = asking.probabilities(lm, encoder, records, token_budget=scene.token_budget)
        yield from (row(record, name, seen[record.id]) for record in records)
        tell(done + 1, len(places))
