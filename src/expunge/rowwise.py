"""One pass over rows of raw logits: what they say about their labels, and in their place the gradient of that.

Raw logits (n, V) are products of hidden states and head weights, in the type they were multiplied in; logits are
`softcap * tanh(scale * raw / softcap)`. All arithmetic is in float32 (float64 for float64), a few rows at a time, so
that what is in work stays in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_CPU_BLOCK, _BLOCK = 2**17, 2**24
"""Logits in work at once: on a CPU half a megabyte a buffer, elsewhere enough to keep the device busy."""

FLOOR = -1e15
"""No logit is further below the highest: e^d is 0 there, and so is d e^d, which is NaN where d is -inf."""


@dataclass(frozen=True)
class Asked:
    """What to say of each row beside its label's log-probability, and how raw logits become logits."""

    temperatures: tuple[float, ...] = ()
    second_moment: bool = False
    scale: float = 1.0
    softcap: float | None = None

    @property
    def shapes(self) -> bool:
        """True if logits differ from raw logits."""
        return self.scale != 1.0 or self.softcap is not None


def working_type(raw: Tensor) -> torch.dtype:
    """The type of all arithmetic but the products: float32, or float64 for float64."""
    return torch.float64 if raw.dtype == torch.float64 else torch.float32


def blocks(raw: Tensor) -> Iterator[slice]:
    """Slices of rows of `raw` (n, V) that fit the cache; at least one row each."""
    size = max(1, (_CPU_BLOCK if raw.device.type == "cpu" else _BLOCK) // raw.shape[1])
    return (slice(start, start + size) for start in range(0, len(raw), size))


def logits_of(raw: Tensor, asked: Asked) -> Tensor:
    """The logits (n, V) of raw logits, in the working type; `raw` itself if nothing is to be done."""
    z = raw.to(working_type(raw))
    if asked.scale != 1.0:
        z = z * asked.scale
    return z if asked.softcap is None else asked.softcap * torch.tanh(z / asked.softcap)


def slope(logits: Tensor, asked: Asked) -> Tensor | float:
    """d logits / d raw, as the shape of `logits`, or the number it is everywhere."""
    if asked.softcap is None:
        return asked.scale
    return (logits / asked.softcap).square_().neg_().add_(1.0).mul_(asked.scale)


def statistics(raw: Tensor, targets: Tensor, asked: Asked, gradient: bool) -> list[Tensor]:
    """[logp, label logit, log-sum-exp, top1 as 0/1, second moment if asked for, an entropy a temperature], each (n,).

    With `gradient`, `raw` holds d(-logp)/d(raw) afterwards: softmax less one at the label, times the slope.
    """
    work = [torch.empty(_room(raw), dtype=working_type(raw), device=raw.device) for _ in range(3)]
    columns = [_block(raw[rows], targets[rows, None], asked, gradient, work) for rows in blocks(raw)]
    return [torch.cat(parts) for parts in zip(*columns, strict=True)]


def surplus(
    raw: Tensor, targets: Tensor, lse: Tensor, logp: Tensor, asked: Asked, lead: Tensor, more: Tensor | None = None
) -> None:
    """Turns `raw` into lead * d(-logp)/d(raw) + more * slope, from the numbers (n,) that `statistics` gave.

    `more` (n, V) is the gradient with respect to the logits that comes from elsewhere. Rounded to raw's type once.
    """
    spare = torch.empty(_room(raw), dtype=working_type(raw), device=raw.device)
    for rows in blocks(raw):
        z, at = logits_of(raw[rows], asked), targets[rows, None]
        p = torch.sub(z, lse[rows, None], out=_home(raw[rows], spare, asked)).exp_()
        p.scatter_(1, at, torch.expm1(logp[rows, None]))
        p.mul_(lead[rows, None])
        _write(raw[rows], p if more is None else p.add_(more[rows]), z, asked)


def log_probability(gap: Tensor, rest: Tensor, own: Tensor) -> Tensor:
    """log p of the label: `gap` is its logit less the highest, `own` exp(gap), `rest` the sum of the others' exp.

    The sum of the others, not 1 - p, is what stays exact for a memorised token.
    """
    sure = gap > -20.0
    return torch.where(sure, -torch.log1p(rest / torch.where(sure, own, 1.0)), gap - (rest + own).log())


def entropy(beside: Tensor, first: Tensor) -> Tensor:
    """-sum p log p in nats; of d = logit less the highest, `first` is sum d e^d, and 1 + `beside` is sum e^d."""
    return torch.log1p(beside) - first / (1 + beside)


def second_moment(beside: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """sum p (log p)^2 in nats^2; `beside` and `first` as in `entropy`, `second` is sum d^2 e^d."""
    log_sum = torch.log1p(beside)
    return (second - 2 * log_sum * first) / (1 + beside) + log_sum**2


def _room(raw: Tensor) -> tuple[int, int]:
    return min(len(raw), next(blocks(raw), slice(0, 0)).stop), raw.shape[1]


def _block(raw: Tensor, at: Tensor, asked: Asked, gradient: bool, work: list[Tensor]) -> list[Tensor]:
    shifted, e, spare = (buffer[: len(raw)] for buffer in work)
    z = logits_of(raw, asked)
    top, label = z.amax(-1, keepdim=True), z.gather(1, at)
    torch.exp(torch.sub(z, top, out=shifted).clamp_(min=FLOOR), out=e)
    is_top = label == top
    rest, own, beside = _masses(e, at, is_top)
    mass = rest + own
    logp = log_probability(label - top, rest, own)
    out = [logp, label, top + mass.log(), _first_top(e, at, is_top & (rest >= 1.0), is_top)]
    if asked.second_moment:
        first = torch.mul(e, shifted, out=spare).sum(-1, keepdim=True)
        out.append(second_moment(beside, first, spare.mul_(shifted).sum(-1, keepdim=True)))
    out += [_entropy(shifted, e, beside, at, is_top, t, spare) for t in asked.temperatures]
    if gradient:
        p = torch.mul(e, 1 / mass, out=_home(raw, shifted, asked))
        # 1 - p of the label cancels for a memorised token unless it comes from log p
        _write(raw, p.scatter_(1, at, torch.expm1(logp)), z, asked)
    return [column[:, 0] for column in out]


def _masses(e: Tensor, at: Tensor, is_top: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of e = exp(z - max z): the sum without the label, the label's own, the sum without the highest; (n, 1) each."""
    own = e.gather(1, at)
    e.scatter_(1, at, 0.0)
    rest = e.sum(-1, keepdim=True)
    beside = torch.where(is_top, rest, rest + own - 1.0)
    cancels = torch.nonzero((~is_top & (rest + own < 2.0))[:, 0])[:, 0]
    if len(cancels):  # sure of another token: sum anew without it
        some = e[cancels]
        some.scatter_(1, some.argmax(-1, keepdim=True), 0.0)
        beside[cancels] = some.sum(-1, keepdim=True) + own[cancels]
    e.scatter_(1, at, own)
    return rest, own, beside


def _first_top(e: Tensor, at: Tensor, may_tie: Tensor, is_top: Tensor) -> Tensor:
    """(n, 1) 1 where the label is the arg max, the first of equals; finding it is slow, so only where two may tie."""
    out = is_top.to(e.dtype)
    rows = torch.nonzero(may_tie[:, 0])[:, 0]
    if len(rows):
        out[rows] = (e[rows].argmax(-1, keepdim=True) == at[rows]).to(e.dtype)
    return out


def _entropy(
    shifted: Tensor, e: Tensor, beside: Tensor, at: Tensor, is_top: Tensor, temperature: float, spare: Tensor
) -> Tensor:
    """(n, 1) entropy in nats of softmax(z / temperature)."""
    if temperature != 1.0:
        shifted = shifted / temperature
        e = shifted.exp()
        beside = _masses(e, at, is_top)[2]
    return entropy(beside, torch.mul(e, shifted, out=spare).sum(-1, keepdim=True))


def _home(raw: Tensor, spare: Tensor, asked: Asked) -> Tensor:
    """Where probabilities are made: in place of the logits where nothing else is done to them, else beside them."""
    return spare[: len(raw)] if asked.shapes or raw.dtype != working_type(raw) else raw


def _write(raw: Tensor, p: Tensor, z: Tensor, asked: Asked) -> None:
    if asked.shapes:
        p.mul_(slope(z, asked))
    if p is not raw:
        raw.copy_(p)


def label_slope(label_logit: Tensor, asked: Asked) -> Tensor:
    """(n,) d(label logit)/d(raw label logit)."""
    found = slope(label_logit, asked)
    return found if isinstance(found, Tensor) else torch.full_like(label_logit, found)
