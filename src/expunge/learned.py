"""What a method learns beside the model's weights: dual variables of terms held below a level, parameters of scorers.

All of it moves at most once an update, enters the terms of the next one, stands in the log and in checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from expunge.context import Learning, Parameters, parts_of
from expunge.core import Forward, Needs, Side, State
from expunge.lm import LM
from expunge.recipe import Constraint
from expunge.terms import Term, labels


@dataclass(frozen=True)
class Update:
    """An update of the model as what learns beside it sees it: number `done` of `total`, from 1.

    `epoch` is where it began, `means` what each term was over the whole global batch, and `forwards(side, needs)` its
    micro-batches through the model as it is now, without gradient or dropout.
    """

    done: int
    total: int
    epoch: float
    means: Sequence[float]
    forwards: Callable[[Side, Needs], list[Forward]]


class Learner(Protocol):
    """Something that is learned: how it enters terms, how it moves (numbers for the log come out), what is saved."""

    @property
    def name(self) -> str: ...
    def bound(self, terms: Sequence[Term]) -> tuple[Term, ...]: ...
    def update(self, seen: Update) -> dict[str, Any]: ...
    def state(self) -> dict[str, Tensor]: ...
    def restore(self, state: Mapping[str, Tensor]) -> None: ...


@dataclass
class Duals:
    """The dual variables of constrained terms, by their place: they rise while a term is above its level, else fall.

    >>> held = Constraint(at_most=0.3, start=2.0, rate=5.0)
    >>> round(raised(held, 2.0, 0.5), 4), raised(held, 2.0, -1.0)  # 2 + 5 (0.5 - 0.3), and never below 0
    (3.0, 0.0)
    """

    terms: Sequence[Term]
    values: dict[int, float] = field(init=False)
    name: str = "duals"

    def __post_init__(self) -> None:
        self.values = {i: t.constraint.start for i, t in enumerate(self.terms) if t.constraint is not None}

    def bound(self, terms: Sequence[Term]) -> tuple[Term, ...]:
        """The terms, the constrained ones with their dual variable as factor."""
        return tuple(replace(t, coef=self.values.get(i, t.coef)) for i, t in enumerate(terms))

    def update(self, seen: Update) -> dict[str, Any]:
        """Moves every dual variable, except in its warm-up; returns those that the update had."""
        names = labels(self.terms)
        had = {names[i]: value for i, value in self.values.items()}
        for i, value in self.values.items():
            held = self.terms[i].constraint
            if held is not None and seen.epoch >= held.warmup_epochs:
                self.values[i] = raised(held, value, seen.means[i])
        return {"duals": had}

    def state(self) -> dict[str, Tensor]:
        return {str(i): torch.tensor(value, dtype=torch.float64) for i, value in self.values.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.values = {i: float(state[str(i)]) for i in self.values}


@dataclass
class Scorers:
    """The scorers of some terms that learn, by spec, and what each has learned; two terms with one spec share it.

    A scorer sees the records of the first term that reads it.
    """

    read: Mapping[str, tuple[Learning, Side]]
    known: dict[str, Parameters]
    name: str = "scorers"

    def bound(self, terms: Sequence[Term]) -> tuple[Term, ...]:
        """The terms with what their scorers know."""
        return tuple(replace(term, state=self.known) for term in terms)

    def update(self, seen: Update) -> dict[str, Any]:
        """Moves every scorer that is due; returns its numbers, by scorer."""
        told: dict[str, float] = {}
        for spec, (scorer, side) in self.read.items():
            if seen.done % scorer.every == 0:
                left = 1 - (seen.done - scorer.every) / seen.total
                forwards = seen.forwards(side, scorer.needs)
                self.known[spec], numbers = scorer.learn(forwards, self.known[spec], left)
                told |= {f"{spec} {name}": number for name, number in numbers.items()}
        return {"scorers": told} if told else {}

    def state(self) -> dict[str, Tensor]:
        return {f"{spec}/{name}": t.cpu() for spec, own in self.known.items() for name, t in own.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.known = {
            spec: {name: state[f"{spec}/{name}"].to(t.device) for name, t in own.items()}
            for spec, own in self.known.items()
        }


@dataclass
class Learned:
    """All that a run's method learns beside the model; nothing by default."""

    learners: tuple[Learner, ...] = ()

    @property
    def known(self) -> State:
        """What scorers have learned so far."""
        return next((dict(found.known) for found in self.learners if isinstance(found, Scorers)), None)

    def bound(self, terms: Sequence[Term]) -> tuple[Term, ...]:
        """The run's terms as they are in this update."""
        for learner in self.learners:
            terms = learner.bound(terms)
        return tuple(terms)

    def update(self, seen: Update) -> dict[str, Any]:
        """Moves what is due; returns what goes into the log."""
        return {key: value for learner in self.learners for key, value in learner.update(seen).items()}

    def state(self) -> dict[str, Tensor]:
        """All that a checkpoint must hold."""
        return {f"{found.name}/{key}": tensor for found in self.learners for key, tensor in found.state().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes up what `state` had."""
        for learner in self.learners:
            own = f"{learner.name}/"
            learner.restore({key.removeprefix(own): t for key, t in state.items() if key.startswith(own)})


def learned_of(terms: Sequence[Term], lm: LM) -> Learned:
    """What the method of these terms learns beside the model, as it is before training."""
    read: dict[str, tuple[Learning, Side]] = {}
    for term in terms:
        for scorer in (term.score, term.modulate):
            for part in () if scorer is None else parts_of(scorer):
                if isinstance(part, Learning):
                    read.setdefault(str(part), (part, term.on))
    width = int(lm.model.config.get_text_config().hidden_size)
    known: dict[str, Parameters] = {
        spec: {name: t.to(lm.device) for name, t in scorer.begin(width).items()} for spec, (scorer, _) in read.items()
    }
    duals = Duals(terms)
    return Learned((*((duals,) if duals.values else ()), *((Scorers(read, known),) if read else ())))


def loss_of(terms: Sequence[Term], means: Sequence[float]) -> float:
    """The Lagrangian: constrained terms enter with what they are above their level."""
    return sum(
        t.coef * (mean - (0.0 if t.constraint is None else t.constraint.at_most))
        for t, mean in zip(terms, means, strict=True)
    )


def raised(held: Constraint, value: float, mean: float) -> float:
    """max(0, value + rate * (mean - at_most))."""
    return max(0.0, value + held.rate * (mean - held.at_most))
