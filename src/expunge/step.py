"""One update's gradient: a backbone pass for the union of needs, weights a term, and one normalised sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge import collective, ranks
from expunge.combine import Apart
from expunge.core import IGNORE, Batch, Forward, Needs, Side, TokenStats
from expunge.refcache import Reference
from expunge.terms import Term, TermValue, needs_of, term_values

Batches = Mapping[Side, Batch]


@dataclass(frozen=True)
class Step:
    """The loss of a method. `joined` runs all sides through the backbone in one pass where they need the same."""

    terms: tuple[Term, ...]
    reference: Reference | None = None
    joined: bool = True

    def needs(self, side: Side) -> Needs:
        """What the terms of one side read."""
        return needs_of(self.terms, side)

    def forward(self, module: nn.Module, batches: Batches) -> dict[Side, Forward]:
        """Every side's batch through the policy, and through the reference where a term reads it."""
        needs = {side: self.needs(side) for side in batches}
        full_rows = {(n.vocab, n.everywhere, n.hidden) for n in needs.values()}
        if self.joined and len(batches) > 1 and len(full_rows) == 1:
            union = reduce(Needs.__or__, needs.values())
            stats = _split(self._policy(module, join(list(batches.values())), union), list(batches.values()))
            policies = dict(zip(batches, stats, strict=True))
        else:
            policies = {side: self._policy(module, batch, needs[side]) for side, batch in batches.items()}
        return {
            side: Forward(
                batch,
                policies[side],
                self._reference_stats(batch, needs[side]),
                self._alternative(module, batch, needs[side]),
            )
            for side, batch in batches.items()
        }

    def values(self, module: nn.Module, batches: Batches) -> list[TermValue]:
        """Each term on one micro-batch, unreduced; FloatingPointError if the model's numbers are not finite."""
        forwards = self.forward(module, batches)
        for side, forward in forwards.items():
            if not bool(torch.isfinite(forward.policy.logp).all()):
                raise FloatingPointError(f"the model's log-probabilities of the {side} batch are not finite")
        return term_values(self.terms, forwards)

    def totals(self, module: nn.Module, micro_batches: Sequence[Batches], seeds: Sequence[int]) -> list[Tensor]:
        """Each term's denominator over all micro-batches, known before any gradient is.

        Those of all processes, that is. Where a count depends on weights that only a forward pass tells, one is made
        without gradient, with the seed and so the dropout of the one that follows.
        """
        totals: list[Tensor] = [torch.zeros(()) for _ in self.terms]
        for batches, seed in zip(micro_batches, seeds, strict=True):
            counts = [t.count_before(batches[t.on]) for t in self.terms]
            if any(count is None for count in counts):
                with torch.no_grad(), seeded(seed, next(iter(batches.values())).input_ids.device):
                    found = [v.count for v in self.values(module, batches)]
            else:
                found = [count.sum() for count in counts if count is not None]
            totals = [total.to(c.device) + c for total, c in zip(totals, found, strict=True)]
        everywhere = collective.summed([float(total) for total in totals])
        return [total.new_tensor(whole) for total, whole in zip(totals, everywhere, strict=True)]

    def _policy(self, module: nn.Module, batch: Batch, needs: Needs) -> TokenStats:
        rows = None if self.reference is None else self.reference.rows(batch, needs)
        stats: TokenStats = module(batch, needs, rows)
        return stats

    def _alternative(self, module: nn.Module, batch: Batch, needs: Needs) -> Forward | None:
        """The other answers to the same questions, in a pass of their own."""
        if not needs.alternative or batch.alternative is None:
            return None
        wanted = Needs(reference=needs.reference)
        policy = self._policy(module, batch.alternative, wanted)
        return Forward(batch.alternative, policy, self._reference_stats(batch.alternative, wanted))

    def _reference_stats(self, batch: Batch, needs: Needs) -> TokenStats | None:
        if self.reference is None or not needs.reference_stats:
            return None
        return self.reference.stats(batch, needs.reference_hidden)


def accumulate(
    step: Step,
    module: nn.Module,
    micro_batches: Sequence[Batches],
    backward: Callable[..., None],
    seeds: Sequence[int],
    apart: Apart | None = None,
) -> tuple[list[TermValue], list[float]]:
    """Gradients of one update, added up over this process's micro-batches; every term's values, and each one's part of
    the mean, which the sum over all processes is.

    `seeds[k]` decides what is random inside the model (dropout) in micro-batch k. With `apart`, whose split has the
    step's terms, the gradients of its parts are added up in buffers of their own.
    """
    several = len(micro_batches) > 1 or ranks.here().size > 1
    totals = step.totals(module, micro_batches, seeds) if several else None
    seen: list[TermValue] = []
    means = [0.0] * len(step.terms)
    for batches, seed in zip(micro_batches, seeds, strict=True):
        with seeded(seed, next(iter(batches.values())).input_ids.device):
            values = step.values(module, batches)
            counts = totals or [v.count.detach() for v in values]
            parts = [v.value / torch.where(n > 0, n, 1.0) for v, n in zip(values, counts, strict=True)]
            losses = [t.coef * part for t, part in zip(step.terms, parts, strict=True)]
            if apart is None:
                backward(torch.stack(losses).sum())
            else:
                apart.backward(losses, backward)
        means = [mean + float(part.detach()) for mean, part in zip(means, parts, strict=True)]
        seen += [replace(v, value=v.value.detach(), count=v.count.detach()) for v in values]
    return seen, means


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's generators set from `seed` inside the block, and as they were after it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed devices that nothing restores
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def join(batches: Sequence[Batch]) -> Batch:
    """All rows in one batch, padded on the right to the longest. Static scores stay with their own batch."""
    width = max(b.input_ids.shape[1] for b in batches)

    def stack(name: str, fill: int) -> Tensor:
        tensors = [getattr(b, name) for b in batches]
        return torch.cat([F.pad(t, (0, width - t.shape[1]), value=fill) for t in tensors])

    return Batch(
        stack("input_ids", 0),
        stack("targets", IGNORE),
        stack("attention_mask", 0),
        tuple(i for b in batches for i in b.ids),
    )


def _split(stats: TokenStats, batches: Sequence[Batch]) -> list[TokenStats]:
    out, start = [], 0
    for batch in batches:
        rows, width = slice(start, start + len(batch)), batch.input_ids.shape[1]
        start += len(batch)
        out.append(stats.mapped(partial(_cut, rows=rows, width=width)))
    return out


def _cut(values: Tensor, rows: slice, width: int) -> Tensor:
    return values[rows, :width]
