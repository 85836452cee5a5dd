"""The cards of the first screen: each a question, its number for every model beside the oracle, an answer in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from expunge.report import charts, compare, naming, robust, words
from expunge.report.charts import Mark
from expunge.report.collect import Cell, Column, View
from expunge.report.compare import Difference
from expunge.report.naming import Metric


@dataclass(frozen=True)
class Row:
    """One model in a card: its value drawn and said."""

    name: str
    css: str
    cell: Cell
    svg: Markup
    as_oracle: bool = False


@dataclass(frozen=True)
class Card:
    """One question of the first screen, with `answer` in words; without rows, `answer` says why there are none."""

    question: str
    asks: str
    metric: Metric | None = None
    rows: tuple[Row, ...] = ()
    answer: str = ""
    decimals: int = 3


def draw(seen: Sequence[View], models: Sequence[Column], styles: Mapping[str, str]) -> list[Card]:
    """The cards of these runs: forgotten, extractable, kept, leaks, robust."""
    found = [
        card(question, asks, compare.headline(models, wanted), models, styles)
        for question, asks, wanted in naming.HEADLINES
    ]
    return [*found, _robust(seen, models, styles)]


def card(question: str, asks: str, metric: Metric | None, models: Sequence[Column], styles: Mapping[str, str]) -> Card:
    """One question, answered by a metric; None if nothing that answers it was measured."""
    if metric is None:
        runs = sum(model.role == "run" for model in models)
        return Card(question, asks, answer=f"Not measured in {'this run' if runs == 1 else 'these runs'}.")
    there = [model for model in models if metric.name in model.cells]
    marks = [mark_of(model, metric.name, styles) for model in there]
    oracle = next((mark for model, mark in zip(there, marks, strict=True) if model.role == "oracle"), None)
    aim = next((model for model in models if model.role == "oracle"), None)
    domain = charts.strip_domain(marks)
    gaps = {model.name: compare.difference(metric.name, model, aim) for model in there if aim and model.role == "run"}
    rows = tuple(
        Row(
            model.name,
            mark.css,
            model.cells[metric.name],
            charts.strip(mark, domain, oracle),
            close(gaps.get(model.name)),
        )
        for model, mark in zip(there, marks, strict=True)
    )
    return Card(question, asks, metric, rows, _answer(gaps), compare.decimals(metric.name, there))


def _robust(seen: Sequence[View], models: Sequence[Column], styles: Mapping[str, str]) -> Card:
    """The attack that brought back most, of any of the runs."""
    attack = robust.worst(seen)
    if attack is None:
        return Card(robust.QUESTION, robust.ASKS, answer=robust.UNTESTED)
    title = Metric(f"attack_{attack.name}", robust.QUESTION, f"Worst attack: {attack.name}", attack.measure)
    attacked = [
        dataclasses.replace(model, cells={title.name: cell})
        for model in models
        if (cell := attack.cells.get((model.role, model.name))) is not None
    ]
    found = card(robust.QUESTION, robust.ASKS, title, attacked, styles)
    return dataclasses.replace(found, answer=robust.answer(seen))


def _answer(gaps: Mapping[str, Difference | None]) -> str:
    """'etw: like the oracle. wga: below the oracle.'; no name if there is one run; '' without an oracle."""
    where: dict[str, list[str]] = {"like the oracle": [], "above the oracle": [], "below the oracle": []}
    for name, gap in gaps.items():
        if gap is not None:
            side = "above the oracle" if gap.value > 0 else "below the oracle"
            where["like the oracle" if close(gap) else side].append(name)
    told = [(place, names) for place, names in where.items() if names]
    if len(gaps) == 1:
        return "".join(f"{place.capitalize()}." for place, _ in told)
    total = len(gaps)
    return " ".join(
        f"{words.joined(names) if len(names) <= robust.MANY else f'{len(names)} of {total} runs'}: {place}."
        for place, names in told
    )


def mark_of(model: Column, name: str, styles: Mapping[str, str]) -> Mark:
    """How a model's number is drawn."""
    cell = model.cells[name]
    return Mark(model.name, styles[model.name], cell.value, cell.low, cell.high)


def note(models: Sequence[Column]) -> str:
    """What the signs in the cards mean."""
    roles = {model.role for model in models if model.cells}
    parts = []
    if "target" in roles:
        parts.append("Square: the target, before unlearning.")
    if "oracle" in roles:
        parts.append("Diamond: the oracle, trained without the forget set; the shaded band is its 95 % interval.")
        parts.append("‘Like the oracle’ means: no difference could be shown, which is not a proof that there is none.")
    return " ".join(parts)


def close(gap: Difference | None) -> bool:
    """True if a difference is known, and may be none."""
    return gap is not None and not gap.distinguishable
