"""What `rowwise` says of rows of raw logits, and their gradient in place, by Triton kernels: one program a row.

Imported only where Triton is, which torch's builds for CUDA bring; `backend` decides. The same functions, with the same
meaning and to rounding the same numbers as in `rowwise`, whose arithmetic of the sums of a row they share. Rows are
contiguous, float32 or narrower, all arithmetic is in float32. Each kernel reads a row once, block after block.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from expunge import rowwise
from expunge.rowwise import Asked

_BLOCK = 2048
"""Logits of a row in work at once, at most: sixteen a thread."""


def statistics(raw: Tensor, targets: Tensor, asked: Asked, gradient: bool) -> list[Tensor]:
    """As `rowwise.statistics`: [logp, label logit, log-sum-exp, top1, second moment?, an entropy a temperature]."""
    with torch.cuda.device(raw.get_device()):
        targets = targets.contiguous()
        top, label, first = _highest(raw, targets, asked)
        sums = _sums(raw, targets, asked, top, first, 1.0)
        rest, beside, once, twice = sums
        own = torch.exp(label - top)
        mass, logp = rest + own, rowwise.log_probability(label - top, rest, own)
        out = [logp, label, top + mass.log(), (first == targets).to(logp.dtype)]
        if asked.second_moment:
            out.append(rowwise.second_moment(beside, once, twice))
        for t in asked.temperatures:
            _, beside, once, _ = sums if t == 1.0 else _sums(raw, targets, asked, top, first, t)
            out.append(rowwise.entropy(beside, once))
        if gradient:
            _differentiate(raw, targets, asked, top, 1 / mass, torch.expm1(logp), None)
    return out


def surplus(
    raw: Tensor, targets: Tensor, lse: Tensor, logp: Tensor, asked: Asked, lead: Tensor, more: Tensor | None = None
) -> None:
    """As `rowwise.surplus`: turns `raw` into lead * d(-logp)/d(raw) + more * slope."""
    with torch.cuda.device(raw.get_device()):
        targets, lse, lead, own = (x.contiguous() for x in (targets, lse, lead, torch.expm1(logp) * lead))
        _differentiate(raw, targets, asked, lse, lead, own, more)


def _highest(raw: Tensor, targets: Tensor, asked: Asked) -> tuple[Tensor, Tensor, Tensor]:
    """The highest logit, the label's, and where the highest stands, the first of equals; each (n,)."""
    top, label = (torch.empty(len(raw), dtype=torch.float32, device=raw.device) for _ in range(2))
    first = torch.empty(len(raw), dtype=torch.int32, device=raw.device)
    _highest_kernel[(len(raw),)](raw, targets, top, label, first, *_common(raw, asked))
    return top, label, first


def _sums(
    raw: Tensor, targets: Tensor, asked: Asked, top: Tensor, first: Tensor, temperature: float
) -> tuple[Tensor, ...]:
    """Of d = (logit - highest) / temperature: the sums (n,) of e^d but the label's, but the highest, d e^d, d^2 e^d."""
    out = torch.empty(4, len(raw), dtype=torch.float32, device=raw.device).unbind()
    _sums_kernel[(len(raw),)](raw, targets, top, first, *out, float(temperature), *_common(raw, asked))
    return out


def _differentiate(
    raw: Tensor, targets: Tensor, asked: Asked, shift: Tensor, factor: Tensor, own: Tensor, more: Tensor | None
) -> None:
    """Turns `raw` into (factor * e^(logit - shift), or `own` at the label, + more) * slope."""
    added = raw if more is None else more.contiguous()
    _gradient_kernel[(len(raw),)](
        raw, targets, shift, factor, own, added, more is not None, *_common(raw, asked)
    )  # fmt: skip


def _common(raw: Tensor, asked: Asked) -> tuple[int, float, float, bool, int]:
    """What every kernel takes last: vocabulary, scale, softcap, whether there is one, logits in work at once."""
    vocabulary, cap = raw.shape[1], asked.softcap
    block = min(_BLOCK, triton.next_power_of_2(vocabulary))
    return vocabulary, float(asked.scale), 1.0 if cap is None else float(cap), cap is not None, block


@triton.jit
def _logits(
    row: tl.tensor, column: tl.tensor, vocabulary: tl.tensor, scale: tl.tensor, cap: tl.tensor, CAPPED: tl.constexpr
) -> tl.tensor:
    # in float32, -inf beyond the end of the row
    inside = column < vocabulary
    z = tl.load(row + column, mask=inside, other=0.0).to(tl.float32) * scale
    if CAPPED:
        x = z / cap
        size = tl.abs(x)
        square = size * size
        # Triton has no tanh on every device. Where 1 - e^-2x cancels a series, whose next term is 2e-10 of the sum
        near = size * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0 - square * (17.0 / 315.0))))
        fall = tl.exp(-2.0 * size)
        bent = tl.where(size < 0.1, near, (1.0 - fall) / (1.0 + fall))
        z = cap * tl.where(x < 0.0, -bent, bent)
    return tl.where(inside, z, -float("inf"))


@triton.jit
def _highest_kernel(
    raw: tl.tensor, targets: tl.tensor, top: tl.tensor, label: tl.tensor, first: tl.tensor,
    vocabulary: tl.tensor, scale: tl.tensor, cap: tl.tensor, CAPPED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    i = tl.program_id(0)
    row, lane = raw + i.to(tl.int64) * vocabulary, tl.arange(0, BLOCK)
    own = tl.load(targets + i)
    best, place = tl.full([BLOCK], -float("inf"), tl.float32), lane
    at_label = tl.zeros([BLOCK], tl.float32)
    for start in range(0, vocabulary, BLOCK):
        column = start + lane
        z = _logits(row, column, vocabulary, scale, cap, CAPPED)
        place = tl.where(z > best, column, place)
        best = tl.where(z > best, z, best)
        at_label = tl.where(column == own, z, at_label)
    highest = tl.max(best, 0)
    tl.store(top + i, highest)
    tl.store(label + i, tl.sum(at_label, 0))  # every other lane holds 0
    tl.store(first + i, tl.min(tl.where(best == highest, place, vocabulary), 0))


@triton.jit
def _sums_kernel(
    raw: tl.tensor, targets: tl.tensor, top: tl.tensor, first: tl.tensor,
    rest: tl.tensor, beside: tl.tensor, once: tl.tensor, twice: tl.tensor, temperature: tl.tensor,
    vocabulary: tl.tensor, scale: tl.tensor, cap: tl.tensor, CAPPED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    i = tl.program_id(0)
    row, lane = raw + i.to(tl.int64) * vocabulary, tl.arange(0, BLOCK)
    own, at_top, highest = tl.load(targets + i), tl.load(first + i), tl.load(top + i)
    not_own, not_top = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    linear, square = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, vocabulary, BLOCK):
        column = start + lane
        d = (_logits(row, column, vocabulary, scale, cap, CAPPED) - highest) / temperature
        e = tl.exp(d)
        # summed without, not taken from the whole, where for a sure token it would cancel
        not_own += tl.where(column == own, 0.0, e)
        not_top += tl.where(column == at_top, 0.0, e)
        d = tl.where(e == 0.0, 0.0, d)  # 0 times -inf is NaN
        linear += e * d
        square += e * d * d
    tl.store(rest + i, tl.sum(not_own, 0))
    tl.store(beside + i, tl.sum(not_top, 0))
    tl.store(once + i, tl.sum(linear, 0))
    tl.store(twice + i, tl.sum(square, 0))


@triton.jit
def _gradient_kernel(
    raw: tl.tensor, targets: tl.tensor, shift: tl.tensor, factor: tl.tensor, own: tl.tensor, added: tl.tensor,
    ADDS: tl.constexpr,
    vocabulary: tl.tensor, scale: tl.tensor, cap: tl.tensor, CAPPED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    i = tl.program_id(0)
    offset, lane = i.to(tl.int64) * vocabulary, tl.arange(0, BLOCK)
    label, at_label = tl.load(targets + i), tl.load(own + i)
    down, times = tl.load(shift + i), tl.load(factor + i)
    for start in range(0, vocabulary, BLOCK):
        column = start + lane
        inside = column < vocabulary
        z = _logits(raw + offset, column, vocabulary, scale, cap, CAPPED)
        # 1 - p of the label cancels for a memorised token unless it comes from log p
        g = tl.where(column == label, at_label, tl.exp(z - down) * times)
        if ADDS:
            g += tl.load(added + offset + column, mask=inside, other=0.0)
        g *= scale
        if CAPPED:
            g *= 1.0 - (z / cap) * (z / cap)
        tl.store(raw + offset + column, g.to(raw.dtype.element_ty), mask=inside)
