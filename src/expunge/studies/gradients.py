"""Weighted gradients of single records, reduced at once to two numbers each: along a direction, and squared length."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from expunge.core import Batch, Needs
from expunge.errors import ModelError
from expunge.lm import Scored

Vector = Mapping[str, Tensor]
"""A vector in the space of the chosen parameters, by their names."""


@dataclass(frozen=True)
class Probe:
    """A model and the parameters in whose space gradients are taken."""

    module: Scored
    parameters: Mapping[str, Tensor]

    @classmethod
    def of(cls, model: PreTrainedModel, pattern: str | None = None) -> Probe:
        """The probe of the parameters whose name the regular expression finds; all if there is none.

        The model's parameters take gradients afterwards. ModelError if no name fits.
        """
        chosen = choose(model, pattern)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        return cls(Scored(model.eval()), chosen)

    def gradients(self, batch: Batch, weights: Sequence[Tensor]) -> Iterator[Vector]:
        """g = sum_t w_t grad(-log p_t) / sum_t w_t for each of `weights` (n,), of a batch of one row, n tokens scored.

        -log p, so that g is the way in which gradient ascent on the record goes. Weights whose sum is 0 are an error.
        """
        with torch.enable_grad():
            loss = -self.module(batch, Needs()).logp[batch.mask]
        for place, own in enumerate(weights):
            w = own.to(loss)
            found = torch.autograd.grad(
                (w * loss).sum() / w.sum(),
                list(self.parameters.values()),
                retain_graph=place + 1 < len(weights),
                allow_unused=True,
            )
            zipped = zip(self.parameters.items(), found, strict=True)
            yield {name: torch.zeros_like(p) if g is None else g for (name, p), g in zipped}


def choose(model: PreTrainedModel, pattern: str | None) -> dict[str, Tensor]:
    """The parameters whose name the regular expression finds, or all; ModelError if none is found."""
    found: dict[str, Tensor] = {
        name: p for name, p in model.named_parameters() if pattern is None or re.search(pattern, name)
    }
    if not found:
        names = ", ".join(name for name, _ in list(model.named_parameters())[:4])
        raise ModelError(f"no parameter's name fits '{pattern}'. They are called: {names}, ...")
    return found


def between(start: PreTrainedModel, end: PreTrainedModel, pattern: str | None) -> Vector:
    """The unit vector of (end - start) in the chosen parameters; ModelError if the models are unlike, or equal."""
    one, other = choose(start, pattern), choose(end, pattern)
    if {n: p.shape for n, p in one.items()} != {n: p.shape for n, p in other.items()}:
        raise ModelError("the oracle's parameters have other names or shapes than the target's: there is no direction")
    return unit({name: (other[name].detach() - one[name].detach()).float() for name in one})


def unit(vector: Vector) -> Vector:
    """The vector scaled to length 1; ModelError if it has none."""
    length = square(vector) ** 0.5
    if not length > 0:
        raise ModelError("the direction has length 0: both models are equal, or no token had a gradient")
    return {name: part / length for name, part in vector.items()}


def add(total: dict[str, Tensor], part: Vector) -> None:
    """Adds a vector to a running sum in place."""
    for name, value in part.items():
        total[name] = value.float().clone() if name not in total else total[name].add_(value)


def dot(one: Vector, other: Vector) -> float:
    """The inner product, summed in float64."""
    return float(sum(float((part.double() * other[name].double()).sum()) for name, part in one.items()))


def square(vector: Vector) -> float:
    """The squared length, summed in float64."""
    return float(sum(float(part.double().pow(2).sum()) for part in vector.values()))


def moments(vectors: Iterable[Vector], direction: Vector) -> list[tuple[float, float]]:
    """(<g, d>, ||g||^2) of each vector; one is held in memory at a time."""
    return [(dot(vector, direction), square(vector)) for vector in vectors]
