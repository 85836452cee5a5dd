"""The demo: fictitious people forgotten by a small model, offline and on a CPU, and judged beside the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from expunge import pipeline, recipe, runfolder
from expunge import progress as progresses
from expunge.data.load import save
from expunge.progress import Progress
from expunge.recipe import Recipe
from expunge.report import heat, page, text
from expunge.runfolder import RunFolder
from expunge.synth import DEMO

METHODS = ("graddiff", "wga", "etw")
PICTURE = "sentence.svg"


def run(out: str | Path, *, overwrite: bool = False, progress: Progress | None = None) -> RunFolder:
    """The demo's folder: data/, models/target, models/oracle, a run a method, report.html and the picture.

    Goes on where an earlier call was stopped.
    """
    root = Path(out)
    show = progress or progresses.automatic()
    torch.set_num_threads(1)  # matrices this small lose by sharing, and one thread gives the same bits on every machine
    folder, _ = _begin(root, overwrite)
    with runfolder.recording(folder):
        with show.stage("Invent people"):
            _write_data(root / "data")
        runs = [pipeline.run(demo_recipe(root, preset), show).path for preset in METHODS]
        page.render([folder.path], folder.file(runfolder.REPORT))
        heat.before_after(runs[-1], folder.file(PICTURE))
        folder.write_text("table.txt", text.plain(text.full(runs), width=160))
    return folder


def demo_recipe(root: Path, preset: str) -> Recipe:
    """The recipe of one method of the demo: what `expunge run` would need to repeat it."""
    data = root / "data"
    settings: Mapping[str, Any] = {
        "name": preset,
        "seed": DEMO.seed,
        "output_dir": str(root / preset),
        "device": "cpu",
        "model": {"fresh": DEMO.model.model_dump()},
        "data": {
            **{side: {"path": str(data / f"{side}.jsonl")} for side in ("forget", "retain", "holdout", "general")},
            "max_length": DEMO.max_length,
        },
        "method": {"preset": preset},
        "train": DEMO.unlearn.model_dump(),
        "finetune": {"output_dir": str(root / "models"), "train": DEMO.finetune.model_dump()},
        "evaluation": {"suite": "own", "limit": DEMO.judged, "max_new_tokens": DEMO.max_new_tokens},
    }
    return recipe.load(settings)


def _begin(root: Path, overwrite: bool) -> tuple[RunFolder, bool]:
    if runfolder.is_run(root) and not overwrite:
        folder = runfolder.open(root)
        if folder.manifest["kind"] == "demo":
            folder.update(status="running", finished=None)
            return folder, True
    folder = runfolder.create(root, "demo", overwrite=overwrite, name="demo")
    folder.update(runs=list(METHODS))
    return folder, False


def _write_data(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    benchmark = DEMO.make()
    for split in ("forget", "retain", "holdout"):
        save(folder / f"{split}.jsonl", benchmark.records(split, ("qa",)))
    save(folder / "general.jsonl", benchmark.records("general", ("qa", "sentence")))
