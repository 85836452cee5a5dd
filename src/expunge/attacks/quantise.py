"""Quantisation: weights rounded to a few bits may fall back to what they were before they were moved a little."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from expunge.attacks import asking
from expunge.attacks.scene import Budget, Scene, Tell, row
from expunge.attacks.words import Count
from expunge.errors import MethodError, unknown
from expunge.evals.reductions import PLAIN, Row
from expunge.lm import LM
from expunge.registry import method

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""The sixteen levels of NF4, the quantiles of a normal distribution that QLoRA uses."""
_LEVELS = {"int8": 127, "int4": 7}


@method("attack", "quantise")
@dataclass(frozen=True)
class Quantise:
    """The key words' probability after weight-only quantisation of all linear layers but the head; worst `kinds` first.

    `int8` and `int4` round to the nearest of 2^bits - 1 even steps, `nf4` to the levels of QLoRA's type, each scaled by
    the largest weight of a `group` of neighbours in a row. The weights are rounded and used in their own type, which is
    what weight-only kernels compute. Where the target is there, `weights KIND` is the cheap predictor: the mean change
    since the target over the mean width of a step, by matrix; far below 1, rounding tends to undo the change.

    Source: Zhang et al., ICLR 2025, arXiv 2410.16454. Differs: levels and scales are those of bitsandbytes, its kernels
    are not used; scales are not quantised again.
    """

    kinds: str = "int8 int4 nf4"
    group: Count = 64

    leak: ClassVar[bool] = True
    shows: ClassVar[str] = "probability of the key words with quantised weights"
    needs: ClassVar[tuple[str, ...]] = ()
    reduction: ClassVar[str] = "best"

    def __post_init__(self) -> None:
        for kind in self.parts:
            if kind not in (*_LEVELS, "nf4"):
                raise MethodError(unknown("quantisation", kind, [*_LEVELS, "nf4"]))

    @property
    def parts(self) -> tuple[str, ...]:
        """The kinds."""
        return tuple(self.kinds.split())

    def budget(self, scene: Scene, part: str) -> Budget:
        """A pass over the records; two for the first kind."""
        return Budget(read=len(scene.examined()) * scene.size * (1 + (part == self.parts[0])))

    def rows(self, scene: Scene, label: str, part: str, tell: Tell) -> Iterator[Row]:
        """A row a record, and one a matrix."""
        lm, records = scene.load(label), scene.examined()
        encoder = scene.encoder(lm)
        if part == self.parts[0]:
            before = asking.probabilities(lm, encoder, records, token_budget=scene.token_budget)
            yield from (row(record, PLAIN, before[record.id]) for record in records)
        if label == scene.own and "target" in scene.models:
            yield from _changes(lm, scene.load("target"), part, self.group)
        for linear in linears(lm).values():
            linear.weight.data.copy_(quantised(linear.weight.data, part, self.group))
        seen = asking.probabilities(lm, encoder, records, token_budget=scene.token_budget)
        yield from (row(record, part, seen[record.id]) for record in records)


def quantised(weight: Tensor, kind: str, group: int) -> Tensor:
    """`weight` (out, in) rounded to the levels of `kind`, scaled by the largest weight of each group in a row.

    >>> quantised(torch.tensor([[7.0, 3.4, -0.6, 0.0]]), "int4", 4).tolist()
    [[7.0, 3.0, -1.0, 0.0]]
    >>> [round(v, 2) for v in quantised(torch.tensor([[2.0, 0.4]]), "nf4", 2)[0].tolist()]
    [2.0, 0.32]
    """
    rows, scale = _grouped(weight, group)
    if kind == "nf4":
        levels = torch.tensor(NF4, dtype=rows.dtype, device=rows.device)
        middles = (levels[1:] + levels[:-1]) / 2
        rounded = levels[torch.bucketize(rows / scale, middles)] * scale
    else:
        step = scale / _LEVELS[kind]
        rounded = (rows / step).round() * step
    return rounded.flatten(1)[:, : weight.shape[1]].to(weight.dtype)


def width(weight: Tensor, kind: str, group: int) -> float:
    """The mean width of a step of the quantised weights."""
    scale = float(_grouped(weight, group)[1].mean())
    return scale * 2 / (len(NF4) - 1) if kind == "nf4" else scale / _LEVELS[kind]


def linears(lm: LM) -> dict[str, nn.Linear]:
    """The linear layers by name, without the vocabulary head."""
    head = lm.model.get_output_embeddings()
    return {
        name: module
        for name, module in lm.model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def _grouped(weight: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """(out, groups, group) float32, rows filled with 0, and the largest size in each group (out, groups, 1)."""
    rest = -weight.shape[1] % group
    rows = nn.functional.pad(weight.float(), (0, rest)).reshape(len(weight), -1, group)
    return rows, rows.abs().amax(-1, keepdim=True).clamp(min=1e-12)


def _changes(lm: LM, target: LM, kind: str, group: int) -> Iterator[Row]:
    before = linears(target)
    for name, linear in linears(lm).items():
        old = before[name].weight.detach()
        moved = float((linear.weight.detach() - old).abs().mean())
        yield Row("weights", name, "", kind, 0.0, moved / width(old, kind, group))
