"""Statistics of the frozen reference model: one forward pass a record, then from memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from expunge.core import Batch, Needs, TokenStats, scatter
from expunge.fused import ReferenceRows
from expunge.lm import Scored

_KEPT = ("logp", "label_logit", "lse")


@dataclass
class Reference:
    """A frozen model beside the policy. `stats` remembers the scalars of every record it has seen; `rows` does not.

    Records are told apart by id and scored tokens, so a record that was cut differently is computed anew.
    """

    module: Scored
    seen: dict[tuple[str, int, int], Tensor] = field(default_factory=dict)

    def stats(self, batch: Batch) -> TokenStats:
        """`logp`, `label_logit`, `lse` (B, T) of the batch under the reference, without gradient; `top1` is not kept."""
        keys = [_key(batch, row) for row in range(len(batch))]
        missing = [row for row, key in enumerate(keys) if key not in self.seen]
        if missing:
            self._compute(_take(batch, missing), [keys[row] for row in missing])
        mask = batch.mask
        rows = torch.cat([self.seen[key] for key in keys], dim=1).to(batch.targets.device)
        values = {name: scatter(rows[i], mask) for i, name in enumerate(_KEPT)}
        return TokenStats(**values, top1=torch.zeros_like(mask))

    def rows(self, batch: Batch, needs: Needs) -> ReferenceRows | None:
        """Final hidden states for the vocabulary maps of `needs`, or None if none of them reads the reference."""
        if not any(m.reads_reference for m in needs.vocab):
            return None
        return self.module.reference_rows(batch, needs)

    def _compute(self, batch: Batch, keys: list[tuple[str, int, int]]) -> None:
        with torch.no_grad():
            stats = self.module(batch, Needs())
        for row, key in enumerate(keys):
            scored = batch.mask[row]
            self.seen[key] = torch.stack([getattr(stats, name)[row, scored] for name in _KEPT]).cpu()


def _key(batch: Batch, row: int) -> tuple[str, int, int]:
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
