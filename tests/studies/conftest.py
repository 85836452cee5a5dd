"""A tiny target and oracle, and the built-in benchmark's records with gold spans, for the studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from expunge import lm as lms
from expunge.data.load import save
from expunge.lm import LM
from expunge.synth import make
from tests.fixtures.models import tiny
from tests.fixtures.tokenizers import bpe


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """target/, oracle/, forget.jsonl (10 people, 20 records), retain.jsonl, recipe.yaml."""
    folder = tmp_path_factory.mktemp("studies")
    for name, seed in (("target", 0), ("oracle", 1)):
        model = tiny("llama", seed=seed, vocab_size=420, max_position_embeddings=256)
        lms.save(LM(model, bpe(), name), folder / name)
    people = make(people=40, facts=2, forget_share=0.25, holdout_share=0.1, shared=1, pairs=0, neighbours=1)
    save(folder / "forget.jsonl", people.records("forget"))
    save(folder / "retain.jsonl", people.records("retain")[:20])
    tree: dict[str, Any] = {
        "seed": 3,
        "device": "cpu",
        "model": {"model_name_or_path": str(folder / "target")},
        "data": {
            "forget": {"path": str(folder / "forget.jsonl")},
            "retain": {"path": str(folder / "retain.jsonl")},
            "template": "Q: {prompt} A: {answer}",
            "max_length": 192,
        },
        "evaluation": {"oracle": str(folder / "oracle")},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    return folder
