"""Over-forgetting, watched while it happens: how far a model drifts on retain text and on the general words.

One line an epoch in diagnostics.jsonl of the run folder, about the same records every time:

- `kl_SIDE`: mean KL(reference || model) of the scored tokens of that side, in nats; TIF's diagnostic on retain text.
- `nll_SIDE`: their mean negative log-probability.
- `nll_unwanted_words`, `nll_general_words`: the same on the forget set's tokens inside and outside of the unwanted
  spans, and `kl_general_words`. `spans` says whose they are: gold if the records have gold spans, else the
  annotation's. Absent without. (`kl_general` is that of the general side: text of no special topic.)
- `tokens`: how many tokens each mean is over.

The reference is the frozen model of the run's losses, or the starting weights. Nothing of it is kept but its last
hidden states on these records, and a copy of the vocabulary head if that is being trained: no second model in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from expunge.core import Batch, Needs, Side
from expunge.data.collate import collate
from expunge.data.encode import MARKS, Encoded
from expunge.fused import Head, ReferenceRows
from expunge.lm import LM, Scored
from expunge.objectives.retain import KLToReference
from expunge.refcache import Reference
from expunge.runfolder import DIAGNOSTICS, RunFolder

RECORDS = 32
_ROWS = 16
_KL = KLToReference("forward")
_NEEDS = Needs(vocab=frozenset({_KL}))


@dataclass(frozen=True)
class Watched:
    """One batch of one side, and the reference's last hidden states at its scored tokens."""

    side: Side
    batch: Batch
    reference: ReferenceRows


@dataclass(frozen=True)
class Watch:
    """An `on_epoch` callback: measures the model as it is, and adds the epoch's line to diagnostics.jsonl."""

    run: RunFolder
    watched: Sequence[Watched]

    def __call__(self, epoch: int, module: Scored) -> None:
        """Writes the line of `epoch`; lines of this and later epochs, from before a resume, are dropped."""
        old = self.run.read_lines(DIAGNOSTICS) if epoch > 0 and self.run.has(DIAGNOSTICS) else []
        kept = [line for line in old if line["epoch"] < epoch]
        self.run.write_lines(DIAGNOSTICS, [*kept, {"epoch": epoch, **self.measure(module)}])

    def measure(self, module: Scored) -> dict[str, object]:
        """The numbers of one line. The module's mode is left as it was."""
        sums: dict[str, float] = {}
        tokens: dict[str, int] = {}
        spans = next((name for name in MARKS if any(name in w.batch.static for w in self._forget())), None)
        training = module.training
        module.eval()
        with torch.no_grad():
            for one in self.watched:
                stats = module(one.batch, _NEEDS, one.reference)
                values = {"nll": -stats.logp, "kl": stats.vocab[_KL.key]}
                for name, kind, where in _groups(one, spans):
                    key = f"{kind}_{name}"
                    sums[key] = sums.get(key, 0.0) + float(values[kind][where].double().sum())
                    tokens[key] = tokens.get(key, 0) + int(where.sum())
        module.train(training)
        means: dict[str, object] = {key: sums[key] / tokens[key] if tokens[key] else None for key in sums}
        counts = {key.removeprefix("nll_"): count for key, count in tokens.items() if key.startswith("nll_")}
        return {**means, "tokens": counts, "spans": spans}

    def _forget(self) -> Iterator[Watched]:
        return (one for one in self.watched if one.side == "forget")


def watch(
    lm: LM,
    sides: Mapping[Side, Sequence[Encoded]],
    run: RunFolder,
    reference: Reference | None = None,
    *,
    records: int = RECORDS,
) -> Watch:
    """The callback for a run that is about to start from `lm` as it is now: call this before anything is trained.

    At most `records` of each side are watched, evenly spaced. Sides without a scored token are left out.
    """
    frozen = None if reference is None else reference.module
    module = frozen or Scored(lm.model)
    head: Head | None = None
    watched = []
    training = lm.model.training
    lm.model.eval()
    for side, items in sides.items():
        chosen = _evenly([item for item in items if item.scored], records)
        for first in range(0, len(chosen), _ROWS):
            batch = collate(chosen[first : first + _ROWS], lm.pad_id).to(lm.device)
            rows = module.reference_rows(batch, _NEEDS)
            head = head or (rows.head.frozen() if frozen is None else rows.head)
            watched.append(Watched(side, batch, ReferenceRows(rows.hidden, head)))
    lm.model.train(training)
    return Watch(run, watched)


def _groups(one: Watched, spans: str | None) -> Iterator[tuple[str, str, Tensor]]:
    """(name, 'nll' or 'kl', tokens (B, T) bool) of every mean that this batch has a part in."""
    mask = one.batch.mask
    for kind in ("kl", "nll"):
        yield one.side, kind, mask
    if one.side == "forget" and spans is not None:
        score = one.batch.static.get(spans)
        unwanted = mask & (score > 0) if score is not None else torch.zeros_like(mask)
        yield "unwanted_words", "nll", unwanted
        yield "general_words", "nll", mask & ~unwanted
        yield "general_words", "kl", mask & ~unwanted


def _evenly(items: Sequence[Encoded], count: int) -> list[Encoded]:
    step = max(1, len(items) // count) if count else len(items) + 1
    return list(items[::step][:count])
