"""What the report knows of a run: metrics, log, settings, read from run folders alone; whatever is missing is named."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from expunge import recipe as recipes
from expunge import runfolder
from expunge.errors import ExpungeError, RunFolderError
from expunge.report import words
from expunge.runfolder import RunFolder

Role = Literal["target", "oracle", "run"]
OWN_LABEL = "unlearned"


@dataclass(frozen=True)
class Cell:
    """One number of one model: value, 95 % interval and count; `items` has the values it is the mean of, by record.

    `optimistic`: the interval is narrower than it should be, because too few subjects were measured. `void`: what it
    measures need not be what it says, because the two sets that it compares differ in their words.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    higher: str = "neither"
    items: Mapping[str, float] = field(default_factory=dict)
    optimistic: bool = False
    void: bool = False


@dataclass(frozen=True)
class Column:
    """One model in the comparison: a run, or the target or oracle it is measured against.

    `folder` and `label` say where its tables are; `subjects` groups record ids by person or topic; `unmeasured` says
    why metrics are absent.
    """

    name: str
    role: Role
    cells: Mapping[str, Cell]
    folder: RunFolder
    label: str
    subjects: Mapping[str, str] = field(default_factory=dict)
    unmeasured: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """One run as the report shows it. `absent` lists what its folder lacks, in words.

    `settings` is the whole recipe as a tree, `changed` what of it is not the default; both None if there is no recipe
    that this version can read. `recipe_text` is the file as it stands. `verdict` and `attacks` are verdict.json and
    attacks.json, empty where there is none.
    """

    name: str
    folder: RunFolder
    manifest: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    own: Column
    target: Column | None
    oracle: Column | None
    settings: Mapping[str, Any] | None
    changed: Mapping[str, Any] | None
    recipe_text: str
    absent: tuple[str, ...]
    verdict: Mapping[str, Any] = field(default_factory=dict)
    attacks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """The preset, or the terms, with the control that replaces its weights; '' if the recipe is absent."""
        method = (self.settings or {}).get("method") or {}
        terms = " + ".join(f"{_spec(term['objective'])} on {term['on']}" for term in method.get("terms") or ())
        text = str(method.get("preset") or terms)
        control = method.get("control", "none")
        return text if control == "none" or not text else f"{text}, weights {control}"


def expand(runs: Sequence[str | Path]) -> list[RunFolder]:
    """The run folders to show: a study's own folder (the demo is one) stands for the unlearning runs inside it."""
    folders: list[RunFolder] = []
    for path in runs:
        folder = runfolder.open(path)
        inside = [RunFolder(p) for p in sorted(folder.path.iterdir()) if p.is_dir() and runfolder.is_run(p)]
        unlearned = [run for run in inside if run.manifest.get("kind") == "unlearn"]
        named = folder.manifest.get("runs")
        order = {str(name): place for place, name in enumerate(named if isinstance(named, list) else ())}
        unlearned.sort(key=lambda run: (order.get(run.path.name, len(order)), run.manifest.get("created") or ""))
        folders += unlearned if folder.manifest.get("kind") == "study" and unlearned else [folder]
    if not folders:
        raise RunFolderError("no run folder was given. Name at least one, such as runs/etw.")
    return list({folder.path: folder for folder in folders}.values())


def views(runs: Sequence[str | Path]) -> list[View]:
    """One view a run, with names that differ."""
    folders = expand(runs)
    names = [words.visible(str(folder.manifest.get("name") or folder.path.name), 120) for folder in folders]
    names = [folder.path.name if names.count(name) > 1 else name for name, folder in zip(names, folders, strict=True)]
    unique = [
        f"{name} ({sum(n == name for n in names[:i]) + 1})" if names.count(name) > 1 else name
        for i, name in enumerate(names)
    ]
    return [_view(folder, name) for folder, name in zip(folders, unique, strict=True)]


def columns(seen: Sequence[View]) -> list[Column]:
    """Target, oracle, then the runs. A target (or oracle) shared by several runs stands once."""
    found: list[Column] = []
    for role in ("target", "oracle"):
        distinct: list[tuple[View, Column]] = []
        for view in seen:
            column = view.target if role == "target" else view.oracle
            if column is not None and not any(_same(column, other) for _, other in distinct):
                distinct.append((view, column))
        for view, column in distinct:
            name = role if len(distinct) == 1 else f"{role} of {view.name}"
            found.append(dataclasses.replace(column, name=name))
    return [column for column in found if column.cells] + [view.own for view in seen]


def number(value: object) -> float | None:
    """A finite float, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def cells(metrics: object, items: Mapping[str, Mapping[str, float]] | None = None) -> dict[str, Cell]:
    """The cells of a metrics.json, without entries that have no finite value. `items`: values by metric and record."""
    found: dict[str, Cell] = {}
    for name, entry in metrics.items() if isinstance(metrics, Mapping) else ():
        value = number(entry.get("agg_value")) if isinstance(entry, Mapping) else number(entry)
        if value is None:
            continue
        entry = entry if isinstance(entry, Mapping) else {}
        n = number(entry.get("n"))
        found[str(name)] = Cell(
            value=value,
            low=number(entry.get("ci_low")),
            high=number(entry.get("ci_high")),
            n=None if n is None else int(n),
            higher=str(entry.get("higher") or "neither"),
            items=_items((items or {}).get(str(name)) or entry.get("value_by_index"), value),
            optimistic=entry.get("optimistic") is True,
            void=entry.get("void") is True,
        )
    return found


def _view(folder: RunFolder, name: str) -> View:
    absent: list[str] = []
    manifest = folder.manifest
    recipe, recipe_text = _recipe(folder, absent)
    log = folder.read_log()
    if not log:
        absent.append("training log (log.jsonl)")
    if not folder.has(runfolder.TOKENS_TABLE):
        absent.append("token weights over the epochs (tokens.parquet)")
    own = _own(folder, name, absent)
    return View(
        name=name,
        folder=folder,
        manifest=manifest,
        log=log,
        own=own,
        target=_compared(folder, manifest, "target", own, absent),
        oracle=_compared(folder, manifest, "oracle", own, absent),
        settings=None if recipe is None else recipe.model_dump(mode="json"),
        changed=None if recipe is None else recipe.model_dump(mode="json", exclude_defaults=True),
        recipe_text=recipe_text,
        absent=tuple(absent),
        verdict=_tree(folder, runfolder.VERDICT),
        attacks=_tree(folder, runfolder.ATTACKS_RESULT),
    )


def _recipe(folder: RunFolder, absent: list[str]) -> tuple[recipes.Recipe | None, str]:
    if not folder.has(runfolder.RECIPE):
        absent.append("settings (recipe.yaml)")
        return None, ""
    text = folder.file(runfolder.RECIPE).read_text(encoding="utf-8", errors="replace")
    try:
        return folder.recipe, text
    except ExpungeError as error:
        absent.append(f"settings that this version of expunge can read ({' '.join(str(error).split())[:200]})")
        return None, text


def _tree(folder: RunFolder, file: str) -> Mapping[str, Any]:
    try:
        return mapping(folder.read_json(file)) if folder.has(file) else {}
    except RunFolderError:
        return {}


def _own(folder: RunFolder, name: str, absent: list[str]) -> Column:
    labels = folder.labels
    others = [label for label in labels if label not in ("target", "oracle")] or labels
    label = OWN_LABEL if OWN_LABEL in labels or len(others) != 1 else others[0]
    column = _column(folder, label, name, "run", absent)
    if column is None:
        absent.append(f"its metrics (eval/{label}/metrics.json)")
    return column or Column(name, "run", {}, folder, label)


def _compared(
    folder: RunFolder, manifest: Mapping[str, Any], role: Literal["target", "oracle"], own: Column, absent: list[str]
) -> Column | None:
    """The target's or the oracle's column: from eval/ROLE of the run, or from the run that `compared_with` names."""
    if own.label == role:
        return None
    column = _column(folder, role, role, role, absent)
    elsewhere = manifest.get("compared_with")
    if column is None and isinstance(elsewhere, Mapping) and isinstance(elsewhere.get(role), str):
        try:
            other = runfolder.open(folder.path / elsewhere[role])
        except RunFolderError as error:
            absent.append(f"the {role} that the manifest names ({error})")
            return None
        labels = other.labels
        label = role if role in labels else OWN_LABEL if OWN_LABEL in labels else labels[0] if labels else role
        column = _column(other, label, role, role, absent)
    if column is None:
        absent.append(f"the {role}'s metrics (eval/{role}/metrics.json)")
    return column


def _column(folder: RunFolder, label: str, name: str, role: Role, absent: list[str]) -> Column | None:
    file = f"eval/{label}/metrics.json"
    if not folder.has(file):
        return None
    try:
        found = cells(folder.read_json(file), _items_table(folder, label))
    except RunFolderError as error:
        absent.append(f"readable metrics ({error})")
        return None
    return Column(name, role, found, folder, label, _subjects(folder, label), _unmeasured(folder, label))


def _unmeasured(folder: RunFolder, label: str) -> dict[str, str]:
    try:
        reasons = folder.read_json(f"eval/{label}/absent.json")
    except RunFolderError:
        return {}
    return {str(name): str(why) for name, why in reasons.items()} if isinstance(reasons, dict) else {}


def _items_table(folder: RunFolder, label: str) -> dict[str, dict[str, float]]:
    file = f"eval/{label}/{runfolder.ITEMS_TABLE}"
    if not folder.has(file):
        return {}
    try:
        rows = folder.read_table(file, columns=runfolder.ITEMS.names).to_pylist()
    except (ExpungeError, ValueError, KeyError):
        return {}
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(str(row["metric"]), {})[str(row["id"])] = row["value"]
    return found


def _subjects(folder: RunFolder, label: str) -> dict[str, str]:
    subjects: dict[str, str] = {}
    for name in folder.tables(label, "scores"):
        try:
            table = folder.read_table(f"eval/{label}/scores/{name}.parquet", columns=["id", "subject"])
        except (ExpungeError, ValueError, KeyError):
            continue
        pairs = zip(table.column("id").to_pylist(), table.column("subject").to_pylist(), strict=True)
        subjects.update({str(key): str(subject) for key, subject in pairs if subject})
    return subjects


def _items(by_index: object, aggregate: float) -> dict[str, float]:
    """The values by record whose mean is the aggregate; empty if there are none (an AUC is no mean of items)."""
    if not isinstance(by_index, Mapping) or not by_index:
        return {}
    rows = {str(key): row if isinstance(row, Mapping) else {"value": row} for key, row in by_index.items()}
    for key in next(iter(rows.values())):
        values = {name: number(row.get(key)) for name, row in rows.items()}
        kept = {name: value for name, value in values.items() if value is not None}
        if kept and math.isclose(math.fsum(kept.values()) / len(kept), aggregate, rel_tol=1e-5, abs_tol=1e-12):
            return kept
    return {}


def _spec(value: object) -> str:
    return str(value.get("name", "?")) if isinstance(value, Mapping) else str(value)


def _same(one: Column, other: Column) -> bool:
    if one.folder.path == other.folder.path and one.label == other.label:
        return True
    return {k: c.value for k, c in one.cells.items()} == {k: c.value for k, c in other.cells.items()}
