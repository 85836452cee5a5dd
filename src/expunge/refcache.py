"""Statistics of the frozen reference model: one forward pass a record, then from memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from expunge.core import At, Batch, Needs, Side, TokenStats, scatter
from expunge.data.collate import collate
from expunge.data.encode import Encoded
from expunge.errors import MethodError, TrainingError
from expunge.fused import Head, ReferenceRows
from expunge.lm import Scored, head_of

_KEPT = ("logp", "label_logit", "lse")
_ROWS = 16
Place = tuple[int | float, At]
Places = frozenset[Place]
Key = tuple[str, int, int]
Mode = Literal["auto", "cache", "live", "adapter-off"]
Kept = Literal["nothing", "numbers", "copied", "adapter off"]
"""What is kept of the reference: its numbers at the tokens that terms read, a second model, or the policy's base."""
FINAL: Place = (-1, "before")
"""The states that vocabulary maps read: with the head they are the reference's whole distributions again."""


@dataclass
class Reference:
    """A frozen model beside the policy. `stats` remembers the scalars of every record it has seen.

    Hidden states are computed each time while there is a module: kept for all records they may outweigh it. Without a
    module (as `remembered` makes it) only what was seen can be asked for, states too. With a `head`, the rows that
    vocabulary maps read are made of it and of states that were kept, without a forward pass. Records are told apart by
    id and scored tokens, so a record that was cut differently is computed anew.
    """

    module: Scored | None
    seen: dict[Key, Tensor] = field(default_factory=dict)
    states: dict[tuple[Key, Place], Tensor] = field(default_factory=dict)
    head: Head | None = None

    def stats(self, batch: Batch, hidden: Places = frozenset()) -> TokenStats:
        """`logp`, `label_logit`, `lse` (B, T) and the states `hidden` (B, T, D) of the batch under the reference.

        Without gradient. `top1` means nothing.
        """
        if hidden and self.module is not None:
            return self._computed(batch, hidden)
        keys = [_key(batch, row) for row in range(len(batch))]
        missing = [row for row, key in enumerate(keys) if key not in self.seen]
        if missing:
            self.remember(_take(batch, missing))
        mask = batch.mask
        rows = torch.cat([self.seen[key] for key in keys], dim=1).to(batch.targets.device)
        logp, label_logit, lse = (scatter(values, mask) for values in rows)
        if any((key, place) not in self.states for key in keys for place in hidden):
            self._asked(batch)
        kept = {place: torch.cat([self.states[(key, place)] for key in keys]) for place in hidden}
        states = {place: scatter(rows.to(mask.device), mask) for place, rows in kept.items()}
        return TokenStats(logp, label_logit, lse, top1=torch.zeros_like(mask), hidden=states)

    def remember(self, batch: Batch, hidden: Places = frozenset()) -> None:
        """Keeps the scalars and the states `hidden` of the batch's scored tokens, on the CPU."""
        found = self._computed(batch, hidden)
        for row in range(len(batch)):
            key, scored = _key(batch, row), batch.mask[row]
            self.seen[key] = torch.stack([getattr(found, name)[row, scored] for name in _KEPT]).cpu()
            self.states |= {(key, place): found.hidden[place][row, scored].cpu() for place in hidden}

    def rows(self, batch: Batch, needs: Needs) -> ReferenceRows | None:
        """Final hidden states for the vocabulary maps of `needs`, or None if none of them reads the reference."""
        if not any(m.reads_reference for m in needs.vocab):
            return None
        places = [(_key(batch, row), FINAL) for row in range(len(batch))]
        if self.head is None or _elsewhere(needs) or any(place not in self.states for place in places):
            return self._asked(batch).reference_rows(batch, needs)
        hidden = torch.cat([self.states[place] for place in places])
        return ReferenceRows(hidden.to(batch.targets.device), self.head)

    def _asked(self, batch: Batch) -> Scored:
        if self.module is None:
            raise TrainingError(
                f"the reference's numbers were asked for records it never saw: {', '.join(batch.ids[:4])}"
            )
        return self.module

    def _computed(self, batch: Batch, hidden: Places) -> TokenStats:
        module = self._asked(batch)
        with torch.no_grad():
            stats: TokenStats = module(batch, Needs(hidden=hidden))
        return stats


def to_keep(sides: Mapping[Side, Sequence[Encoded]], needs: Mapping[Side, Needs]) -> dict[Places, list[Encoded]]:
    """The records whose numbers the terms of each side read, by the hidden states that are wanted of them."""
    out: dict[Places, list[Encoded]] = {}
    for side, items in sides.items():
        final = frozenset({FINAL}) if needs[side].reference_rows else frozenset()
        if needs[side].any_reference:
            out.setdefault(needs[side].reference_hidden | final, []).extend(items)
    return out


def must_live(needs: Iterable[Needs]) -> bool:
    """True if rows of the reference are read that states of the scored tokens do not give: it must stay a model."""
    return any(one.reference_rows and _elsewhere(one) for one in needs)


def _elsewhere(needs: Needs) -> bool:
    return needs.everywhere or bool(needs.smoothing)


def bytes_of_states(items: Mapping[Places, Sequence[Encoded]], width: int) -> int:
    """What the hidden states to keep take in float32."""
    return 4 * width * sum(len(hidden) * sum(item.scored for item in chosen) for hidden, chosen in items.items())


@dataclass(frozen=True)
class Choice:
    """How the frozen reference is kept, and why so."""

    kept: Kept
    why: str


def choose(mode: Mode, *, live: bool, states: int | None, weights: int | None, adapter: bool) -> Choice:
    """How a reference is kept that some term reads. `states` and `weights`: bytes, None if not known.

    `live`: more is read of it than its scored tokens (`must_live`). `adapter`: the policy without its adapter is the
    reference. By itself, numbers are kept: a pass for each record and none after it; a model only where they do not
    serve, or would take more memory than it does. MethodError if numbers are asked for and do not serve.

    >>> choose("auto", live=False, states=4000, weights=1000, adapter=True).kept
    'adapter off'
    """
    model: Kept = "adapter off" if adapter else "copied"
    if mode == "live":
        return Choice("copied", "asked for")
    if mode == "adapter-off":
        return Choice("adapter off", "asked for")
    if live and mode == "cache":
        raise MethodError(
            "reference=cache keeps numbers of scored tokens, and a term reads more of the reference: every position, "
            f"or its attention smoothed. Set reference={'adapter-off' if adapter else 'live'}"
        )
    if live:
        return Choice(model, "a term reads more of it than its scored tokens")
    if mode == "cache":
        return Choice("numbers", "asked for")
    if states is not None and weights is not None and states > weights:
        return Choice(model, f"its states would take {states / 2**20:.0f} MB, its weights {weights / 2**20:.0f} MB")
    return Choice("numbers", "each record costs one pass, and none after it")


def remembered(module: Scored, items: Mapping[Places, Sequence[Encoded]], pad_id: int) -> Reference:
    """The scalars of `module`, as it is now, for these records: it may be trained afterwards, and no copy is kept.

    `items` are the records by the hidden states that are to be kept of them too.
    """
    out = Reference(module)
    training = module.training
    module.eval()
    for hidden, chosen in items.items():
        for first in range(0, len(chosen), _ROWS):
            out.remember(collate(chosen[first : first + _ROWS], pad_id).to(module.model.device), hidden)
    module.train(training)
    if any(FINAL in hidden for hidden in items):
        out.head = head_of(module.model).frozen()
    out.module = None
    return out


def _key(batch: Batch, row: int) -> Key:
    scored = batch.targets[row][batch.mask[row]]
    return batch.ids[row], len(scored), hash(tuple(batch.input_ids[row][batch.attention_mask[row]].tolist()))


def _take(batch: Batch, rows: list[int]) -> Batch:
    return replace(
        batch,
        input_ids=batch.input_ids[rows],
        targets=batch.targets[rows],
        attention_mask=batch.attention_mask[rows],
        ids=tuple(batch.ids[row] for row in rows),
        static={name: score[rows] for name, score in batch.static.items()},
        draws=None if batch.draws is None else batch.draws[rows],
        alternative=None,
    )
