"""Terms held below a level: their factor is a dual variable, which rises while they are above it and falls below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from expunge.recipe import Constraint
from expunge.terms import Term


@dataclass
class Duals:
    """The dual variables of a run's constrained terms, by their place; saved with its checkpoints.

    >>> held = Constraint(at_most=0.3, start=2.0, rate=5.0)
    >>> round(raised(held, 2.0, 0.5), 4), raised(held, 2.0, -1.0)  # 2 + 5 (0.5 - 0.3), and never below 0
    (3.0, 0.0)
    """

    terms: Sequence[Term]
    values: dict[int, float] = field(init=False)

    def __post_init__(self) -> None:
        self.values = {i: t.constraint.start for i, t in enumerate(self.terms) if t.constraint is not None}

    def priced(self) -> tuple[Term, ...]:
        """The terms, the constrained ones with their dual variable as factor."""
        return tuple(replace(t, coef=self.values.get(i, t.coef)) for i, t in enumerate(self.terms))

    def loss(self, means: Sequence[float]) -> float:
        """The Lagrangian: constrained terms enter with what they are above their level."""
        return sum(
            t.coef * (mean - (0.0 if t.constraint is None else t.constraint.at_most))
            for t, mean in zip(self.priced(), means, strict=True)
        )

    def update(self, means: Sequence[float], epoch: float) -> None:
        """Moves every dual variable once, by the means over the whole global batch; not while `epoch` is warm-up."""
        for i, value in self.values.items():
            held = self.terms[i].constraint
            if held is not None and epoch >= held.warmup_epochs:
                self.values[i] = raised(held, value, means[i])

    def named(self, names: Sequence[str]) -> dict[str, float]:
        """The values by the names of the terms, for the log."""
        return {names[i]: value for i, value in self.values.items()}

    def restore(self, saved: Mapping[str, float]) -> None:
        """Takes up values saved as `{str(place): value}`."""
        self.values = {i: float(saved[str(i)]) for i in self.values}


def raised(held: Constraint, value: float, mean: float) -> float:
    """max(0, value + rate * (mean - at_most))."""
    return max(0.0, value + held.rate * (mean - held.at_most))
