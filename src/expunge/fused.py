"""Per-token statistics of the vocabulary head, computed in chunks; the only place that ever holds rows of logits.

N scored tokens, D width, V vocabulary. `token_stats` never holds more than one chunk of logits and recomputes it in
the backward pass; `naive_token_stats` is its twin with whole logits and plain autograd.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.core import At, Needs, TokenStats, VocabMap, scatter

CHUNK_LOGITS = 2**24


@dataclass(frozen=True)
class Head:
    """How final hidden states become logits: `softcap * tanh(scale * (h W^T + b) / softcap)`; W (V, D), b (V,)."""

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, V) logits in float32 (float64 for float64 input), as the model itself would return them."""
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        z = F.linear(hidden, self.weight.to(hidden.dtype), bias)
        z = z if z.dtype == torch.float64 else z.float()
        if self.scale != 1.0:
            z = z * self.scale
        return z if self.softcap is None else self.softcap * torch.tanh(z / self.softcap)


@dataclass(frozen=True)
class ReferenceRows:
    """The frozen model's final hidden states (N, D) at the scored positions, and its head."""

    hidden: Tensor
    head: Head


@dataclass(frozen=True)
class Rows:
    """Statistics of N scored tokens, each (N,): the flat form of `core.TokenStats`, same meaning and same dtype."""

    logp: Tensor
    label_logit: Tensor
    lse: Tensor
    top1: Tensor
    entropy: Mapping[float, Tensor] = field(default_factory=dict)
    second_moment: Tensor | None = None
    vocab: Mapping[str, Tensor] = field(default_factory=dict)


def token_stats(
    hidden: Tensor, head: Head, targets: Tensor, needs: Needs, reference: ReferenceRows | None = None
) -> Rows:
    """The statistics of `targets` (N,) given `hidden` (N, D), in chunks of at most `CHUNK_LOGITS` logits.

    Naive equivalent: `naive_token_stats`. Backward recomputes each chunk of logits, so memory does not grow with N*V.
    """
    maps, temperatures = _ordered(needs)
    plan = _Plan(head, targets, maps, temperatures, needs.second_moment, reference)
    flat = cast(tuple[Tensor, ...], _ChunkedHead.apply(hidden, head.weight, head.bias, plan))  # type: ignore[no-untyped-call]
    return _named(flat, maps, temperatures, needs.second_moment)


def naive_token_stats(
    hidden: Tensor, head: Head, targets: Tensor, needs: Needs, reference: ReferenceRows | None = None
) -> Rows:
    """The same statistics from whole (N, V) logits, the gradient left to autograd."""
    maps, temperatures = _ordered(needs)
    logits = head.logits(hidden)
    reference_logits = None if reference is None else reference.head.logits(reference.hidden).detach()
    logp = -F.cross_entropy(logits, targets, reduction="none")
    label_logit = logits.gather(1, targets[:, None])[:, 0]
    detached = _detached(logits.detach(), targets, temperatures, needs.second_moment)
    mapped = [m(logits, reference_logits if m.reads_reference else None, targets) for m in maps]
    flat = (logp, label_logit, logits.logsumexp(-1), *mapped, *detached)
    return _named(flat, maps, temperatures, needs.second_moment)


def placed(rows: Rows, read: Tensor, mask: Tensor, hidden: Mapping[tuple[int | float, At], Tensor]) -> TokenStats:
    """The (B, T) form of statistics computed at the True positions of `read`, kept at those of `mask`."""

    def place(values: Tensor) -> Tensor:
        full = scatter(values, read)
        return full if read is mask else torch.where(mask, full, torch.zeros_like(full))

    return TokenStats(
        logp=place(rows.logp),
        label_logit=place(rows.label_logit),
        lse=place(rows.lse),
        top1=place(rows.top1),
        entropy={t: place(h) for t, h in rows.entropy.items()},
        second_moment=None if rows.second_moment is None else place(rows.second_moment),
        hidden=hidden,
        vocab={key: scatter(value, read) for key, value in rows.vocab.items()},
    )


def disagreement(states_SND: Sequence[Tensor], head: Head) -> Tensor:
    """(N,) H(mean_s p_s) - mean_s H(p_s) in nats, from the final hidden states (N, D) of S passes; without gradient."""
    size = max(1, CHUNK_LOGITS // head.weight.shape[0])
    out = []
    for start in range(0, len(states_SND[0]), size):
        logp = [torch.log_softmax(head.logits(states[start : start + size]).detach(), dim=-1) for states in states_SND]
        mean = torch.stack([one.exp() for one in logp]).mean(0)
        inside = torch.stack([-(one.exp() * one).sum(-1) for one in logp]).mean(0)
        out.append(-torch.special.xlogy(mean, mean).sum(-1) - inside)
    return torch.cat(out) if out else states_SND[0].new_zeros(0)


@dataclass(frozen=True)
class _Plan:
    head: Head
    targets: Tensor
    maps: tuple[VocabMap, ...]
    temperatures: tuple[float, ...]
    second_moment: bool
    reference: ReferenceRows | None

    def chunks(self) -> Iterator[slice]:
        n, vocabulary = len(self.targets), self.head.weight.shape[0]
        size = max(64, CHUNK_LOGITS // vocabulary)
        return (slice(start, min(n, start + size)) for start in range(0, n, size))

    def reference_logits(self, rows: slice) -> Tensor | None:
        if self.reference is None or not any(m.reads_reference for m in self.maps):
            return None
        return self.reference.head.logits(self.reference.hidden[rows]).detach()


class _ChunkedHead(torch.autograd.Function):
    """Outputs (logp, label_logit, lse, *maps, *detached statistics), each (N,)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, plan: _Plan) -> tuple[Tensor, ...]:
        columns: list[list[Tensor]] = []
        for rows in plan.chunks():
            targets = plan.targets[rows]
            logits = plan.head.logits(hidden[rows])
            reference = plan.reference_logits(rows)
            mapped = [m(logits, reference if m.reads_reference else None, targets) for m in plan.maps]
            label_logit = logits.gather(1, targets[:, None])[:, 0]
            detached = _detached(logits, targets, plan.temperatures, plan.second_moment)
            logp, lse = _label_logp(logits, targets)
            columns.append([logp, label_logit, lse, *mapped, *detached])
        n_detached = 1 + plan.second_moment + len(plan.temperatures)
        if columns:
            out = tuple(torch.cat(parts) for parts in zip(*columns, strict=True))
        else:
            out = tuple(hidden.new_zeros(0) for _ in range(3 + len(plan.maps) + n_detached))
        ctx.mark_non_differentiable(*out[-n_detached:])
        ctx.plan = plan
        ctx.save_for_backward(hidden, weight, bias, out[0])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, logp = ctx.saved_tensors
        plan: _Plan = ctx.plan
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        accumulate = torch.float64 if weight.dtype == torch.float64 else torch.float32
        d_hidden = torch.empty_like(hidden) if wants_hidden else None
        d_weight = torch.zeros_like(weight, dtype=accumulate) if wants_weight else None
        d_bias = torch.zeros_like(bias, dtype=accumulate) if wants_bias else None
        for rows in plan.chunks():
            dz = _logit_gradient(plan, hidden[rows], logp[rows], [g[rows] for g in grads[: 3 + len(plan.maps)]], rows)
            dz = dz.to(hidden.dtype)
            if d_hidden is not None:
                d_hidden[rows] = dz @ weight.to(hidden.dtype)
            if d_weight is not None:
                d_weight += dz.T @ hidden[rows]
            if d_bias is not None:
                d_bias += dz.sum(0)
        return (
            d_hidden,
            None if d_weight is None else d_weight.to(weight.dtype),
            None if d_bias is None else d_bias.to(bias.dtype),
            None,
        )


def _logit_gradient(plan: _Plan, hidden: Tensor, logp: Tensor, grads: list[Tensor], rows: slice) -> Tensor:
    """d loss / d (h W^T + b) of one chunk, (n, V), from the gradients of logp, label logit, lse and the maps."""
    head, targets = plan.head, plan.targets[rows]
    z = head.logits(hidden)
    g_logp, g_label, g_lse = (g.to(z.dtype) for g in grads[:3])
    probability = torch.softmax(z, dim=-1)
    # the label's own entry is w * (1 - p), which cancels for a memorised token unless it comes from log p
    label_entry = g_logp * -torch.expm1(logp) + g_label + g_lse * torch.exp(logp)
    dz = probability.mul_((g_lse - g_logp)[:, None])
    dz.scatter_(1, targets[:, None], label_entry[:, None])
    read = [(m, g) for m, g in zip(plan.maps, grads[3:], strict=True) if bool(g.any())]  # scores are read without it
    if read:
        dz += _map_gradient(plan, z, read, rows)
    if head.softcap is not None:
        dz *= 1 - (z / head.softcap) ** 2
    return dz if head.scale == 1.0 else dz * head.scale


def _map_gradient(plan: _Plan, z: Tensor, read: list[tuple[VocabMap, Tensor]], rows: slice) -> Tensor:
    reference = plan.reference_logits(rows)
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        outputs = [m(leaf, reference if m.reads_reference else None, plan.targets[rows]) for m, _ in read]
    return torch.autograd.grad(outputs, leaf, [g.to(o.dtype) for (_, g), o in zip(read, outputs, strict=True)])[0]


def _label_logp(z: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """log p of the targets and log-sum-exp; log p is exact to rounding also where p is near 1."""
    top = z.amax(-1)
    label = z.gather(1, targets[:, None])[:, 0] - top
    shifted = (z - top[:, None]).exp_()
    own = shifted.gather(1, targets[:, None])[:, 0]
    rest = shifted.scatter_(1, targets[:, None], 0.0).sum(-1)
    log_sum = torch.log(rest + own)
    confident = label > -20.0
    logp = torch.where(confident, -torch.log1p(rest / torch.where(confident, own, 1.0)), label - log_sum)
    return logp, top + log_sum


def _detached(z: Tensor, targets: Tensor, temperatures: tuple[float, ...], second_moment: bool) -> list[Tensor]:
    """[top1 as 0/1, second moment if asked for, an entropy a temperature], each (n,), without gradient."""
    top, arg = z.max(-1)
    out = [(arg == targets).to(z.dtype)]
    shifted = z - top[:, None]
    if second_moment:
        e, log_sum = _without_top(shifted, arg)
        mass = torch.exp(log_sum)
        first = (e * shifted).sum(-1)
        out.append(((e * shifted**2).sum(-1) - 2 * log_sum * first) / mass + log_sum**2)
    for temperature in temperatures:
        scaled = shifted / temperature
        e, log_sum = _without_top(scaled, arg)
        out.append(log_sum - (e * scaled).sum(-1) / torch.exp(log_sum))
    return out


def _without_top(shifted: Tensor, arg: Tensor) -> tuple[Tensor, Tensor]:
    """exp(shifted) with the top entry (which is exp(0) = 1) set to 0, and the exact log of the whole sum."""
    e = shifted.exp().scatter_(1, arg[:, None], 0.0)
    return e, torch.log1p(e.sum(-1))


def _ordered(needs: Needs) -> tuple[tuple[VocabMap, ...], tuple[float, ...]]:
    return tuple(sorted(needs.vocab, key=lambda m: m.key)), tuple(sorted(needs.entropy))


def _named(
    flat: tuple[Tensor, ...], maps: tuple[VocabMap, ...], temperatures: tuple[float, ...], second_moment: bool
) -> Rows:
    logp, label_logit, lse, *rest = flat
    mapped, detached = rest[: len(maps)], rest[len(maps) :]
    return Rows(
        logp=logp,
        label_logit=label_logit,
        lse=lse,
        top1=detached[0] > 0,
        entropy=dict(zip(temperatures, detached[1 + second_moment :], strict=True)),
        second_moment=detached[1] if second_moment else None,
        vocab={m.key: value for m, value in zip(maps, mapped, strict=True)},
    )
