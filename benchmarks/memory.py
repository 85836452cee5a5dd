"""The memory that `expunge plan` predicts beside what a run takes, on three sizes, a fresh process for each.

    python benchmarks/memory.py --folder runs/memory --out memory.json

Models are from scratch and are read from disk; two updates on fictitious records. What a run takes is the most that its
process held (VmHWM), less what it held with everything imported.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bigdata import status

from expunge import fresh, plan, recipe, runs, synth
from expunge.data.load import save
from expunge.lm import LM
from expunge.lm import save as save_model
from expunge.recipe import FreshModel, Recipe

SIZES = {
    "8M": FreshModel(hidden_size=256, intermediate_size=704, num_hidden_layers=8, vocab_size=4096),
    "36M": FreshModel(hidden_size=512, intermediate_size=1408, num_hidden_layers=10, vocab_size=8192),
    "112M": FreshModel(
        hidden_size=768, intermediate_size=2048, num_hidden_layers=13, num_attention_heads=12, vocab_size=24_000
    ),
}
METHODS = ("graddiff", "npo", "graddiff-kl")


def main() -> None:
    """Measures every size under every method and prints a table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    arguments.add_argument("--folder", type=Path, default=Path("runs/memory"))
    arguments.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    arguments.add_argument("--methods", nargs="+", default=list(METHODS))
    arguments.add_argument("--out", type=Path)
    arguments.add_argument("--one", nargs=2, help="measure one size and method in this process")
    given = arguments.parse_args()
    if given.one:
        print(json.dumps(measured(given.folder, *given.one)))
        return
    found = []
    print("| size | method | predicted, MB | measured, MB | predicted / measured |")
    print("|---|---|---|---|---|", flush=True)
    for size in given.sizes:
        prepare(given.folder, size)
        for method in given.methods:
            call = [sys.executable, __file__, "--folder", str(given.folder), "--one", size, method]
            told = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            found.append(told)
            ratio = told["predicted"] / told["measured"]
            print(f"| {size} | {method} | {told['predicted']:.0f} | {told['measured']:.0f} | {ratio:.2f} |", flush=True)
    if given.out:
        given.out.write_text(json.dumps(found, indent=1), encoding="utf-8")


def prepare(folder: Path, size: str) -> None:
    """A model of the size on disk, and the records."""
    made = synth.make(people=24, seed=1, facts=6, forget_share=0.5, holdout_share=0, general=0)
    folder.mkdir(parents=True, exist_ok=True)
    for side in ("forget", "retain"):
        save(folder / f"{side}.jsonl", made.records(side))
    if not (folder / size / "config.json").is_file():
        texts = [text for side in ("forget", "retain") for r in made.records(side) for text in (r.prompt, r.answer)]
        tokenizer = fresh.fit_tokenizer(texts, SIZES[size])
        model = fresh.fresh_llama(SIZES[size], tokenizer, 0)
        model.resize_token_embeddings(SIZES[size].vocab_size, mean_resizing=False)  # few texts make a small tokenizer
        save_model(LM(model, tokenizer, size), folder / size)


def asked(folder: Path, size: str, method: str) -> Recipe:
    """The recipe of one run."""
    return recipe.load(
        {
            "output_dir": str(folder / f"run-{size}-{method}"), "overwrite": True, "device": "cpu",
            "model": {"model_name_or_path": str(folder / size)},
            "data": {side: {"path": str(folder / f"{side}.jsonl")} for side in ("forget", "retain")},
            "method": {"preset": method},
            "train": {
                "max_steps": 2, "per_device_train_batch_size": 16, "gradient_accumulation_steps": 1,
                "trace": False, "save_steps": 1000,
            },
        }
    )  # fmt: skip


def measured(folder: Path, size: str, method: str) -> dict[str, Any]:
    """{size, method, parts, predicted, measured} in megabytes."""
    made = asked(folder, size, method)
    parts = plan.plan(made, 1e11).stages[-1].memory
    before = status("VmRSS")
    runs.unlearn(made)
    return {
        "size": size,
        "method": method,
        "parts": {name: round(value / 2**20, 1) for name, value in parts.items()},
        "predicted": sum(parts.values()) / 2**20,
        "measured": status("VmHWM") - before,
    }


if __name__ == "__main__":
    main()
