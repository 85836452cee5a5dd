"""What a recipe reads beside its training: scores prepared, answers written, numbers of the reference remembered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from expunge.context import Prepared, together
from expunge.data import load
from expunge.footprint import BYTES, Amount, Shape, total
from expunge.recipe import Recipe
from expunge.refcache import Choice, choose, must_live
from expunge.terms import Term, needs_of, prepared_on


@dataclass(frozen=True)
class Work:
    """Forward passes that are not those of the training: for what, at most how many tokens, and their time if known."""

    name: str
    tokens: Amount
    seconds: float | None


def kept(recipe: Recipe, terms: Sequence[Term], tokens: Mapping[str, Amount], shape: Shape) -> Choice:
    """How the reference is kept, and why so.

    All tokens of a side are taken to be scored, so a model may be announced where the states would just fit.
    """
    needs = {term.on: needs_of(terms, term.on) for term in terms}
    if not any(one.any_reference for one in needs.values()):
        return Choice("nothing", "no term reads it")
    places = {on: len(one.reference_hidden) + one.reference_rows for on, one in needs.items() if on in tokens}
    states = sum(count * (tokens[on].value or 0) for on, count in places.items())
    count = shape.parameters.value
    return choose(
        recipe.reference,
        live=must_live(needs.values()),
        states=4 * states * shape.hidden,
        weights=None if count is None else BYTES[recipe.model.dtype] * count,
        adapter=recipe.train.adapter is not None and recipe.reference_model is None,
    )


def groundwork(
    recipe: Recipe, terms: Sequence[Term], tokens: Mapping[str, Amount], steps: Amount, shape: Shape, speed: float
) -> Iterator[Work]:
    """What a recipe computes beside its training, in the order of a run. `speed`: operations a second."""
    a_token = None if shape.parameters.value is None else 2 * shape.parameters.value / speed

    def work(name: str, count: Amount) -> Work:
        seconds = None if a_token is None or count.value is None else a_token * count.value
        return Work(name, count, seconds)

    for side, own in tokens.items():
        mine = [term for term in terms if term.on == side]
        if any("own" in term.needs.alternative for term in mine):
            yield work(f"other answers to {side} written", _written(recipe, own))
        scorers = prepared_on(terms, mine[0].on) if mine else ()
        if scorers:
            yield work(f"scores of {side} prepared: {', '.join(map(str, scorers))}", _read(scorers, own))
        for every in sorted({scorer.preparation.refresh for scorer in scorers} - {0}):
            again = [scorer for scorer in scorers if scorer.preparation.refresh == every]
            times = None if steps.value is None else max(0, steps.value - 1) // every
            name = f"scores of {side} made anew every {every} steps"
            yield work(name, _times(_read(again, own), times))
    if kept(recipe, terms, tokens, shape).kept == "numbers":
        reads = {term.on for term in terms if term.needs.any_reference}
        yield work(
            "numbers of the reference remembered", total(*(own for side, own in tokens.items() if side in reads))
        )


def _read(scorers: Sequence[Prepared], tokens: Amount) -> Amount:
    return _times(tokens, together(scorer.preparation for scorer in scorers).passes)


def _written(recipe: Recipe, tokens: Amount) -> Amount:
    """Prompts and answers of all samples for the records without alternatives of their own, as if each were longest."""
    source, settings = recipe.data.forget, recipe.data.alternatives
    if source is None or source.path is None or tokens.value is None:
        return Amount(None, exact=False)
    records = load.load(source, "forget")
    missing = sum(not record.alternatives for record in records)
    each = tokens.value / len(records) + settings.max_new_tokens
    return Amount(round(missing * settings.per_record * each), exact=False)


def _times(tokens: Amount, factor: float | None) -> Amount:
    known = tokens.value is not None and factor is not None
    return Amount(round((tokens.value or 0) * (factor or 0)) if known else None, exact=False)
