"""Terms of the loss: which tokens they read, with which weights; and their sum over a global batch.

loss = sum over terms of coef * sum_b value_b / sum_b count_b, where b runs over the rows of all micro-batches.
The counts are known before the first backward pass, so that accumulation changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor

from expunge import presets, registry
from expunge.context import Prepared, prepared_in
from expunge.core import Batch, Forward, Needs, Objective, Scorer, Selector, Side, State, Unweighted, Weights, Worded
from expunge.errors import MethodError
from expunge.recipe import Constraint, Method, TermSpec
from expunge.scorers.mix import Mix
from expunge.weighting.chain import bound
from expunge.weighting.controls import MATCHED, Control, controlled

Tokens = Literal["selected", "unselected", "all"]
_SCALE_NAMES = {"rank": "ranks", "zscore": "z-scores"}


@dataclass(frozen=True)
class Term:
    """One term: an objective on the tokens of one batch that a score and a selector weight.

    `state` is what its scorers have learned so far, if any of them learns.
    """

    objective: Objective
    on: Side
    score: Scorer
    select: Selector
    tokens: Tokens = "selected"
    modulate: Scorer | None = None
    coef: float = 1.0
    control: Control = "none"
    constraint: Constraint | None = None
    state: State = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """'forget/ga', as the log names it."""
        tokens = "" if self.tokens == "selected" else f" on {self.tokens}"
        return f"{self.on}/{self.objective}{tokens}"

    @property
    def needs(self) -> Needs:
        """What scorer, modulator and objective read together."""
        parts = [self.objective.needs] if self.tokens == "all" else [self.objective.needs, self.score.needs]
        if self.modulate is not None:
            parts.append(self.modulate.needs)
        return reduce(Needs.__or__, parts)

    def scores(self, forward: Forward) -> Tensor:
        """(B, T) the score of every token, in the run's method or in its control."""
        return self.score(forward, self.state)

    def weights(self, forward: Forward) -> Weights:
        """The weights of the tokens this term reads."""
        mask = forward.mask
        if self.tokens == "all":
            return Weights.ones(mask)
        scores = mask.float() if self.control in MATCHED else self.scores(forward)
        weights = controlled(bound(self.select, forward.batch), scores, mask, self.control, forward.batch.generator)
        if self.tokens == "unselected":
            return Weights(*_ones(mask & ~(weights.value > 0)), flat=weights.flat)
        if self.modulate is None:
            return weights
        return Weights(weights.value * self.modulate(forward, self.state), weights.mask, flat=weights.flat)

    def count_before(self, batch: Batch) -> Tensor | None:
        """(B,) the objective's count if it is known before the forward pass, else None."""
        static = self.control in MATCHED or not self.score.needs.policy
        static = static and (self.modulate is None or not self.modulate.needs.policy)
        if self.tokens == "all" or static:
            return self.objective.count(self.weights(Forward.before(batch)), batch.mask)
        if self.select.hard or self.tokens == "unselected":
            return None
        tried = [Weights(factor * batch.mask.float(), batch.mask) for factor in (1.0, 2.0, 0.0)]
        count, *others = (self.objective.count(weights, batch.mask) for weights in tried)
        return count if all(torch.equal(count, other) for other in others) else None


@dataclass(frozen=True)
class TermValue:
    """One term on one micro-batch: unreduced sums, and what its weights looked like."""

    term: Term
    value: Tensor
    count: Tensor
    weights: Weights
    batch: Batch


def build_terms(method: Method) -> tuple[Term, ...]:
    """The terms of a recipe's method, objects built; MethodError names what does not fit."""
    specs = method.terms
    if method.preset is not None:
        specs = tuple(TermSpec.model_validate(dict(term)) for term in presets.get(method.preset).terms)
    if not specs:
        raise MethodError("no method was given. Set method.preset (`expunge list` names them) or method.terms")
    terms = tuple(build_term(spec, method) for spec in _replace_factors(specs, method))
    if not any(term.on == "forget" for term in terms):
        raise MethodError("no term of the method reads the forget set, so nothing would be forgotten")
    for side in {term.on for term in terms}:
        _one_reference(side, [term for term in terms if term.on == side])
    if method.control != "none" and not any(term.tokens != "all" and term.on == "forget" for term in terms):
        raise MethodError(f"control={method.control} replaces the weights of forget terms, and this method has none")
    return terms


def negation_of(method: Method) -> float:
    """How far the other way the weights go after training, as a multiple; 0: not at all."""
    if method.negate is not None:
        return method.negate
    return 0.0 if method.preset is None else presets.get(method.preset).negate


def worded(terms: Sequence[Term], ids_of: Callable[[str], list[int]]) -> tuple[Term, ...]:
    """The terms with what their objectives name by text as tokens; `ids_of` is the model's tokenizer."""
    return tuple(
        replace(term, objective=term.objective.worded(ids_of)) if isinstance(term.objective, Worded) else term
        for term in terms
    )


def needs_of(terms: Sequence[Term], side: Side) -> Needs:
    """What the terms of one side read."""
    return reduce(Needs.__or__, (t.needs for t in terms if t.on == side), Needs(policy=False))


def prepared_on(terms: Sequence[Term], side: Side) -> tuple[Prepared, ...]:
    """The scores, each once, that must be prepared for the terms of one side."""
    mine = [term for term in terms if term.on == side]
    read = [t.score for t in mine if t.tokens != "all"] + [t.modulate for t in mine if t.modulate is not None]
    return tuple({str(found): found for scorer in read for found in prepared_in(scorer)}.values())


def coupled(terms: Sequence[Term]) -> list[str]:
    """The labels of terms whose objective couples the rows of a micro-batch: accumulation changes what they compute."""
    return [term.label for term in terms if term.objective.couples == "batch"]


def labels(terms: Sequence[Term]) -> list[str]:
    """A distinct name for each term, in order."""
    names: list[str] = []
    for term in terms:
        same = sum(name.split(" #")[0] == term.label for name in names)
        names.append(f"{term.label} #{same + 1}" if same else term.label)
    return names


def term_values(terms: Sequence[Term], forwards: Mapping[Side, Forward]) -> list[TermValue]:
    """Each term on its side's forward pass. A weight is checked as it is made; a bad one names its term."""
    out = []
    for term in terms:
        forward = forwards[term.on]
        try:
            weights = term.weights(forward)
        except ValueError as error:
            raise MethodError(f"term '{term.label}', score '{term.score}', select '{term.select}': {error}") from error
        loss = term.objective(forward, weights)
        out.append(TermValue(term, loss.value.sum(), loss.count.sum(), weights, forward.batch))
    return out


def weight_report(values: Sequence[TermValue]) -> dict[str, Any]:
    """Sums over micro-batches of the first forget term: tokens scored and selected, weight, weight on gold tokens."""
    out: dict[str, float] = {"scored": 0.0, "selected": 0.0, "weight": 0.0, "gold": 0.0, "flat": 0.0, "empty": 0.0}
    first = next((v.term for v in values if v.term.on == "forget"), None)
    for v in values:
        if v.term is not first:
            continue
        scored = v.batch.mask
        out["scored"] += float(scored.sum())
        out["selected"] += float((v.weights.value > 0).sum())
        out["weight"] += float(v.weights.value.sum())
        gold = v.batch.static.get("gold")
        out["gold"] += float("nan") if gold is None else float(v.weights.value[gold > 0].sum())
        out["flat"] += v.weights.flat
        out["empty"] += float((scored.any(-1) & ~(v.weights.value > 0).any(-1)).sum())
    return out


def build_term(spec: TermSpec, method: Method) -> Term:
    """One term of a recipe, its control as the method says."""
    score, select = registry.build("scorer", spec.score), registry.build("selector", spec.select)
    modulate = None if spec.modulate is None else registry.build("scorer", spec.modulate)
    objective = registry.build("objective", spec.objective)
    for read in (score, modulate):
        if read is not None:
            require_read(objective, read, select)
    require_fit(score, select)
    if spec.constraint is not None and spec.coef != 1.0:
        raise MethodError(
            f"the term '{spec.objective}' has a constraint, which finds its factor, and coef or retain_coef "
            f"{spec.coef:g}; leave that out, or set constraint.start"
        )
    if isinstance(modulate, Mix) and modulate.scale != "minmax":
        raise MethodError(
            f"modulate '{modulate}' is a sum of {_SCALE_NAMES[modulate.scale]}, and no amount to multiply by"
        )
    return Term(
        objective=objective,
        on=spec.on,
        score=score,
        select=select,
        tokens=spec.tokens,
        modulate=modulate,
        coef=spec.coef,
        control=method.control if spec.on == "forget" else "none",
        constraint=spec.constraint,
    )


def require_read(objective: Objective, score: Scorer, select: Selector) -> None:
    """MethodError for weights that nothing reads."""
    if isinstance(objective, Unweighted) and objective.unweighted and (str(score), str(select)) != ("uniform", "raw"):
        raise MethodError(
            f"objective '{objective}' reads prompt and padding too, and no weights, so score '{score}' with select "
            f"'{select}' would change nothing. Leave them out, or set positions=scored"
        )


def require_fit(score: Scorer, select: Selector) -> None:
    """MethodError for an order used as weights."""
    if isinstance(score, Mix) and score.scale != "minmax" and not select.signed:
        raise MethodError(
            f"score '{score}' gives {_SCALE_NAMES[score.scale]}, which are an order and no weights; select '{select}' "
            "would use them as such. Put top, threshold or softmax first"
        )


def _one_reference(side: Side, terms: Sequence[Term]) -> None:
    """MethodError if the terms of one side read the reference with attention at more than one temperature."""
    read = [term for term in terms if any(m.reads_reference for m in term.needs.vocab)]
    if len({term.needs.smoothing for term in read}) > 1:
        names = " and ".join(str(term.objective) for term in read)
        raise MethodError(f"{names} on {side} read the reference with attention at different temperatures; choose one")


def _replace_factors(specs: Sequence[TermSpec], method: Method) -> list[TermSpec]:
    """The terms with the method's factors: the first forget (or other) term gets it, further ones keep their ratio."""
    out = []
    for spec in specs:
        forget = spec.on == "forget"
        replaced = method.forget_coef if forget else method.retain_coef
        first = next(s.coef for s in specs if (s.on == "forget") == forget)
        coef = spec.coef if replaced is None else replaced * (spec.coef / first if first else 1.0)
        out.append(spec.model_copy(update={"coef": coef}))
    return out


def _ones(mask: Tensor) -> tuple[Tensor, Tensor]:
    return mask.float(), mask
