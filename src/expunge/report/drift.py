"""Over-forgetting as the report shows it: curves of diagnostics.jsonl, and what they have to do with utility."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from expunge import runfolder
from expunge.report import charts, naming
from expunge.report.charts import Chart, Series
from expunge.report.collect import View, number

LEAST = 4
"""Runs below which no correlation is given."""
_CURVES = (
    ("kl_retain", "Drift on retain text", "KL(start || model), nats a token"),
    ("nll_unwanted_words", "Loss on unwanted words", "of the forget set, nats a token"),
    ("nll_general_words", "Loss on general words", "of the forget set, nats a token"),
    ("kl_general_words", "Drift on general words", "of the forget set, KL(start || model)"),
    ("kl_general", "Drift on general text", "KL(start || model), nats a token"),
)
_RELATED = ("nll_general_words", "kl_general_words", "kl_retain")
_UTILITY = ("model_utility", "retain_Q_A_Prob")


@dataclass(frozen=True)
class Relation:
    """How a diagnostic at the end of the runs goes with a metric of theirs: correlation of values, of ranks, runs."""

    diagnostic: str
    metric: str
    pearson: float
    spearman: float
    n: int


def draw(seen: Sequence[View]) -> list[Chart]:
    """A chart for each diagnostic that any run has, epoch by epoch, epoch 0 before training; then what was measured."""
    drifts, measured = [_lines(view) for view in seen], [_measured(view) for view in seen]
    names = dict.fromkeys(key for lines in measured for line in lines for key in line if key != "epoch")
    curves = [("diagnostics", *curve, drifts) for curve in _CURVES]
    curves += [("epochs", name, naming.metric(name).title, "after each epoch", measured) for name in names]
    drawn = []
    for file, key, title, note, lines in curves:
        series = [
            Series(view.name, place, [e for e, _ in points], [y for _, y in points])
            for place, view in enumerate(seen)
            if (points := _points(lines[place], key))
        ]
        chart = charts.lines(f"{file}.{key}", title, series, "epoch", note)
        if chart is not None:
            drawn.append(chart)
    return drawn


def relations(seen: Sequence[View]) -> list[Relation]:
    """How the last value of each diagnostic goes with utility over the runs; empty for fewer than LEAST runs."""
    last = [dict(lines[-1]) if (lines := _lines(view)) else {} for view in seen]
    chosen = next((m for m in _UTILITY if sum(m in view.own.cells for view in seen) >= LEAST), None)
    if chosen is None:
        return []
    found = []
    for key in _RELATED:
        pairs = [
            (x, view.own.cells[chosen].value)
            for view, line in zip(seen, last, strict=True)
            if chosen in view.own.cells and (x := number(line.get(key))) is not None
        ]
        if len(pairs) >= LEAST and all(len(set(values)) > 1 for values in zip(*pairs, strict=True)):
            x, y = np.array(pairs).T
            title = next(title for name, title, _ in _CURVES if name == key)
            found.append(
                Relation(title, naming.metric(chosen).title, correlation(x, y), rank_correlation(x, y), len(x))
            )
    return found


def correlation(x: Sequence[float] | np.ndarray[Any, Any], y: Sequence[float] | np.ndarray[Any, Any]) -> float:
    """Pearson's r.

    >>> correlation([1, 2, 3, 4], [1, 3, 2, 4])
    0.8
    """
    return round(float(np.corrcoef(x, y)[0, 1]), 12)


def rank_correlation(x: Sequence[float] | np.ndarray[Any, Any], y: Sequence[float] | np.ndarray[Any, Any]) -> float:
    """Spearman's rho: Pearson's r of the ranks, ties sharing theirs.

    >>> rank_correlation([1, 2, 3, 100], [1, 4, 9, 16])
    1.0
    """
    return correlation(stats.rankdata(x), stats.rankdata(y))


def _lines(view: View) -> list[Mapping[str, Any]]:
    folder = view.folder
    return list(folder.read_lines(runfolder.DIAGNOSTICS)) if folder.has(runfolder.DIAGNOSTICS) else []


def _measured(view: View) -> list[Mapping[str, Any]]:
    """The values of epochs.jsonl, without their intervals."""
    lines = view.folder.read_lines(runfolder.EPOCHS) if view.folder.has(runfolder.EPOCHS) else ()
    return [{"epoch": line["epoch"], **{k: v["value"] for k, v in line["metrics"].items()}} for line in lines]


def _points(lines: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float | None]]:
    if not any(number(line.get(key)) is not None for line in lines):
        return []
    return [(epoch, number(line.get(key))) for line in lines if (epoch := number(line.get("epoch"))) is not None]
