"""Arms as the page shows them: which runs are one arm, which of them is drawn, and the comparison of all arms."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from expunge.report import compare, naming
from expunge.report.collect import View

FEW = 8
"""Runs up to which every one is drawn."""


def key(view: View, without: Sequence[str]) -> str:
    """What the recipes of an arm (or, without `control`, of a method and its controls) have in common."""
    settings = dict(view.settings or {"folder": str(view.folder.path)})
    for name in ("name", "output_dir", "overwrite", "arms", "seeds", *without):
        settings.pop(name, None)
    if view.settings is not None:
        hidden = {"paired_run", *({"control"} & set(without))}  # a paired run is another one under every seed
        settings["method"] = {k: v for k, v in (settings.get("method") or {}).items() if k not in hidden}
        settings |= {} if "control" in without else {"arm": view.manifest.get("name")}
    return json.dumps(settings, sort_keys=True, default=str)


@dataclass(frozen=True)
class Drawn:
    """An arm on a page of many runs: those of its runs that are drawn, and those that only count."""

    name: str
    runs: tuple[View, ...]
    others: tuple[View, ...]


def drawn(seen: Sequence[View], chosen: Collection[str] = ()) -> tuple[list[Drawn], str]:
    """The arms of more than FEW runs, each with the runs to draw, and which these are in words; else ([], '').

    Of each arm those in `chosen`, else the run whose answer to 'forgotten?' is the (lower) median of the arm's.
    """
    groups: dict[str, list[View]] = {}
    for view in seen:
        groups.setdefault(key(view, ("seed",)), []).append(view)
    if len(seen) <= FEW or len(groups) == len(seen):
        return [], ""
    metric = compare.headline([view.own for view in seen], naming.HEADLINES[0][2])
    arms = []
    for group in groups.values():
        runs = [view for view in group if view.name in chosen] or [_median(group, metric.name if metric else "")]
        name = str(group[0].manifest.get("name") or group[0].name)
        arms.append(Drawn(name, tuple(runs), tuple(view for view in group if view not in runs)))
    return arms, f"the median in {metric.title.lower()}" if metric else "the first"


def _median(group: Sequence[View], metric: str) -> View:
    measured = sorted((view for view in group if metric in view.own.cells), key=lambda v: v.own.cells[metric].value)
    return measured[(len(measured) - 1) // 2] if measured else group[0]


@dataclass(frozen=True)
class ArmCell:
    """One number of an arm in words; `value` is what the column sorts by, `same`: not distinguishable."""

    value: float
    shown: str
    interval: str
    verdict: str = ""
    same: bool = False


@dataclass(frozen=True)
class ArmRow:
    """An arm; rows of one `family`, a method and its controls, stay together when the table is sorted."""

    name: str
    family: int
    control: bool
    cells: tuple[ArmCell | None, ...]


@dataclass(frozen=True)
class Export:
    """The table as a file."""

    label: str
    file: str
    kind: str
    text: str

    @property
    def link(self) -> str:
        """The file as a data: URI: a download that needs no server and no script.

        >>> Export("CSV", "a.csv", "text/csv", "a,b").link
        'data:text/csv;charset=utf-8;base64,YSxi'
        """
        return f"data:{self.kind};charset=utf-8;base64,{base64.b64encode(self.text.encode()).decode()}"


@dataclass(frozen=True)
class ArmTable:
    """Arms in rows, metrics in columns, `legend` below."""

    columns: tuple[str, ...]
    rows: tuple[ArmRow, ...]
    legend: str
    exports: tuple[Export, ...]


Comparing = Callable[[Sequence[View]], ArmTable]
"""How views become the table. The page asks for it after names were redacted, so that no export has others."""
