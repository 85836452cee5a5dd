"""The training curves of the runs, one small chart a quantity of the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from expunge.report import charts
from expunge.report.charts import Chart, Series
from expunge.report.collect import View, mapping, number

_CURVES = (
    ("loss", "Loss", "what is minimised: the sum of the terms"),
    ("grad_norm", "Gradient norm", "before clipping"),
    ("weight_on_gold", "Weight on gold tokens", "share of all weight"),
    ("selected_share", "Tokens selected", "share of the scored tokens with a weight"),
    ("drift", "Distance from the start", "L2 norm of all changes of the parameters"),
    ("learning_rate", "Learning rate", "step size of the optimiser"),
)
_SHARES = ("weight_on_gold", "selected_share")
_COUNTS = (
    ("tokens", "tokens trained on"),
    ("flat", "sequences with flat scores"),
    ("empty", "sequences with nothing selected"),
)


def draw(seen: Sequence[View]) -> list[Chart]:
    """A chart for each logged quantity that any run has: loss, its terms, gradient norm and so on."""
    wanted = [(key, title, note, (key,)) for key, title, note in _CURVES]
    terms = list(dict.fromkeys(name for view in seen for line in view.log for name in mapping(line.get("terms"))))
    found = [(f"terms.{name}", f"Term: {name}", "before its factor", ("terms", name)) for name in terms[:12]]
    by_epoch = all(number(line.get("epoch")) is not None for view in seen for line in view.log)
    drawn = []
    for key, title, note, path in [wanted[0], *found, *wanted[1:]]:
        series = [_series(view, place, path, by_epoch) for place, view in enumerate(seen) if view.log]
        within = (0.0, 1.0) if key in _SHARES else None
        chart = charts.lines(key, title, series, "epoch" if by_epoch else "step", note, within)
        if chart is not None:
            drawn.append(chart)
    return drawn


def missing(drawn: Sequence[Chart]) -> list[str]:
    """Titles of the usual curves that no run has logged."""
    there = {chart.key for chart in drawn}
    return [title for key, title, _ in _CURVES if key not in there]


def drift_by_layer(seen: Sequence[View]) -> list[tuple[str, list[float | None]]]:
    """(layer, how far each run moved it) from the last log line that says so; empty if none does."""
    last = [next((d for line in reversed(view.log) if (d := mapping(line.get("drift_by_layer")))), {}) for view in seen]
    layers = list(dict.fromkeys(name for run in last for name in run))
    return [(str(name), [number(run.get(name)) for run in last]) for name in layers[:200]]


def effort(view: View) -> dict[str, str]:
    """Steps, tokens, time, and sequences without a selection, as far as the log counts them."""
    steps = [int(value) for line in view.log if (value := number(line.get("step"))) is not None]
    facts = {"steps": f"{max(steps, default=len(view.log)):,}"}
    for key, name in _COUNTS:
        values = [value for line in view.log if (value := number(line.get(key))) is not None]
        if values:
            facts[name] = f"{int(sum(values)):,}"
    seconds = [value for line in view.log if (value := number(line.get("seconds"))) is not None]
    if seconds:
        facts["time in steps"] = duration(sum(seconds))
    return facts if view.log else {}


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> [duration(s) for s in (0.25, 42.4, 125, 7260)]
    ['0.2 s', '42 s', '2 min 5 s', '2 h 1 min']
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _series(view: View, place: int, path: Sequence[str], by_epoch: bool) -> Series:
    x: list[float] = []
    y: list[float | None] = []
    for i, line in enumerate(view.log):
        at = number(line.get("epoch")) if by_epoch else number(line.get("step"))
        value: Any = line
        for key in path:
            value = mapping(value).get(key)
        x.append(float(i) if at is None else at)
        y.append(number(value))
    return Series(view.name, place, x, y)
