"""How gradients of the parts of a loss meet, and how far a step may go: what a plain sum of terms cannot say.

A plain sum needs nothing of this: one backward pass a micro-batch. A `Combine` gets the gradients of its parts apart,
each added up over all micro-batches in a buffer of its own, and makes of them the gradient that the optimiser sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from expunge import collective
from expunge.errors import MethodError, TrainingError
from expunge.terms import Term

How = Literal["sum", "project", "sago"]
Gradient = Sequence[Tensor | None]
"""One tensor a trainable parameter, in their order; None where nothing reached it."""


@dataclass(frozen=True)
class Split:
    """The terms of an update, those of the loss first, and the places among them of each part that is kept apart.

    Terms behind those of the loss are looked at, and enter the gradient only as the `Combine` says.
    """

    terms: tuple[Term, ...]
    parts: Mapping[str, tuple[int, ...]]


class Combine(Protocol):
    """Makes one gradient of several. `report` are numbers for the step's line in the log."""

    def split(self, terms: Sequence[Term]) -> Split: ...
    def __call__(self, gradients: Mapping[str, Gradient]) -> tuple[Gradient, dict[str, float]]: ...


@dataclass(frozen=True)
class GradMatched:
    """The gradient of the forget terms under uniform weights, scaled to the norm of that under the method's weights.

    Both at the same parameters, records and dropout, over the whole global batch; what the control does not replace
    (the retain terms) is added as it is. `forget_scale` in the log is the factor. Costs one more backward pass over the
    forget batch for each of the two, and two more buffers of the size of the gradient.

    Source: ours; the magnitude-matched control that readers of TokenUnlearn (arXiv 2605.00364) asked for.
    Relations: AdamW and clipping rescale whatever they are given; `update-matched` matches what comes out of them.
    """

    def split(self, terms: Sequence[Term]) -> Split:
        """The terms, and behind them the forget terms with the weights of the method itself."""
        forget = tuple(i for i, t in enumerate(terms) if t.control == "grad-matched" and t.tokens != "all")
        others = tuple(i for i in range(len(terms)) if i not in forget)
        weighted = tuple(replace(terms[i], control="none") for i in forget)
        behind = tuple(range(len(terms), len(terms) + len(weighted)))
        parts = {"forget": forget, "weighted": behind, "others": others}
        return Split((*terms, *weighted), {name: part for name, part in parts.items() if part})

    def __call__(self, gradients: Mapping[str, Gradient]) -> tuple[Gradient, dict[str, float]]:
        forget = gradients["forget"]
        own, wanted = norm(forget), norm(gradients["weighted"])
        if own == 0 and wanted > 0:
            raise TrainingError(
                f"control grad-matched: the gradient of uniform weights is 0 where the method's has norm {wanted:.3g}, "
                "so no factor makes them equal. Compare by control=update-matched"
            )
        scale = wanted / own if own else 1.0
        others = gradients.get("others") or [None] * len(forget)
        return [_added(_scaled(f, scale), o) for f, o in zip(forget, others, strict=True)], {"forget_scale": scale}


@dataclass(frozen=True)
class Sum:
    """g_f + g_r, for where the two are kept apart on the way."""

    def split(self, terms: Sequence[Term]) -> Split:
        forget, others = _sides(terms)
        return Split(tuple(terms), {"forget": forget, "others": others} if others else {"forget": forget})

    def __call__(self, gradients: Mapping[str, Gradient]) -> tuple[Gradient, dict[str, float]]:
        forget = gradients["forget"]
        others = gradients.get("others") or [None] * len(forget)
        return [_added(f, o) for f, o in zip(forget, others, strict=True)], {}


@dataclass(frozen=True)
class Project:
    """g_r + g_f, g_f without its part against g_r: where <g_f, g_r> < 0, g_f - (<g_f, g_r> / ||g_r||^2) g_r.

    g_f is the gradient of what forgets, g_r that of all other terms, each with its factors; the products run over all
    parameters. To first order the step then undoes nothing of what retains. `gradient_cosine` in the log is that of
    g_f and g_r before.

    Source: PCGrad (Yu et al., arXiv 2001.06782), for one of the two sides.
    Relations: `Sago` decides coordinate by coordinate.

    >>> gradient, report = Project()({"forget": [torch.tensor([1.0, -1.0])], "others": [torch.tensor([0.0, 2.0])]})
    >>> gradient[0].tolist(), round(report["gradient_cosine"], 4)  # [1, -1] loses its second part
    ([1.0, 2.0], -0.7071)
    """

    def split(self, terms: Sequence[Term]) -> Split:
        return _two_parts(terms, "project")

    def __call__(self, gradients: Mapping[str, Gradient]) -> tuple[Gradient, dict[str, float]]:
        forget, others = gradients["forget"], gradients["others"]
        inner, square = _product(forget, others), norm(others) ** 2
        against = min(0.0, inner) / square if square else 0.0
        met = [_added(f, _scaled(o, 1.0 - against)) for f, o in zip(forget, others, strict=True)]
        return met, {"gradient_cosine": _cosine(inner, norm(forget), math.sqrt(square))}


@dataclass(frozen=True)
class Sago:
    """g_f in the coordinates where it has the sign of g_r, g_r in the others: nothing is forgotten against the rest.

    g_f and g_r as in `Project`. `agreeing` in the log is the share of coordinates that follow g_f.

    Source: SAGO (ACL 2026, arXiv 2604.14808), from a digest of the equation; the code was not compared.
    Differs: where both are 0 the coordinate counts as agreeing.

    >>> parts = {"forget": [torch.tensor([1.0, -3.0])], "others": [torch.tensor([2.0, 2.0])]}
    >>> gradient, report = Sago()(parts)
    >>> gradient[0].tolist(), report["agreeing"]
    ([1.0, 2.0], 0.5)
    """

    def split(self, terms: Sequence[Term]) -> Split:
        return _two_parts(terms, "sago")

    def __call__(self, gradients: Mapping[str, Gradient]) -> tuple[Gradient, dict[str, float]]:
        met: list[Tensor | None] = []
        agreeing = total = 0
        for one, other in zip(gradients["forget"], gradients["others"], strict=True):
            if one is None or other is None:
                met.append(other)  # a gradient that is nowhere else 0 has no sign to agree with
                continue
            same = one.sign() == other.sign()
            met.append(torch.where(same, one, other))
            agreeing, total = agreeing + int(same.sum()), total + same.numel()
        return met, {"agreeing": agreeing / total if total else 0.0}


def combine_of(terms: Sequence[Term], how: How = "sum", apart: bool = False) -> Combine | None:
    """How the gradients of these terms meet; None where it is their plain sum, unless they are to be kept `apart`."""
    matched = any(t.control == "grad-matched" for t in terms)
    if matched and apart:
        raise MethodError("control=grad-matched and train.sam_radius both change the gradient; use update-matched")
    if matched and how != "sum":
        raise MethodError(f"control=grad-matched scales the gradient before a plain sum, not before combine={how}")
    if how == "project":
        return Project()
    if how == "sago":
        return Sago()
    return GradMatched() if matched else Sum() if apart else None


def _two_parts(terms: Sequence[Term], how: How) -> Split:
    forget, others = _sides(terms)
    if not others:
        raise MethodError(f"combine={how} needs a term beside those that forget, such as nll on retain")
    return Split(tuple(terms), {"forget": forget, "others": others})


def _sides(terms: Sequence[Term]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What forgets, and all other terms: other sides, and what holds the unselected tokens of forget records."""
    forget = tuple(i for i, t in enumerate(terms) if t.on == "forget" and t.tokens != "unselected")
    return forget, tuple(i for i in range(len(terms)) if i not in forget)


@dataclass
class Apart:
    """The gradients of the parts of a split, added up over micro-batches. `parameters` are those that train."""

    parameters: Sequence[nn.Parameter]
    split: Split
    gradients: dict[str, Gradient] = field(default_factory=dict)

    def backward(self, losses: Sequence[Tensor], backward: Callable[..., None]) -> None:
        """Adds one micro-batch: `losses` are those of the split's terms, `backward(loss, retain_graph=...)` runs."""
        last = list(self.split.parts)[-1]
        for name, part in self.split.parts.items():
            self._put(self.gradients.get(name) or [None] * len(self.parameters))
            backward(torch.stack([losses[i] for i in part]).sum(), retain_graph=name != last)
            self.gradients[name] = [p.grad for p in self.parameters]
        self._put([None] * len(self.parameters))

    def sum_over_processes(self) -> None:
        """The gradients of all processes in place of this one's."""
        nothing: Gradient = [None] * len(self.parameters)
        for name in self.split.parts:
            self.gradients[name] = collective.sum_gradients(self.gradients.get(name, nothing), self.parameters)

    def meet(self, combine: Combine) -> dict[str, float]:
        """Puts the combined gradient where the optimiser reads it; returns the numbers for the log."""
        gradient, report = combine(self.gradients)
        self._put(gradient)
        self.gradients.clear()
        return report

    def _put(self, gradient: Gradient) -> None:
        for parameter, own in zip(self.parameters, gradient, strict=True):
            parameter.grad = own


def norm(gradient: Gradient) -> float:
    """||g||_2 over all parameters, each tensor's part in float32."""
    return math.sqrt(sum(float(g.float().square().sum()) for g in gradient if g is not None))


def measured_step(optimizer: torch.optim.Optimizer, pieces: Sequence[Sequence[nn.Parameter]]) -> float:
    """||theta_after - theta_before||_2 of a step of the optimiser on all parameters.

    The step is taken piece by piece, which changes no bit of it: so only a piece of the old parameters is held.
    """
    square = 0.0
    with _without_gradients([p for piece in pieces for p in piece]) as gradients:
        for piece in pieces:
            old = [p.detach().clone() for p in piece]
            for parameter in piece:
                parameter.grad = gradients[parameter]
            optimizer.step()
            square += _moved(piece, old) ** 2
            for parameter in piece:
                parameter.grad = None
    return math.sqrt(square)


def rescaled_step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], wanted: float
) -> tuple[float, float]:
    """||theta_after - theta_before||_2 of a step that was rescaled so that it is `wanted`, and the factor.

    Holds a copy of all parameters for the time of the step. TrainingError if the step does not move.
    """
    old = [p.detach().clone() for p in parameters]
    optimizer.step()
    moved = _moved(parameters, old)
    if moved == 0 and wanted > 0:
        raise TrainingError(
            f"control update-matched: the paired run moved by {wanted:.3g} in this step, this one not at all, so no "
            "factor makes them equal"
        )
    scale = wanted / moved if moved else 1.0
    with torch.no_grad():
        for parameter, before in zip(parameters, old, strict=True):
            parameter.copy_(torch.lerp(before, parameter, scale))
    return _moved(parameters, old), scale


@contextmanager
def _without_gradients(parameters: Sequence[nn.Parameter]) -> Iterator[Mapping[nn.Parameter, Tensor | None]]:
    gradients = {p: p.grad for p in parameters}
    for parameter in parameters:
        parameter.grad = None
    yield gradients
    for parameter in parameters:
        parameter.grad = gradients[parameter]


def _moved(parameters: Sequence[nn.Parameter], old: Sequence[Tensor]) -> float:
    with torch.no_grad():
        return norm([p.float() - before.float() for p, before in zip(parameters, old, strict=True)])


def _product(one: Gradient, other: Gradient) -> float:
    """<g, h> over all parameters, each tensor's part in float32."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return math.fsum(float((a.float() * b.float()).sum()) for a, b in pairs)


def _cosine(inner: float, one: float, other: float) -> float:
    return inner / (one * other) if one and other else 0.0


def _scaled(gradient: Tensor | None, factor: float) -> Tensor | None:
    return None if gradient is None else gradient * factor


def _added(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other
