"""Small exact inputs for worked examples and tests: a `Forward` from probabilities written out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from expunge.core import IGNORE, At, Batch, Forward, Needs, TokenStats, VocabMap
from expunge.fused import Head, ReferenceRows, naive_token_stats, placed

Probabilities = Sequence[Sequence[float]]


def forward_from_probabilities(
    rows: Probabilities,
    *,
    targets: Sequence[int],
    reference: Probabilities | None = None,
    temperatures: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
    vocab: Sequence[VocabMap] = (),
    static: Mapping[str, Sequence[float]] | None = None,
) -> Forward:
    """A `Forward` of one sequence whose token t has the distribution `rows[t]` and the target `targets[t]`.

    Logits are log-probabilities (a zero counts as e^-100). `static[NAME][t]` is a score known before the model ran. One
    more position, not scored, ends the sequence.

    >>> f = forward_from_probabilities([[0.25, 0.75]], targets=[1])
    >>> f.mask.tolist(), round(float(f.policy.logp[0, 0].exp()), 4)
    ([[True, False]], 0.75)
    """
    own = torch.tensor([[*targets, IGNORE]])
    ids = torch.tensor([[0, *targets]])
    known = {name: torch.tensor([[*scores, 0.0]]) for name, scores in (static or {}).items()}
    batch = Batch(ids, own, torch.ones_like(ids, dtype=torch.bool), ("example",), known, torch.tensor([0]))
    needs = Needs(second_moment=True, entropy=frozenset(temperatures), vocab=frozenset(vocab))
    other = None if reference is None else _logits(reference)
    return Forward(
        batch,
        stats_from_logits(_logits(rows), batch, needs, other),
        None if other is None else stats_from_logits(other, batch, Needs()),
    )


def with_alternative(forward: Forward, other: Forward) -> Forward:
    """The forward pass with `other` as that of the other answers to the same questions."""
    return replace(forward, batch=replace(forward.batch, alternative=other.batch), alternative=other)


def forward_from_states(
    place: tuple[int | float, At], states: Sequence[Sequence[float]], reference: Sequence[Sequence[float]] | None = None
) -> Forward:
    """A `Forward` of one sequence whose scored token t has the hidden state `states[t]` at `place`; no probabilities.

    >>> f = forward_from_states((0.5, "own"), [[1.0, 2.0]])
    >>> f.mask.tolist(), f.policy.hidden[0.5, "own"].tolist()
    ([[True, False]], [[[1.0, 2.0], [0.0, 0.0]]])
    """
    ids = torch.zeros(1, len(states) + 1, dtype=torch.long)
    targets = ids.clone()
    targets[:, -1] = IGNORE
    batch = Batch(ids, targets, torch.ones_like(ids, dtype=torch.bool), ("example",))
    empty = Forward.before(batch).policy

    def stats(rows: Sequence[Sequence[float]]) -> TokenStats:
        return replace(empty, hidden={place: torch.tensor([[*rows, [0.0] * len(rows[0])]])})

    return Forward(batch, stats(states), None if reference is None else stats(reference))


def stats_from_logits(logits: Tensor, batch: Batch, needs: Needs, reference: Tensor | None = None) -> TokenStats:
    """`TokenStats` of given logits: (N, V) at the scored positions, or (B, T, V) aligned with `batch.targets`."""
    mask = batch.mask
    flat = logits if logits.ndim == 2 else logits[mask]
    other = reference if reference is None or reference.ndim == 2 else reference[mask]
    identity = Head(torch.eye(flat.shape[-1], dtype=flat.dtype))
    rows = naive_token_stats(
        flat, identity, batch.targets[mask], needs, None if other is None else ReferenceRows(other, identity)
    )
    return placed(rows, mask, mask, {})


def _logits(rows: Probabilities) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).log().clamp(min=-100.0)
