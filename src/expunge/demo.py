"""The demo: fictitious people forgotten by a small model, offline and on a CPU, and judged beside the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from expunge import pipeline, runfolder
from expunge import progress as progresses
from expunge.data.load import save
from expunge.progress import Progress
from expunge.recipe import Recipe
from expunge.report import heat, text
from expunge.resolve import resolve
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
    recipe = demo_recipe(root, overwrite)
    folder = pipeline.begin_study(recipe)
    with runfolder.recording(folder):
        with show.stage("Invent people"):
            _write_data(root / "data")
        runs = [made.path for made in pipeline.run_variants(recipe, folder, show)]
        heat.before_after(runs[-1], folder.file(PICTURE))
        folder.write_text("table.txt", text.plain(text.full(runs), width=160))
    return folder


def demo_recipe(root: Path, overwrite: bool = False) -> Recipe:
    """The recipe of the demo: one target and oracle, an arm for each method."""
    data = root / "data"
    settings: Mapping[str, Any] = {
        "name": "demo",
        "seed": DEMO.seed,
        "arms": {preset: [f"method.preset={preset}"] for preset in METHODS},
        "output_dir": str(root),
        "overwrite": overwrite,
        "device": "cpu",
        "model": {"fresh": DEMO.model.model_dump()},
        "data": {
            **{side: {"path": str(data / f"{side}.jsonl")} for side in ("forget", "retain", "holdout", "general")},
            "max_length": DEMO.max_length,
        },
        "train": DEMO.unlearn.model_dump(),
        "finetune": {"output_dir": str(root / "models"), "train": DEMO.finetune.model_dump()},
        "evaluation": {"suite": "own", "limit": DEMO.judged, "max_new_tokens": DEMO.max_new_tokens},
    }
    return resolve(settings)


def _write_data(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    benchmark = DEMO.make()
    for split in ("forget", "retain", "holdout"):
        save(folder / f"{split}.jsonl", benchmark.records(split, ("qa",)))
    save(folder / "general.jsonl", benchmark.records("general", ("qa", "sentence")))
