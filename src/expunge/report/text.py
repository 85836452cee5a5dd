"""The comparison as terminal tables: the four questions for a glance, all metrics for the record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from expunge.report import collect, compare, naming
from expunge.report.collect import Cell, Column


def headline(runs: Sequence[str | Path]) -> Table:
    """A row for target, oracle and each run; a column for each question: forgotten, extractable, kept, leaks.

    Value over its 95 % interval; ◆ where a run cannot be told from the oracle. RunFolderError if a path holds no run.
    """
    models = _models(runs)
    asked = [(name, metric) for name, _, wanted in naming.HEADLINES if (metric := compare.headline(models, wanted))]
    table = _table("; ".join(_notes(models)) or None)
    table.add_column("", no_wrap=True)
    for question, metric in asked:
        table.add_column(f"{question}\n[dim]{metric.title}[/dim]", justify="right")
    for model in models:
        table.add_row(_name(model), *(_cell(metric.name, model, models) for _, metric in asked))
    return table


def full(runs: Sequence[str | Path]) -> Table:
    """A row for each metric, a column for target, oracle and each run; dim where a run equals the baseline.

    RunFolderError if a path holds no run.
    """
    models = _models(runs)
    base = compare.baseline(models)
    notes = [f"dim: not distinguishable from {base.name}"] if base and len(models) > 1 else []
    notes += _notes(models)
    table = _table("; ".join(notes) or None)
    table.add_column("")
    for model in models:
        table.add_column(_name(model), justify="right", no_wrap=True)
    group = ""
    for metric in compare.ordered(models):
        if metric.group != group:
            group = metric.group
            table.add_row(Text(group, style="bold"))
        table.add_row(Text(f"  {metric.title}"), *(_cell(metric.name, model, models, base) for model in models))
    return table


def plain(table: Table, width: int = 120) -> str:
    """The table as text without colours, for a file or a log."""
    console = Console(width=width, no_color=True, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _models(runs: Sequence[str | Path]) -> list[Column]:
    return collect.columns(collect.views(runs))


def _oracle(models: Sequence[Column]) -> Column | None:
    return next((model for model in models if model.role == "oracle"), None)


def _notes(models: Sequence[Column]) -> list[str]:
    notes = ["◆ not distinguishable from the oracle"] if _oracle(models) else []
    cells = [cell for model in models for cell in model.cells.values()]
    if any(cell.optimistic for cell in cells):
        notes.append("† too few people: the interval should be wider")
    if any(cell.void for cell in cells):
        notes.append("membership is void: words alone tell the forget set from the holdout set")
    return notes


def _table(caption: str | None) -> Table:
    shown = Text(caption) if caption else None  # a run's name is text, not markup
    return Table(box=box.SIMPLE_HEAD, caption=shown, caption_justify="left", pad_edge=False, header_style="bold")


def _name(model: Column) -> Text:
    return Text(model.name, style="bold" if model.role == "run" else "dim")


def _cell(name: str, model: Column, models: Sequence[Column], base: Column | None = None) -> Text:
    cell = model.cells.get(name)
    if cell is None:
        return Text("–", style="dim")
    oracle, decimals = _oracle(models), compare.decimals(name, models)
    run = model.role == "run"
    to_oracle = compare.difference(name, model, oracle) if run and oracle else None
    to_base = compare.difference(name, model, base) if run and base and base is not model else None
    same = to_base is not None and not to_base.distinguishable
    text = Text(compare.shown(cell.value, decimals), style="dim" if same else "bold" if run else "")
    if to_oracle is not None and not to_oracle.distinguishable:
        text.append(" ◆", style="not bold")
    return text.append(_interval(cell, decimals), style="dim not bold")


def _interval(cell: Cell, decimals: int) -> str:
    if cell.low is None or cell.high is None:
        return ""
    mark = "†" if cell.optimistic else ""
    return f"\n[{compare.shown(cell.low, decimals)}, {compare.shown(cell.high, decimals)}]{mark}"
