"""The first screen and the table of all numbers: what was forgotten, what was kept, and what can be told apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from markupsafe import Markup

from expunge.report import cards, charts, compare, naming, robust, verdicts, words
from expunge.report.collect import Cell, Column, View, mapping, number
from expunge.report.naming import Metric

_ARROWS = {"better": "↑", "worse": "↓"}


@dataclass(frozen=True)
class Entry:
    """One cell of the table; `same`: not distinguishable from the baseline; `as_oracle`: from the oracle."""

    cell: Cell | None
    same: bool = False
    as_oracle: bool = False
    title: str = ""


@dataclass(frozen=True)
class Line:
    """One metric of the table; `n` where all models have the same number of records."""

    metric: Metric
    arrow: str
    entries: tuple[Entry, ...]
    decimals: int
    n: int | None


@dataclass(frozen=True)
class Group:
    """The metrics that answer one question."""

    name: str
    rows: tuple[Line, ...]


def context(
    seen: Sequence[View],
    drawn: Sequence[View],
    models: Sequence[Column],
    styles: Mapping[str, str],
    chosen: Collection[str] = (),
) -> dict[str, Any]:
    """What the template needs for headline, verdict, cards, trade-off (runs in `chosen` stand out) and table.

    `seen` are all runs of the page, `drawn` those that are shown one by one; `models` are these with target and oracle.
    """
    base = compare.baseline(models)
    return {
        "title": _title(seen),
        "kicker": _kicker(seen),
        "lede": lede(seen),
        "hashes": _hashes(seen),
        "alarms": [*_alarms(seen), *_voided(models)],
        "cards": cards.draw(drawn, models, styles),
        "cards_note": cards.note(models),
        "verdicts": verdicts.collect(drawn, seen),
        "chosen": chosen,
        "tradeoff": _tradeoff(models, styles, chosen),
        "table": table(models, base),
        "baseline": base.name if base and len(models) > 1 else "",
        "optimistic": any(cell.optimistic for model in models for cell in model.cells.values()),
        "unmeasured": _unmeasured(models),
    }


def _voided(models: Sequence[Column]) -> list[str]:
    """Numbers that the reader must not believe."""
    if not any(cell.void for model in models for cell in model.cells.values()):
        return []
    return [
        "Membership numbers are void: forget and holdout records can be told apart by their words alone, so what "
        "separates them need not be what the model has read. Take holdout records of the same style and time."
    ]


def lede(seen: Sequence[View]) -> str:
    """One or two sentences: how much was to be forgotten and kept, by which method, from which model."""
    first = seen[0]
    counts = {split: _count(first, split) for split in ("forget", "retain", "holdout")}
    parts = []
    if counts["forget"]:
        parts.append(f"{_records(counts['forget'])} to forget")
    if counts["retain"]:
        parts.append(f"{counts['retain']:,} to keep")
    if counts["holdout"]:
        parts.append(f"{counts['holdout']:,} never shown, to test for traces")
    text = words.joined(parts) + "." if parts else "The run folder does not say how many records were to be forgotten."
    methods = list(dict.fromkeys(view.method for view in seen if view.method))
    if len(seen) == 1 and methods:
        text += f" Method: {methods[0]}."
    elif len(methods) > 1:
        text += f" Methods: {words.joined(methods)}." if len(methods) <= robust.MANY else f" {len(methods)} methods."
    model = mapping(first.manifest.get("model")).get("name")
    return f"{text} Model: {_short(str(model))}." if model else text


def _short(model: str) -> str:
    """A hub name as it is; of a folder its own name, or its run's if it is a run's model/."""
    folder = PurePath(model)
    if not folder.is_absolute():
        return model
    return folder.parent.name if folder.name == "model" else folder.name


def table(models: Sequence[Column], base: Column | None) -> list[Group]:
    """All metrics by group, each with an entry for each model."""
    oracle = next((model for model in models if model.role == "oracle"), None)
    lines: dict[str, list[Line]] = {}
    for metric in compare.ordered(models):
        arrow = _ARROWS.get(compare.direction(metric, models), "")
        entries = tuple(_entry(metric.name, model, base, oracle) for model in models)
        counts = {entry.cell.n for entry in entries if entry.cell}
        n = next(iter(counts)) if len(counts) == 1 else None
        line = Line(metric, arrow, entries, compare.decimals(metric.name, models), n)
        lines.setdefault(metric.group, []).append(line)
    return [Group(name, tuple(rows)) for name, rows in lines.items()]


def _entry(name: str, model: Column, base: Column | None, oracle: Column | None) -> Entry:
    cell = model.cells.get(name)
    if cell is None or model.role != "run":
        return Entry(cell)
    gap = compare.difference(name, model, base) if base is not None and base is not model else None
    to_oracle = compare.difference(name, model, oracle) if oracle is not None else None
    title = ""
    if gap is not None and base is not None:
        low, value, high = (compare.shown(number, compare.decimals(name, [model, base])) for number in gap.triple)
        title = f"minus {base.name}: {value} [{low}, {high}], {gap.how}"
    return Entry(cell, cards.close(gap), cards.close(to_oracle), title)


def _unmeasured(models: Sequence[Column]) -> list[tuple[str, str]]:
    """(metric, why it is absent) for what no model has."""
    there = {name for model in models for name in model.cells}
    reasons = {name: why for model in models for name, why in model.unmeasured.items() if name not in there}
    return [(naming.metric(name).title, reasons[name]) for name in sorted(reasons, key=naming.order)]


def front(models: Sequence[Column], x: Metric, y: Metric) -> list[str]:
    """The runs that no other beats in both metrics: nearer the oracle (without one: lower) in x, higher in y."""
    oracle = next((m.cells[x.name].value for m in models if m.role == "oracle" and x.name in m.cells), None)
    costs = {}
    for model in models:
        if model.role == "run":
            value = model.cells[x.name].value
            costs[model.name] = (value if oracle is None else abs(value - oracle), -model.cells[y.name].value)
    return [
        name
        for name, (a, b) in costs.items()
        if not any(c <= a and d <= b and (c, d) != (a, b) for c, d in costs.values())
    ]


def _tradeoff(models: Sequence[Column], styles: Mapping[str, str], chosen: Collection[str]) -> Markup | None:
    x = compare.headline(models, naming.HEADLINES[0][2])
    y = compare.headline(models, naming.HEADLINES[2][2])
    if x is None or y is None:
        return None
    both = [model for model in models if x.name in model.cells and y.name in model.cells]
    marks = [(cards.mark_of(model, x.name, styles), cards.mark_of(model, y.name, styles)) for model in both]
    if len(marks) < 2:
        return None
    best = front(both, x, y)
    return charts.scatter("Forgetting against keeping", f"{x.title}, forget set", y.title, marks, best, chosen)


def _title(seen: Sequence[View]) -> str:
    return f"{len(seen)} runs compared" if len(seen) > robust.MANY else words.joined([view.name for view in seen])


def _kicker(seen: Sequence[View]) -> str:
    kinds = {"unlearn": "Unlearning", "finetune": "Fine-tuning", "evaluate": "Evaluation", "study": "Study"}
    kind = kinds.get(str(seen[0].manifest.get("kind")), "Run")
    when = sorted({str(view.manifest.get("created") or "")[:10] for view in seen} - {""})
    span = " to ".join(dict.fromkeys((when[0], when[-1]))) if when else ""
    return " · ".join(filter(None, (f"{kind} report" if len(seen) == 1 else f"Comparison of {len(seen)} runs", span)))


def _hashes(seen: Sequence[View]) -> list[tuple[str, str]]:
    found: dict[tuple[str, str], None] = {}
    for view in seen:
        for split, entry in mapping(view.manifest.get("data")).items():
            digest = mapping(entry).get("hash")
            if digest and mapping(entry).get("count") != 0:
                found[f"{split} set", str(digest)[:16]] = None
        model = mapping(view.manifest.get("model")).get("hash")
        if model:
            found["model", str(model)[:16]] = None
    return list(found)[:8]


def _alarms(seen: Sequence[View]) -> list[str]:
    texts = {
        "running": "has not finished: it is still running, or was killed.",
        "interrupted": "was interrupted; what is shown is what it had reached.",
        "failed": "failed; what is shown is what it had reached.",
    }
    found = []
    for view in seen:
        status = str(view.manifest.get("status"))
        if status in texts:
            error = str(view.manifest.get("error") or "")[:300]
            found.append(f"{view.name} {texts[status]}" + (f" ({error})" if error else ""))
    return found


def _count(view: View, split: str) -> int:
    return int(number(mapping(mapping(view.manifest.get("data")).get(split)).get("count")) or 0)


def _records(count: int) -> str:
    return f"{count:,} record" + ("" if count == 1 else "s")
