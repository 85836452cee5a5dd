"""Per-token statistics of the vocabulary head, computed in chunks; the only place that ever makes rows of logits.

N scored tokens, D width, V vocabulary. `token_stats` never holds more than one chunk of logits: see `_ChunkedHead` for
its ways to the gradient, and `rowwise` for what is done in a row. `naive_token_stats` is its twin with whole logits and
plain autograd.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge import backend, rowwise
from expunge.core import At, Needs, TokenStats, VocabMap, scatter
from expunge.rowwise import Asked

CHUNK_LOGITS, CUDA_CHUNK_LOGITS = 2**25, 2**28
"""Logits held at once: 128 MB of float32 on a CPU, half a gigabyte of bfloat16 on a GPU."""


@dataclass(frozen=True)
class Head:
    """How final hidden states become logits: `softcap * tanh(scale * (h W^T + b) / softcap)`; W (V, D), b (V,)."""

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, V) logits in float32 (float64 for float64 input), as the model itself would return them."""
        return rowwise.logits_of(self.products(hidden), self.asked())

    def products(self, hidden: Tensor) -> Tensor:
        """(n, V) raw logits h W^T + b, in the type of `hidden`."""
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        return F.linear(hidden, self.weight.to(hidden.dtype), bias)

    def frozen(self) -> Head:
        """A copy that stays as this head is now."""
        bias = None if self.bias is None else self.bias.detach().clone()
        return replace(self, weight=self.weight.detach().clone(), bias=bias)

    def asked(self, temperatures: tuple[float, ...] = (), second_moment: bool = False) -> Asked:
        """What to say of rows of this head's raw logits."""
        return Asked(temperatures, second_moment, self.scale, self.softcap)


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

    Naive equivalent: `naive_token_stats`. What the backward pass needs of the logits is kept if it is one chunk, and
    made anew if it is more, so memory does not grow with N*V.
    """
    maps, temperatures = _ordered(needs)
    exact = hidden.dtype == rowwise.working_type(hidden)
    plan = _Plan(head, targets, maps, head.asked(temperatures, needs.second_moment), reference, exact)
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
    detached = _naive_detached(logits.detach(), targets, temperatures, needs.second_moment)
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
    asked: Asked
    reference: ReferenceRows | None
    exact: bool

    @property
    def size(self) -> int:
        """Rows of a chunk."""
        weight = self.head.weight
        return max(64, (CHUNK_LOGITS if weight.device.type == "cpu" else CUDA_CHUNK_LOGITS) // weight.shape[0])

    def fits(self, n: int) -> bool:
        """True if `n` rows are at most one chunk, with those beside them in which their gradient is made."""
        return n * (1 if self.keeps_gradient else 2) <= self.size

    @property
    def keeps_gradient(self) -> bool:
        """True if d(-logp)/d(raw) is all there is to keep, and is not rounded before it meets its factor."""
        return not self.maps and self.exact

    def reference_rows(self, rows: Tensor | slice) -> Tensor | None:
        """The reference's raw logits of these rows, if a map reads them."""
        if self.reference is None or not any(m.reads_reference for m in self.maps):
            return None
        return self.reference.head.products(self.reference.hidden[rows]).detach()

    def mapped(self, maps: Sequence[VocabMap], z: Tensor, reference: Tensor | None, targets: Tensor) -> list[Tensor]:
        """The maps' values of a few rows of logits; `reference` holds raw logits of the same rows."""
        other = None
        if self.reference is not None and reference is not None:
            other = rowwise.logits_of(reference, self.reference.head.asked())
        return [m(z, other if m.reads_reference else None, targets) for m in maps]


class _ChunkedHead(torch.autograd.Function):
    """Outputs (logp, label_logit, lse, *maps, *detached statistics), each (N,).

    Three ways to the gradient, each for any loss of these numbers. Logits that fit one chunk are kept for the backward
    pass; in float32 and where no map reads them, as d(-logp)/d(raw). With a frozen head and no maps the product of that
    and the head's weights, (N, D), is made at once, chunk by chunk. Else chunks are computed anew. Products of
    N x V x D, forward and backward: 3, 2 and 4; with a frozen head kept or anew 2 and 3.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, plan: _Plan) -> tuple[Tensor, ...]:
        trains, head_trains = any(ctx.needs_input_grad[:3]), any(ctx.needs_input_grad[1:3])
        projects = trains and not head_trains and not plan.maps
        keeps = trains and not projects and plan.fits(len(hidden))
        head = replace(plan.head, weight=weight.to(hidden.dtype))
        kept: list[Tensor] = []
        columns: list[list[Tensor]] = []
        for rows in _slices(len(hidden), plan.size):
            raw, reference, targets = head.products(hidden[rows]), plan.reference_rows(rows), plan.targets[rows]
            mapped = _mapped(plan, raw, reference, targets)
            found = backend.statistics(raw, targets, plan.asked, gradient=projects or (keeps and plan.keeps_gradient))
            columns.append([*found[:3], *mapped, *found[3:]])
            if projects:
                kept.append(raw @ head.weight)
            elif keeps:
                kept = [raw] if reference is None else [raw, reference]
        n_detached = 1 + plan.asked.second_moment + len(plan.asked.temperatures)
        if columns:
            out = tuple(torch.cat(parts) for parts in zip(*columns, strict=True))
        else:
            out = tuple(hidden.new_zeros(0) for _ in range(3 + len(plan.maps) + n_detached))
        ctx.mark_non_differentiable(*out[-n_detached:])
        ctx.plan, ctx.projects = plan, projects
        ctx.save_for_backward(hidden, weight, bias, *out[:3], *([torch.cat(kept)] if projects and kept else kept))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, logp, label_logit, lse, *kept = ctx.saved_tensors
        plan: _Plan = ctx.plan
        g_logp, g_label, g_lse, *g_maps = (g.to(logp.dtype) for g in grads[: 3 + len(plan.maps)])
        read = [(m, g) for m, g in zip(plan.maps, g_maps, strict=True) if bool(g.any())]  # scores are read without it
        # d loss / d raw = lead * d(-logp)/d(raw), and `own` more at the label
        lead = g_lse - g_logp
        own = (g_label + g_lse) * rowwise.label_slope(label_logit, plan.asked)
        sums = _Gradients.zero(hidden, weight, bias, ctx.needs_input_grad)
        if ctx.projects:
            if kept and sums.hidden is not None:
                sums.hidden += lead[:, None] * kept[0]
        else:
            for rows in torch.split(_reached(lead, [g for _, g in read]), plan.size):
                raw, reference = _again(plan, kept, hidden, rows)
                if kept and plan.keeps_gradient:
                    sums.add(rows, raw, hidden, weight, lead[rows, None])
                else:
                    _differentiate(plan, raw, reference, read, rows, logp, lse, lead)
                    sums.add(rows, raw, hidden, weight)
        if bool(own.any()):
            sums.add_label(plan.targets, hidden, weight, own)
        return *sums.of(hidden, weight, bias), None


@dataclass
class _Gradients:
    """What has been summed so far, in float32 (float64 for float64); None for what needs none."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def zero(cls, hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: Sequence[bool]) -> _Gradients:
        inputs = zip((hidden, weight, bias), wanted, strict=False)
        made = [torch.zeros_like(x, dtype=rowwise.working_type(x)) if x is not None and w else None for x, w in inputs]
        return cls(*made)

    def add(self, rows: Tensor, raw: Tensor, hidden: Tensor, weight: Tensor, factor: Tensor | None = None) -> None:
        """The products of `raw` (n, V): d(loss)/d(raw), but for the `factor` (n, 1) of each row if there is one."""
        if self.hidden is not None:
            own = raw @ weight.to(raw.dtype)
            self.hidden[rows] = own.to(self.hidden.dtype) if factor is None else factor * own
        if self.weight is not None:
            _add_product(self.weight, raw, hidden[rows] if factor is None else factor * hidden[rows])
        if self.bias is not None:
            self.bias += (raw if factor is None else factor * raw).sum(0, dtype=self.bias.dtype)

    def add_label(self, targets: Tensor, hidden: Tensor, weight: Tensor, own: Tensor) -> None:
        """What reaches the label's own logit alone: a row of the weights each, and no product."""
        if self.hidden is not None:
            self.hidden += own[:, None] * weight[targets]
        if self.weight is not None:
            self.weight.index_add_(0, targets, (own[:, None] * hidden).to(self.weight.dtype))
        if self.bias is not None:
            self.bias.index_add_(0, targets, own.to(self.bias.dtype))

    def of(self, *inputs: Tensor | None) -> list[Tensor | None]:
        """The sums in the types of the inputs that they belong to."""
        sums = zip((self.hidden, self.weight, self.bias), inputs, strict=True)
        return [None if g is None or x is None else g.to(x.dtype) for g, x in sums]


def _add_product(total: Tensor, raw: Tensor, scaled: Tensor) -> None:
    """total (V, D) += raw^T scaled, summed in the type of `total`."""
    if total.dtype == raw.dtype:
        total.addmm_(raw.T, scaled)
    elif raw.device.type == "cuda":
        total += torch.mm(raw.T, scaled, out_dtype=total.dtype)
    else:
        total += raw.T @ scaled


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(n, start + size)) for start in range(0, n, size))


def _mapped(plan: _Plan, raw: Tensor, reference: Tensor | None, targets: Tensor) -> list[Tensor]:
    """Each map's values (n,) of a chunk, a few rows at a time."""
    if not plan.maps:
        return []
    parts = [
        plan.mapped(
            plan.maps,
            rowwise.logits_of(raw[rows], plan.asked),
            None if reference is None else reference[rows],
            targets[rows],
        )
        for rows in rowwise.blocks(raw)
    ]
    return [torch.cat(values) for values in zip(*parts, strict=True)]


def _reached(lead: Tensor, g_maps: Sequence[Tensor]) -> Tensor:
    """The rows where a gradient reaches more logits than the label: tokens that were not selected cost no product."""
    reached = lead != 0
    for g in g_maps:
        reached = reached | (g != 0)
    return torch.nonzero(reached)[:, 0]


def _again(plan: _Plan, kept: Sequence[Tensor], hidden: Tensor, rows: Tensor) -> tuple[Tensor, Tensor | None]:
    """What the forward pass kept of these rows, or their raw logits computed anew; and the reference's.

    A copy, to be written over, but for a gradient that is only read.
    """
    if not kept:
        return plan.head.products(hidden[rows]), plan.reference_rows(rows)
    if len(rows) == len(hidden) and plan.keeps_gradient:
        return kept[0], None
    return kept[0][rows], kept[1][rows] if len(kept) > 1 else None


def _differentiate(
    plan: _Plan,
    raw: Tensor,
    reference: Tensor | None,
    read: Sequence[tuple[VocabMap, Tensor]],
    rows: Tensor,
    logp: Tensor,
    lse: Tensor,
    lead: Tensor,
) -> None:
    """Turns raw logits into d(loss)/d(raw) but for what reaches the label's own alone."""
    targets = plan.targets[rows]
    if not read:
        backend.surplus(raw, targets, lse[rows], logp[rows], plan.asked, lead[rows])
        return
    for part in rowwise.blocks(raw):
        z = rowwise.logits_of(raw[part], plan.asked)
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            other = None if reference is None else reference[part]
            outputs = plan.mapped([m for m, _ in read], leaf, other, targets[part])
        seeds = [g[rows[part]].to(o.dtype) for (_, g), o in zip(read, outputs, strict=True)]
        (found,) = torch.autograd.grad(outputs, leaf, seeds)
        at = rows[part]
        backend.surplus(raw[part], targets[part], lse[at], logp[at], plan.asked, lead[at], found)


def _naive_detached(z: Tensor, targets: Tensor, temperatures: tuple[float, ...], second_moment: bool) -> list[Tensor]:
    """[top1 as 0/1, second moment if asked for, an entropy a temperature], each (n,)."""
    logp = torch.log_softmax(z, dim=-1).clamp(min=rowwise.FLOOR)
    out = [(z.argmax(-1) == targets).to(z.dtype)]
    if second_moment:
        out.append((logp.exp() * logp.square()).sum(-1))
    cooled = [torch.log_softmax(z / t, dim=-1).clamp(min=rowwise.FLOOR) for t in temperatures]
    return [*out, *(-(one.exp() * one).sum(-1) for one in cooled)]


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
