"""How hard the built-in benchmark is: target, oracle and the model before it learned, for models of several sizes.

    python benchmarks/difficulty.py --out runs/difficulty            three sizes from scratch, about half an hour
    python benchmarks/difficulty.py --base FOLDER                    and one that has read natural English before

Everything is kept under --out and not computed twice; the table is printed as Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from expunge import fresh, lm, pipeline, recipe, sides
from expunge.data.load import save
from expunge.progress import automatic
from expunge.recipe import Recipe
from expunge.runfolder import RunFolder
from expunge.synth import DEMO

# The step size falls as the width grows; the epochs are what the target needs to know its texts by heart.
SIZES = {
    64: {"intermediate_size": 176, "num_attention_heads": 2, "learning_rate": 4e-3, "num_train_epochs": 20},
    128: {"intermediate_size": 352, "num_attention_heads": 4, "learning_rate": 2.5e-3, "num_train_epochs": 14},
    256: {"intermediate_size": 704, "num_attention_heads": 4, "learning_rate": 1.5e-3, "num_train_epochs": 10},
}
COLUMNS = {
    "forget_Q_A_Prob": "forget", "retain_Q_A_Prob": "retain", "general_Q_A_Prob": "general",
    "forget_truth_ratio": "min(R, 1/R), forget", "retain_Truth_Ratio": "1 - R, retain", "mia_min_k": "AUC min-k",
}  # fmt: skip


def recipes(out: Path, base: str | None) -> Iterator[tuple[str, Recipe]]:
    """A recipe for each model."""
    data = {side: {"path": str(out / "data" / f"{side}.jsonl")} for side in ("forget", "retain", "holdout", "general")}
    for width, settings in SIZES.items():
        model = {**DEMO.model.model_dump(), "hidden_size": width}
        model |= {key: settings[key] for key in ("intermediate_size", "num_attention_heads")}
        train = {key: settings[key] for key in ("learning_rate", "num_train_epochs")}
        yield f"width {width}", _recipe(out / str(width), {"fresh": model}, train, data)
    if base is not None:
        train = {"learning_rate": 1e-3, "num_train_epochs": 10}
        yield "natural-English base", _recipe(out / "base", {"model_name_or_path": base}, train, data)


def _recipe(out: Path, model: Mapping[str, Any], train: Mapping[str, Any], data: Mapping[str, Any]) -> Recipe:
    return recipe.load(
        {
            "output_dir": str(out),
            "device": "cpu",
            "model": model,
            "data": {**data, "max_length": DEMO.max_length},
            "finetune": {"output_dir": str(out), "train": {**DEMO.finetune.model_dump(), **train}},
            "evaluation": {"suite": "own", "limit": DEMO.judged, "generate": False},
        }
    )


def untrained(settings: Recipe) -> lm.LM:
    """The model as it is before it learns."""
    if settings.model.fresh is not None:
        return fresh.fresh_model(settings.model.fresh, sides.all_texts(settings), settings.seed)
    return lm.load(settings.model)


def judged(settings: Recipe) -> dict[str, RunFolder]:
    """Run folders with the metrics of target, oracle and the untrained model."""
    show, out = automatic(), Path(settings.output_dir)
    made = pipeline.prepare_models(settings, show)
    sets = pipeline.sets_of(settings)
    for label, folder in made.items():
        pipeline.judge(settings, folder, label, folder.file("model"), sets, None, show)
    before = pipeline.evaluate(untrained(settings), settings, out / "before", show)
    return {**made, "before": before}


def main() -> None:
    """Prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path("runs/difficulty"))
    arguments.add_argument("--base", help="folder of a small model that has read natural English")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    benchmark = DEMO.make()
    (given.out / "data").mkdir(parents=True, exist_ok=True)
    for split in ("forget", "retain", "holdout"):
        save(given.out / "data" / f"{split}.jsonl", benchmark.records(split, ("qa",)))
    save(given.out / "data" / "general.jsonl", benchmark.records("general", ("qa", "sentence")))
    print("| model | parameters | | " + " | ".join(COLUMNS.values()) + " |")
    print("|---|---|---|" + "---|" * len(COLUMNS))
    for name, settings in recipes(given.out, given.base):
        folders = judged(settings)
        size = sum(p.numel() for p in untrained(settings).model.parameters())
        for label in ("before", pipeline.TARGET, pipeline.ORACLE):
            found = folders[label].read_json(f"eval/{'model' if label == 'before' else label}/metrics.json")
            cells = [shown(found.get(metric)) for metric in COLUMNS]
            print(f"| {name} | {size / 1e6:.2f}M | {label} | " + " | ".join(cells) + " |", flush=True)


def shown(entry: Mapping[str, Any] | None) -> str:
    """'.012 [.010, .015]', or nothing where the metric is absent."""
    if entry is None:
        return ""
    value, low, high = (f"{entry[key]:.3f}".replace("0.", ".", 1) for key in ("agg_value", "ci_low", "ci_high"))
    return f"{value} [{low}, {high}]"


if __name__ == "__main__":
    main()
