"""What papers plot, from the user's own runs: weights by epoch, composite scores, and numbers over a setting."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from expunge.errors import RunFolderError
from expunge.report import charts, compare, naming, sentences
from expunge.report.charts import Chart, Mark, Series
from expunge.report.collect import Column, View, number

BARS = ("ou_aggregate", "ou_memorization", "ou_privacy", "ou_utility", "etw_aggregate", "privleak")
MOST_CHARTS, SAMPLED, LEAST = 8, 200, 3
_SETTING = re.compile(r"(\w+)=(-?\d+(?:\.\d*)?(?:e-?\d+)?)(?=$|[,+*>) ])")
_APART = ("name", "seed", "seeds", "arms", "output_dir", "overwrite", "device", "evaluation", "finetune", "reference")
Leaves = dict[str, float | str]


def weights(seen: Sequence[View]) -> list[Chart]:
    """Mean weight of gold tokens and of all others, epoch by epoch; empty if no run recorded both."""
    found = [_weights(view) for view in seen]
    drawn = []
    for kind, title in ((True, "Weight of gold tokens"), (False, "Weight of other tokens")):
        series = [
            Series(view.name, place, [e for e, *_ in points], [gold if kind else other for _, gold, other in points])
            for place, (view, points) in enumerate(zip(seen, found, strict=True))
        ]
        drawn.append(charts.lines(f"weights.{kind}", title, series, "epoch", "mean over the recorded tokens"))
    return [chart for chart in drawn if chart is not None]


def bars(models: Sequence[Column], styles: Mapping[str, str]) -> list[tuple[str, str, Markup]]:
    """(title, what it is, drawing) of each composite or privacy score that two models have or more."""
    drawn = []
    for name in BARS:
        marks = [
            Mark(model.name, styles[model.name], cell.value, cell.low, cell.high)
            for model in models
            if (cell := model.cells.get(name)) is not None
        ]
        if len(marks) > 1:
            metric = naming.metric(name)
            drawn.append((metric.title, metric.what, charts.bars(metric.title, marks)))
    return drawn


def sweeps(seen: Sequence[View]) -> list[Chart]:
    """Forgetting and utility over each setting that three values of are there, and over the size of the forget set.

    Lines join runs that differ in nothing else but their seed, over which the mean is taken.
    """
    leaves = [_leaves(view.settings or {}) for view in seen]
    wanted = _metrics(seen)
    drawn = [chart for metric in wanted for chart in [_over_size(seen, leaves, metric)] if chart is not None]
    for key in dict.fromkeys(key for one in leaves for key in one):
        points = [value if isinstance(value := one.get(key), float) else None for one in leaves]
        if len({x for x in points if x is not None}) < LEAST:
            continue
        groups = [_key(one, lambda name, key=key: name == key) for one in leaves]  # type: ignore[misc]
        for metric in wanted:
            series = _series(seen, groups, points, metric, LEAST)
            log = by_factors([x for x in points if x is not None])
            note = f"against {key}" + (", log axis" if log else "")
            chart = charts.lines(f"sweep.{key}.{metric}", naming.metric(metric).title, series, key, note, log=log)
            drawn += [chart] if chart is not None else []
    return drawn[:MOST_CHARTS]


def by_factors(values: Sequence[float]) -> bool:
    """True if values above 0 that span a factor of 4 or more are spaced more evenly by factors than by differences.

    >>> by_factors([1e-5, 3e-5, 1e-4]), by_factors([0.5, 1, 2]), by_factors([1, 2, 3, 4]), by_factors([0, 1, 10])
    (True, True, False, False)
    """
    places = np.unique(np.array(values, dtype=np.float64))
    if len(places) < LEAST or places[0] <= 0 or places[-1] < 4 * places[0]:
        return False
    steps, factors = np.diff(places), np.diff(np.log(places))
    return bool(factors.max() / factors.min() < steps.max() / steps.min())


def _over_size(seen: Sequence[View], leaves: Sequence[Leaves], metric: str) -> Chart | None:
    sizes = [number(((view.manifest.get("data") or {}).get("forget") or {}).get("count")) for view in seen]
    groups = [_key(one, lambda name: name.startswith("data.")) for one in leaves]
    series = _series(seen, groups, sizes, metric, 2)
    note = "against the size of the forget set"
    log = by_factors([size for size in sizes if size is not None])
    return charts.lines(f"size.{metric}", naming.metric(metric).title, series, "forget records", note, log=log)


def _series(
    seen: Sequence[View], groups: Sequence[str], points: Sequence[float | None], metric: str, least: int
) -> list[Series]:
    """A line a group: the metric's mean at each point, for groups that have `least` points."""
    names: list[str] = []
    made: list[Series] = []
    for group in dict.fromkeys(groups):
        mine = [(x, view) for x, view, own in zip(points, seen, groups, strict=True) if own == group and x is not None]
        at: dict[float, list[float]] = {}
        for x, view in mine:
            if metric in view.own.cells:
                at.setdefault(x, []).append(view.own.cells[metric].value)
        if len(at) < least:
            continue
        method = mine[0][1].method.partition(":")[0] or mine[0][1].name
        names.append(method)
        name = method if names.count(method) == 1 else f"{method} ({names.count(method)})"
        xs = sorted(at)
        made.append(Series(name, len(made), xs, [float(np.mean(at[x])) for x in xs]))
    return made


def _metrics(seen: Sequence[View]) -> list[str]:
    """What answers 'forgotten?' and 'kept?' in these runs."""
    own = [view.own for view in seen]
    found = (compare.headline(own, naming.HEADLINES[place][2]) for place in (0, 2))
    return [metric.name for metric in found if metric is not None]


def _leaves(settings: Mapping[str, Any]) -> Leaves:
    """Settings by dotted name; those inside a spec, `etw:temperature=2`, as numbers of their own."""
    found: Leaves = {}
    for name, value in _walk({k: v for k, v in settings.items() if k not in _APART}, ""):
        if isinstance(value, str) and name.startswith("method."):
            found |= {f"{name}.{key}": float(text) for key, text in _SETTING.findall(value)}
            value = _SETTING.sub(r"\1=", value)
        plain = number(value)
        found[name] = str(value) if plain is None else plain
    return found


def _walk(tree: object, prefix: str) -> Iterable[tuple[str, object]]:
    if isinstance(tree, Mapping):
        items: Iterable[tuple[object, object]] = tree.items()
    elif isinstance(tree, (list, tuple)):
        items = enumerate(tree)
    else:
        yield prefix.rstrip("."), tree
        return
    for key, value in items:
        yield from _walk(value, f"{prefix}{key}.")


def _key(leaves: Leaves, without: Callable[[str], bool]) -> str:
    return json.dumps({name: value for name, value in leaves.items() if not without(name)}, sort_keys=True)


def _weights(view: View) -> list[tuple[float, float | None, float | None]]:
    """(epoch, mean weight of gold tokens, of others) over at most 200 records."""
    try:
        ids = sentences.ids(view.folder)
        found = sentences.read(view.folder, ids[:: max(1, -(-len(ids) // SAMPLED))])
    except RunFolderError:
        return []
    by_epoch: dict[float, tuple[list[float], list[float]]] = {}
    for sentence in found.values():
        gold = np.array(sentence.gold)
        for frame in sentence.frames:
            inside, outside = by_epoch.setdefault(round(frame.epoch, 3), ([], []))
            inside += frame.weight[gold].tolist()
            outside += frame.weight[~gold].tolist()
    if not any(inside for inside, _ in by_epoch.values()):
        return []
    return [(epoch, _mean(inside), _mean(outside)) for epoch, (inside, outside) in sorted(by_epoch.items())]


def _mean(values: Sequence[float]) -> float | None:
    return number(float(np.mean(values))) if values else None
