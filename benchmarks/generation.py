"""Greedy answers to TOFU's questions: rows refilled as they finish, beside Hugging Face's `generate` on padded batches.

    python benchmarks/generation.py --model ../shared/parity/models/target --data ../shared/parity/data

Batches of the library are in the order of the data, as tools that judge unlearning make them. A model that was trained
on the answers stops after them; one that never stops gains nothing. CPU time of one thread in one process, in turns;
the texts of both are compared first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import clock
import torch

from expunge import lm as lms
from expunge.data.encode import Encoder
from expunge.decode import complete, stop_ids
from expunge.evals import tofu
from expunge.lm import LM
from expunge.recipe import Model

PLAIN, OURS = "generate on padded batches", "rows refilled"
TEMPLATE = "<|begin|><|user|>{prompt}<|end|><|assistant|>{answer}<|eos|>"


def by_the_library(
    lm: LM, prompts: Sequence[Sequence[int]], stops: frozenset[int], limit: int, batch_size: int
) -> list[tuple[int, ...]]:
    """What `generate` writes after each prompt, without the token that stopped it."""
    texts = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        width = max(map(len, batch))
        ids = torch.tensor([[lm.pad_id] * (width - len(prompt)) + list(prompt) for prompt in batch])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch])
        out = lm.model.generate(
            ids, attention_mask=mask, max_new_tokens=limit, do_sample=False, eos_token_id=sorted(stops),
            pad_token_id=lm.pad_id,
        )  # fmt: skip
        for row in out[:, width:].tolist():
            end = next((place for place, token in enumerate(row) if token in stops), len(row))
            texts.append(tuple(row[:end]))
    return texts


def main() -> None:
    """Reads the command line and prints one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("../shared/parity/models/target"))
    parser.add_argument("--data", type=Path, default=Path("../shared/parity/data"))
    parser.add_argument("--template", default=TEMPLATE)
    parser.add_argument("--limit", type=int, help="at most so many records a set")
    for name, value in {"new-tokens": 200, "batch-size": 32, "times": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lm = lms.load(Model(model_name_or_path=str(args.model)))
    encoder = Encoder(lm.tokenizer, template=args.template)
    sets = tofu.load_suite(args.data, limit=args.limit)
    records = [record for name, own in sets.items() if name != "holdout" for record in own]
    prompts, stops = [encoder.prompt_ids(record) for record in records], stop_ids(lm, encoder, records)
    size = {"limit": args.new_tokens, "batch_size": args.batch_size}

    def ours() -> list[tuple[int, ...]]:
        found = complete(lm, prompts, stops, max_new_tokens=args.new_tokens, batch_size=args.batch_size)
        return [text.ids for text in found]

    def plain() -> list[tuple[int, ...]]:
        return by_the_library(lm, prompts, stops, **size)

    torch.set_num_threads(1)
    with torch.no_grad():
        texts, expected = ours(), plain()
        found = clock.ratios({PLAIN: plain, OURS: ours}, OURS, args.times)
    row: dict[str, Any] = {
        "prompts": len(prompts),
        "equal": sum(a == b for a, b in zip(texts, expected, strict=True)),
        "tokens": sum(map(len, texts)),
        "longest": max(map(len, texts)),
        **{name: round(value, 3) for name, value in found.items()},
    }
    clock.report([row], args.out)


if __name__ == "__main__":
    main()
