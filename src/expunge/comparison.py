"""Many runs as arms: the same recipe under several seeds is one arm, and a control stands beside its method.

Drawn from run folders alone. Every number has an interval over items (by person) and seeds; every arm is tested against
a baseline, controls against the method they control for, all tests of the table corrected together.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from expunge.errors import RunFolderError, unknown
from expunge.evals import stats
from expunge.evals.stats import FloatArray
from expunge.report import collect, compare, naming
from expunge.report.arms import ArmCell, ArmRow, ArmTable, Export, key
from expunge.report.collect import Cell, Column, View

LEVEL = 0.05
"""A difference whose corrected p is above this is said to be not distinguishable."""
_TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "–": "--",
}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed alone. `controls` names the arm whose weights a control run replaces, or ''."""

    name: str
    columns: tuple[Column, ...]
    seeds: tuple[int, ...] = (0,)
    control: str = "none"
    controls: str = ""


@dataclass(frozen=True)
class Estimate:
    """A metric of an arm: its mean over items and seeds with a 95 % interval; None where no interval can be had."""

    value: float
    low: float | None
    high: float | None
    seeds: int


@dataclass(frozen=True)
class Contrast:
    """How far an arm is from `baseline` in a metric. `p` as tested, `corrected` by Holm over the whole table.

    `detectable`: the smallest true difference that the test, uncorrected, finds four times out of five.
    """

    baseline: str
    value: float
    p: float
    corrected: float = math.nan
    detectable: float = math.nan

    @property
    def distinguishable(self) -> bool:
        """True if the corrected p is at most .05."""
        return self.corrected <= LEVEL


@dataclass(frozen=True)
class Comparison:
    """Arms in rows, metrics in columns: estimates, and contrasts where an arm has something to be compared with."""

    arms: tuple[Arm, ...]
    metrics: tuple[str, ...]
    estimates: Mapping[tuple[str, str], Estimate]
    contrasts: Mapping[tuple[str, str], Contrast]
    baseline: str | None

    def rows(self) -> list[dict[str, Any]]:
        """One flat row for each arm and metric: what JSON and CSV hold."""
        out = []
        for arm in self.arms:
            for metric in self.metrics:
                found = self.estimates.get((arm.name, metric))
                if found is None:
                    continue
                contrast = self.contrasts.get((arm.name, metric))
                row: dict[str, Any] = {
                    "arm": arm.name, "control": arm.control, "seeds": found.seeds, "metric": metric,
                    "value": found.value, "ci_low": found.low, "ci_high": found.high,
                }  # fmt: skip
                keys = ("baseline", "value", "p", "corrected", "distinguishable", "detectable")
                row |= {
                    f"contrast_{key}": None if contrast is None else getattr(contrast, key) for key in keys
                }  # fmt: skip
                out.append(row)
        return out


def compare_runs(runs: Sequence[str | Path], *, baseline: str | None = None, metrics: Sequence[str] = ()) -> Comparison:
    """The comparison of run folders (a study's folder stands for its runs).

    `baseline` is an arm, `target` or `oracle`; without it the first arm that is no control. `metrics` are names of
    metrics.json; without them one a question. RunFolderError if a path is no run, or a name is unknown.
    """
    return compare_views(collect.views(runs), baseline=baseline, metrics=metrics)


def compare_views(seen: Sequence[View], *, baseline: str | None = None, metrics: Sequence[str] = ()) -> Comparison:
    """`compare_runs` of runs that have been read already."""
    columns = collect.columns(seen)
    arms = (*(Arm(c.name, (c,)) for c in columns if c.role != "run"), *arms_of(seen))
    wanted = _metrics(columns, metrics)
    base = _baseline(arms, baseline)
    estimates = {(arm.name, m): found for arm in arms for m in wanted if (found := estimate(arm, m)) is not None}
    by_name = {arm.name: arm for arm in arms}
    pairs = [(arm, by_name.get(arm.controls) or base) for arm in arms if arm.columns[0].role == "run"]
    contrasts = {
        (arm.name, m): tested
        for arm, other in pairs
        if other is not None and other is not arm
        for m in wanted
        if (tested := contrast(arm, other, m)) is not None
    }
    adjusted = stats.holm([c.p for c in contrasts.values()])
    contrasts = {k: replace(c, corrected=p) for (k, c), p in zip(contrasts.items(), adjusted, strict=True)}
    return Comparison(arms, tuple(wanted), estimates, contrasts, base.name if base else None)


def arms_of(seen: Sequence[View]) -> list[Arm]:
    """The arms of runs, each method followed by its controls."""
    groups: dict[str, list[View]] = {}
    for view in seen:
        groups.setdefault(key(view, ("seed",)), []).append(view)
    families: dict[str, list[Arm]] = {}
    names: list[str] = []
    for views in groups.values():
        ordered = sorted(views, key=lambda v: _seed(v))
        name = _unused(str(ordered[0].manifest.get("name") or ordered[0].name), names)
        names.append(name)
        control = str(((ordered[0].settings or {}).get("method") or {}).get("control", "none"))
        arm = Arm(name, tuple(v.own for v in ordered), tuple(_seed(v) for v in ordered), control)
        families.setdefault(key(ordered[0], ("seed", "control")), []).append(arm)
    out: list[Arm] = []
    for family in families.values():
        method = next((arm for arm in family if arm.control == "none"), None)
        out += [arm for arm in family if arm.control == "none"]
        out += [
            replace(arm, controls=method.name if method else "") for arm in family if arm.control != "none"
        ]  # fmt: skip
    return out


def estimate(arm: Arm, metric: str) -> Estimate | None:
    """A metric of an arm, over items and seeds; None if none of its runs has it."""
    cells = [column.cells[metric] for column in arm.columns if metric in column.cells]
    if not cells:
        return None
    value = float(np.mean([cell.value for cell in cells]))
    if len(cells) == 1:
        return Estimate(value, cells[0].low, cells[0].high, 1)
    table = _table(arm, metric)
    if table is not None:
        lowest, highest = naming.bounds(metric)
        known = math.isfinite(lowest) and math.isfinite(highest)
        found = stats.over_seeds(table.values, table.subjects, bounds=(lowest, highest) if known else None)
        return Estimate(found.value, found.low, found.high, len(cells))
    parts = _spread(cells)
    if not parts:
        return Estimate(value, None, None, len(cells))
    low, high = stats.t_interval(value, parts)
    lowest, highest = naming.bounds(metric)
    return Estimate(value, max(low, lowest), min(high, highest), len(cells))


def contrast(arm: Arm, other: Arm, metric: str) -> Contrast | None:
    """The difference of two arms in a metric, paired by item and seed where they share them; None if it has no test."""
    mine, theirs = _table(arm, metric), _table(other, metric)
    if mine is not None and theirs is not None and mine.ids == theirs.ids:
        gaps = _gaps(mine.values, theirs.values)
        found = stats.minimum_detectable(stats.difference_parts(gaps, mine.subjects))
        p = stats.difference_p(gaps, mine.subjects)
        return Contrast(other.name, float(np.nanmean(gaps)), p, detectable=found)
    one = [column.cells[metric] for column in arm.columns if metric in column.cells]
    two = [column.cells[metric] for column in other.columns if metric in column.cells]
    parts = _spread(one) + _spread(two)
    if not one or not two or not parts:
        return None
    gap = float(np.mean([c.value for c in one]) - np.mean([c.value for c in two]))
    return Contrast(other.name, gap, stats.t_test(gap, parts), detectable=stats.minimum_detectable(parts))


def as_json(found: Comparison) -> str:
    """The comparison as JSON."""
    tree = {"baseline": found.baseline, "level": LEVEL, "correction": "Holm", "rows": found.rows()}
    return json.dumps(tree, indent=2, ensure_ascii=False) + "\n"


def as_csv(found: Comparison) -> str:
    """The comparison as CSV, a row for each arm and metric."""
    rows = found.rows()
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["arm"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_markdown(found: Comparison, bold: Collection[str] = ()) -> str:
    """The comparison as a Markdown table: value [interval], and `=` where the arm equals what it is compared with.

    The names of the arms in `bold` stand out.
    """
    head = ["", *(naming.metric(name).title for name in found.metrics)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for arm in found.arms:
        cells = [in_words(found, arm, name).replace("|", "/") for name in found.metrics]
        name = f"**{arm.name}**" if arm.name in bold else arm.name
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", legend(found)]) + "\n"


def as_latex(found: Comparison) -> str:
    """The comparison as a LaTeX table for booktabs and xcolor: grey is what equals its baseline."""
    lines = [
        r"% needs \usepackage{booktabs,xcolor}",
        r"\begin{tabular}{l" + "r" * len(found.metrics) + "}",
        r"\toprule",
        " & ".join(["", *(_tex(naming.metric(name).title) for name in found.metrics)]) + r" \\",
        r"\midrule",
    ]
    for arm in found.arms:
        cells = [_tex_cell(found, arm, name) for name in found.metrics]
        lines.append(" & ".join([(r"\quad " if arm.controls else "") + _tex(arm.name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", "% " + legend(found)]) + "\n"


def for_page(seen: Sequence[View]) -> ArmTable:
    """The comparison of a report's runs as its page shows it, with the files that it offers."""
    found = compare_views(seen)
    places = {arm.name: place for place, arm in enumerate(found.arms)}
    rows = tuple(
        ArmRow(
            arm.name,
            places.get(arm.controls, places[arm.name]),
            bool(arm.controls),
            tuple(_page_cell(found, arm, name) for name in found.metrics),
        )
        for arm in found.arms
    )
    exports = (
        Export("CSV", "comparison.csv", "text/csv", as_csv(found)),
        Export("JSON", "comparison.json", "application/json", as_json(found)),
        Export("LaTeX", "comparison.tex", "text/x-tex", as_latex(found)),
    )
    return ArmTable(tuple(naming.metric(name).title for name in found.metrics), rows, legend(found), exports)


def _parts(found: Comparison, arm: Arm, metric: str) -> tuple[str, str, str] | None:
    """(value, its interval or '', verdict or '') as all tables say them."""
    cell = found.estimates.get((arm.name, metric))
    if cell is None:
        return None
    decimals = compare.decimals(metric, [column for a in found.arms for column in a.columns])
    ends = ""
    if cell.low is not None and cell.high is not None:
        ends = f"[{compare.shown(cell.low, decimals)}, {compare.shown(cell.high, decimals)}]"
    tested = found.contrasts.get((arm.name, metric))
    return compare.shown(cell.value, decimals), ends, verdict(tested) if tested is not None else ""


def _page_cell(found: Comparison, arm: Arm, metric: str) -> ArmCell | None:
    parts = _parts(found, arm, metric)
    if parts is None:
        return None
    value, ends, said = parts
    return ArmCell(found.estimates[arm.name, metric].value, value, ends, said, said == "=")


def _tex_cell(found: Comparison, arm: Arm, metric: str) -> str:
    parts = _parts(found, arm, metric)
    if parts is None:
        return "--"
    value, ends, said = (_tex(part) for part in parts)
    text = value + (rf" {{\scriptsize {ends}}}" if ends else "")
    return rf"\textcolor{{gray}}{{{text}}}" if said == "=" else text


def _tex(text: str) -> str:
    """Text with what LaTeX would read as its own escaped."""
    return "".join(_TEX.get(character, character) for character in text)


def in_words(found: Comparison, arm: Arm, metric: str) -> str:
    """'.12 [.08, .20], p .003' of one cell; '=' in place of p where the difference is not distinguishable."""
    parts = _parts(found, arm, metric)
    return "–" if parts is None else " ".join(filter(None, parts))


def verdict(tested: Contrast) -> str:
    """'=' if the difference is not distinguishable from 0, else the corrected p."""
    if not tested.distinguishable:
        return "="
    return "p < .001" if tested.corrected < 0.001 else f"p {tested.corrected:.3f}".replace("0.", ".")


def legend(found: Comparison) -> str:
    """What the signs of the table mean."""
    seeds = max((estimate.seeds for estimate in found.estimates.values()), default=1)
    text = "95 % intervals over items" + (f" and {seeds} seeds" if seeds > 1 else ", one seed")
    if found.contrasts:
        text += (
            f"; compared with {found.baseline}, controls with their method; p by Holm over the table; "
            "= not distinguishable"
        )
    return text + "."


def _metrics(columns: Sequence[Column], asked: Sequence[str]) -> list[str]:
    there = {name for column in columns for name in column.cells}
    for name in asked:
        if name not in there:
            raise RunFolderError(unknown("metric", name, there))
    if asked:
        return list(asked)
    found = (compare.headline(columns, wanted) for _, _, wanted in naming.HEADLINES)
    return [metric.name for metric in found if metric is not None]


def _baseline(arms: Sequence[Arm], name: str | None) -> Arm | None:
    if name is None:
        return next((arm for arm in arms if arm.columns[0].role == "run" and not arm.controls), None)
    found = {arm.name: arm for arm in arms}
    if name not in found:
        raise RunFolderError(unknown("arm", name, found))
    return found[name]


def _seed(view: View) -> int:
    return int((view.settings or {}).get("seed") or 0)


def _unused(name: str, names: Sequence[str]) -> str:
    taken = sum(other == name or other.startswith(f"{name} (") for other in names)
    return f"{name} ({taken + 1})" if taken else name


@dataclass(frozen=True)
class _Table:
    """`values` (seeds, items) of a metric, the items' ids and their subjects."""

    values: FloatArray
    ids: tuple[str, ...]
    subjects: tuple[str, ...]


def _table(arm: Arm, metric: str) -> _Table | None:
    """None unless every run of the arm has a value for the same items."""
    cells = [column.cells.get(metric) for column in arm.columns]
    items = [cell.items for cell in cells if cell is not None and cell.items]
    if len(items) != len(cells):
        return None
    ids = tuple(sorted(items[0]))
    if any(set(other) != set(ids) for other in items):
        return None
    values = np.array([[row[name] for name in ids] for row in items], dtype=np.float64)
    return _Table(values, ids, tuple(arm.columns[0].subjects.get(name, "") for name in ids))


def _gaps(mine: FloatArray, theirs: FloatArray) -> FloatArray:
    """(seeds, items) differences: seed by seed where both have as many, else from the mean of the other's seeds."""
    return mine - (theirs if len(mine) == len(theirs) else theirs.mean(0, keepdims=True))


def _spread(cells: Sequence[Cell]) -> list[tuple[float, float]]:
    """(variance, degrees of freedom) of a mean over seeds of a number that is no mean of items.

    The items are the same under every seed, so what they add does not shrink with the number of seeds.
    """
    halves = [(c.high - c.low) / 2 for c in cells if c.low is not None and c.high is not None]
    parts = [(float(np.mean(halves) / 1.96) ** 2, math.inf)] if halves and len(halves) == len(cells) else []
    if len(cells) > 1:
        values = np.array([cell.value for cell in cells])
        parts.append((float(values.var(ddof=1)) / len(cells), len(cells) - 1))
    return parts
