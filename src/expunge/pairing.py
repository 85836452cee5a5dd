"""The run beside which another is held: its update norms, once it is sure that the two differ in nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from expunge import runfolder
from expunge.errors import TrainingError
from expunge.recipe import Recipe
from expunge.runfolder import RunFolder

_FREE = frozenset({"name", "output_dir", "overwrite", "device", "evaluation", "arms", "seeds"})
_FREE_IN_METHOD = frozenset({"control", "paired_run"})
_FREE_IN_TRAIN = frozenset({"save_steps", "save_total_limit", "report_to", "logging_steps"})


def paired_updates(recipe: Recipe, run: RunFolder, total: int) -> tuple[float, ...] | None:
    """How far each step of the paired run moved the parameters, for a recipe with control update-matched; else None.

    Notes in `run`'s manifest which run that was. TrainingError says what does not correspond: another recipe but for
    the control, another number of steps, steps that were not logged, a pair that was changed since this run began.
    """
    if recipe.method.control != "update-matched":
        return None
    if recipe.method.paired_run is None:
        raise TrainingError(
            "method.control=update-matched: set method.paired_run to the run folder of the method itself"
        )
    pair = runfolder.open(recipe.method.paired_run)
    faults = list(_faults(recipe, run, pair))
    if faults:
        raise TrainingError(f"method.paired_run='{pair.path}' does not correspond to this run: {'; '.join(faults)}")
    norms = _norms(pair, total)
    facts = {"run": str(pair.path), "updates": runfolder.text_hash(map(repr, norms))}
    before = run.manifest.get("paired_with")
    if before is not None and before["updates"] != facts["updates"]:
        raise TrainingError(
            f"this run began beside '{before['run']}', whose log has changed since. Start again with overwrite=true"
        )
    run.update(paired_with=facts)
    return norms


def _faults(recipe: Recipe, run: RunFolder, pair: RunFolder) -> Iterator[str]:
    facts, own = pair.manifest, run.manifest
    if facts["kind"] != "unlearn":
        yield f"it is a folder of kind '{facts['kind']}'; give one run of the method"
        return
    if facts["status"] != "finished":
        yield f"it is {facts['status']}; let it finish first"
    other = pair.recipe
    if other.method.control != "none":
        yield f"it is a control itself ({other.method.control}); give the run of the method"
    mine, theirs = (_settings(r) for r in (recipe, other))
    different = [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]
    if different:
        values = (f"{key} is {theirs.get(key)!r} there, {mine.get(key)!r} here" for key in different[:3])
        yield f"{len(different)} settings differ: " + ", ".join(values)
    for side in own["data"]:
        if own["data"][side] != facts["data"].get(side):
            yield f"its {side} records are others"
    if own["model"].get("hash") != facts["model"].get("hash"):
        yield "it started from other weights"


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Every setting that decides a step, by its dotted name."""
    tree = recipe.model_dump(mode="json", exclude=set(_FREE))
    tree["method"] = {k: v for k, v in tree["method"].items() if k not in _FREE_IN_METHOD}
    tree["train"] = {k: v for k, v in tree["train"].items() if k not in _FREE_IN_TRAIN}
    return dict(_flat(tree, ""))


def _flat(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _norms(pair: RunFolder, total: int) -> tuple[float, ...]:
    found = {line["step"]: line.get("update_norm") for line in pair.read_log()}
    norms = [found.get(step) for step in range(1, total + 1)]
    if max(found, default=0) != total or None in norms:
        raise TrainingError(
            f"method.paired_run='{pair.path}': its log has the update norm of "
            f"{sum(n is not None for n in found.values())} steps, the last is step {max(found, default=0)}; this run "
            f"takes {total}. The pair must be as long, and logged at every step (train.logging_steps=1)"
        )
    return tuple(float(norm) for norm in norms if norm is not None)
