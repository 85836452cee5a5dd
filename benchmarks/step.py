"""A step of unlearning beside one of plain fine-tuning on the same tokens with the model's own loss.

    python benchmarks/step.py --width 256 --layers 4 --vocabulary 4096 --out step.json

The reference's numbers are remembered, as in a run. CPU time, one thread, in one process; no optimiser.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clock
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from expunge.core import IGNORE, Batch, Side
from expunge.data.collate import collate
from expunge.data.encode import Encoded
from expunge.lm import Scored
from expunge.recipe import Method, TermSpec
from expunge.refcache import remembered, to_keep
from expunge.step import Step, accumulate, join
from expunge.terms import build_terms, needs_of

METHODS = {"ga + nll": ("ga", "nll"), "npo + nll": ("npo", "nll"), "ga + kl": ("ga", "kl")}
PLAIN = "plain fine-tuning"


def item(rng: np.random.Generator, name: str, vocabulary: int) -> Encoded:
    """A question of a dozen tokens and an answer of a random length, about as long as those of TOFU."""
    prompt, length = 12, int(rng.integers(30, 80))
    ids = rng.integers(0, vocabulary, length)
    targets = np.append(ids[1:], IGNORE)
    targets[: prompt - 1] = IGNORE
    return Encoded(name, ids, targets, np.zeros((length, 2), np.int32), {})


def works(width: int, layers: int, vocabulary: int, rows: int) -> dict[str, Callable[[], object]]:
    """The gradient of each method on one batch of both sides, and that of the model's own loss on the same batch."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    config = LlamaConfig(
        hidden_size=width, intermediate_size=width * 11 // 4, num_hidden_layers=layers, vocab_size=vocabulary,
        num_attention_heads=4, num_key_value_heads=4,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    module = Scored(model)
    items: dict[Side, list[Encoded]] = {
        side: [item(rng, f"{side}{i}", vocabulary) for i in range(rows)] for side in ("forget", "retain")
    }
    batches: dict[Side, Batch] = {side: collate(own, 0) for side, own in items.items()}
    whole = join(list(batches.values()))
    labels = torch.roll(whole.targets, 1, 1)  # Hugging Face shifts them back

    def plain() -> None:
        model.zero_grad()
        model(input_ids=whole.input_ids, attention_mask=whole.attention_mask.long(), labels=labels).loss.backward()

    def step(forget: str, retain: str) -> Callable[[], object]:
        specs = (TermSpec(objective=forget), TermSpec(objective=retain, on="retain"))
        terms = build_terms(Method(terms=specs))
        kept = to_keep(items, {side: needs_of(terms, side) for side in items})
        made = Step(terms, remembered(module, kept, 0) if kept else None)

        def work() -> None:
            model.zero_grad()
            accumulate(made, module, [batches], lambda loss: loss.backward(), [0])

        return work

    return {PLAIN: plain, **{name: step(*objectives) for name, objectives in METHODS.items()}}


def main() -> None:
    """Reads the command line and prints one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"width": 256, "layers": 4, "vocabulary": 4096, "rows": 8, "times": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    size = {"width": args.width, "layers": args.layers, "vocabulary": args.vocabulary, "rows": args.rows}
    found = clock.ratios(works(**size), PLAIN, args.times)
    rows: list[dict[str, Any]] = [size | {name: round(value, 3) for name, value in found.items()}]
    clock.report(rows, args.out)


if __name__ == "__main__":
    main()
