"""A run once more from its own recipe, and whether its numbers come out again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from expunge import pipeline, runfolder
from expunge import progress as progresses
from expunge.errors import RunFolderError
from expunge.progress import Progress
from expunge.recipe import Recipe
from expunge.report import collect
from expunge.runfolder import RunFolder

RESULT = "reproduction.json"


@dataclass(frozen=True)
class Change:
    """One fact that differs; numbers where it is one, else text. None: the run does not have it."""

    model: str
    what: str
    before: float | str | None
    after: float | str | None


@dataclass(frozen=True)
class Reproduction:
    """What a second run gave: `compared` numbers, those further apart than `tolerance`, and what else differs.

    `inputs` are hashes of data and models that differ, `environment` versions and machine. Without any of
    them the same bits are to be expected on a CPU, given the same number of threads.
    """

    folder: str
    tolerance: float
    compared: int
    changes: tuple[Change, ...]
    inputs: tuple[Change, ...]
    environment: tuple[Change, ...]

    @property
    def same(self) -> bool:
        """True if every number came out again."""
        return self.compared > 0 and not self.changes


def run(
    source: str | Path, out: str | Path, *, tolerance: float = 0.0, progress: Progress | None = None
) -> Reproduction:
    """Reruns the recipe of a run or a study into OUT/run, target and oracle into OUT/models, and compares all numbers.

    `tolerance` is the largest difference of two numbers that count as the same, in the unit of each metric. What was
    found is also in OUT/reproduction.json. RunFolderError if the folder holds no run that a recipe made whole.
    """
    first = runfolder.open(source)
    if first.manifest["kind"] not in ("unlearn", "study"):
        kind = first.manifest["kind"]
        raise RunFolderError(f"run '{source}' is of kind {kind}. Name one that `expunge run` or `expunge demo` made.")
    if first.manifest["status"] != "finished":
        raise RunFolderError(f"run '{source}' is {first.manifest['status']}: it has no final numbers. Finish it first.")
    root = Path(out).expanduser().resolve()
    second = pipeline.run(elsewhere(first.recipe, root), progress or progresses.automatic())
    found = compared(first, second, tolerance)
    RunFolder(root).write_json(RESULT, {"same": found.same, **asdict(found)})
    return found


def elsewhere(recipe: Recipe, root: Path) -> Recipe:
    """The recipe with all that it writes below `root`, so that nothing of the first run is used again."""
    changes: dict[str, Any] = {"output_dir": str(root / "run"), "overwrite": False}
    if recipe.finetune is not None:
        changes["finetune"] = recipe.finetune.model_copy(update={"output_dir": str(root / "models")})
    return recipe.model_copy(update=changes)


def compared(first: RunFolder, second: RunFolder, tolerance: float) -> Reproduction:
    """What differs between two runs of one recipe."""
    numbers = [_numbers(folder) for folder in (first, second)]
    keys = list(dict.fromkeys([*numbers[0], *numbers[1]]))
    changes = []
    for model, metric in keys:
        one, other = (found.get((model, metric)) for found in numbers)
        if one is None or other is None or abs(one - other) > tolerance:
            changes.append(Change(model, metric, one, other))
    facts = [_facts(folder) for folder in (first, second)]
    where = [_flat(folder.manifest.get("environment") or {}) for folder in (first, second)]
    return Reproduction(
        str(second.path), tolerance, len(keys), tuple(changes), _differing(*facts), _differing(*where)
    )  # fmt: skip


def _numbers(folder: RunFolder) -> dict[tuple[str, str], float]:
    """Every metric of every model that the report would show, by the model's name and its own."""
    models = collect.columns(collect.views([folder.path]))
    return {(model.name, name): cell.value for model in models for name, cell in model.cells.items()}


def _facts(folder: RunFolder) -> dict[str, str]:
    """Hashes of the data and the model that each run of a folder began with."""
    found: dict[str, str] = {}
    for run in collect.expand([folder.path]):
        manifest = run.manifest
        hashes = {**manifest.get("data", {}), "model": manifest.get("model", {})}
        found |= {f"{manifest.get('name')}: {what}": str(entry.get("hash")) for what, entry in hashes.items()}
    return found


def _flat(tree: Mapping[str, Any]) -> dict[str, str]:
    inner = tree.get("packages") or {}
    return {name: str(value) for name, value in {**tree, **inner}.items() if name != "packages"}


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> tuple[Change, ...]:
    names = dict.fromkeys([*one, *other])
    return tuple(Change("", name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name))
