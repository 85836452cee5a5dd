"""Statistics of the frozen reference model: one forward pass a record, then from memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from expunge.core import Batch, Needs, TokenStats, scatter
from expunge.data.collate import collate
from expunge.data.encode import Encoded
from expunge.errors import TrainingError
from expunge.fused import ReferenceRows
from expunge.lm import Scored

_KEPT = ("logp", "label_logit", "lse")
_ROWS = 16


@dataclass
class Reference:
    """A frozen model beside the policy. `stats` remembers the scalars of every record it has seen; `rows` does not.

    Records are told apart by id and scored tokens, so a record that was cut differently is computed anew. Without a
    module (as `remembered` makes it) only what was seen can be asked for.
    """

    module: Scored | None
    seen: dict[tuple[str, int, int], Tensor] = field(default_factory=dict)

    def stats(self, batch: Batch) -> TokenStats:
        """`logp`, `label_logit`, `lse` (B, T) of the batch under the reference, without gradient; no `top1`."""
        keys = [_key(batch, row) for row in range(len(batch))]
        missing = [row for row, key in enumerate(keys) if key not in self.seen]
        if missing:
            self._compute(_take(batch, missing), [keys[row] for row in missing])
        mask = batch.mask
        rows = torch.cat([self.seen[key] for key in keys], dim=1).to(batch.targets.device)
        logp, label_logit, lse = (scatter(values, mask) for values in rows)
        return TokenStats(logp, label_logit, lse, top1=torch.zeros_like(mask))

    def rows(self, batch: Batch, needs: Needs) -> ReferenceRows | None:
        """Final hidden states for the vocabulary maps of `needs`, or None if none of them reads the reference."""
        if not any(m.reads_reference for m in needs.vocab):
            return None
        return self._asked(batch).reference_rows(batch, needs)

    def _asked(self, batch: Batch) -> Scored:
        if self.module is None:
            raise TrainingError(
                f"the reference's numbers were asked for records it never saw: {', '.join(batch.ids[:4])}"
            )
        return self.module

    def _compute(self, batch: Batch, keys: list[tuple[str, int, int]]) -> None:
        module = self._asked(batch)
        with torch.no_grad():
            stats = module(batch, Needs())
        for row, key in enumerate(keys):
            scored = batch.mask[row]
            self.seen[key] = torch.stack([getattr(stats, name)[row, scored] for name in _KEPT]).cpu()


def remembered(module: Scored, items: Sequence[Encoded], pad_id: int) -> Reference:
    """The scalars of `module`, as it is now, for these records: it may be trained afterwards, and no copy is kept."""
    out = Reference(module)
    training = module.training
    module.eval()
    for first in range(0, len(items), _ROWS):
        out.stats(collate(items[first : first + _ROWS], pad_id).to(module.model.device))
    module.train(training)
    out.module = None
    return out


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
