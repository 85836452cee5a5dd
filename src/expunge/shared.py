"""What runs of one study read alike, read once in a process: the model that they start from, records, tokens."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedTokenizerBase

from expunge import lm as lms
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.lm import LM
from expunge.recipe import Data, Model, Recipe
from expunge.sides import Prepared, prepare

KEPT_BYTES = 2**28
"""Weights of a model that is kept beside the copies in training; a larger one is read from disk again."""


@dataclass
class Shared:
    """Models and tokens by what decides them. With `keep` false, the default, nothing is kept: for a single run.

    Files are taken to stay as they are while it lives.
    """

    keep: bool = False
    _models: dict[str, LM] = field(default_factory=dict)
    _encoders: dict[str, Encoder] = field(default_factory=dict)
    _prepared: dict[str, Prepared] = field(default_factory=dict)

    def load(self, settings: Model, device: str) -> LM:
        """The model that these settings name, as on disk: the caller may train it."""
        key = f"{device} {settings.model_dump_json()}"
        if key in self._models:
            kept = self._models[key]
            return replace(kept, model=copy.deepcopy(kept.model))
        found = lms.load(settings, device=device)
        if self.keep and sum(p.numel() * p.element_size() for p in found.model.parameters()) <= KEPT_BYTES:
            self._models[key] = replace(found, model=copy.deepcopy(found.model))
        return found

    def encoder(self, tokenizer: PreTrainedTokenizerBase, data: Data) -> Encoder:
        """The encoder that a recipe's data section describes; one that remembers, if things are kept."""
        if not self.keep:
            return Encoder.from_recipe(tokenizer, data)
        sources = {"forget", "retain", "holdout", "training", "general"}
        key = f"{_content(tokenizer)} {data.model_dump_json(exclude=sources)}"
        if key not in self._encoders:
            self._encoders[key] = replace(Encoder.from_recipe(tokenizer, data), memo={})
        return self._encoders[key]

    def prepare(self, recipe: Recipe, lm: LM, written: Sequence[Record] = ()) -> Prepared:
        """`sides.prepare`; what the model wrote itself is prepared anew every time."""
        encoder = self.encoder(lm.tokenizer, recipe.data)
        if not self.keep or written:
            return prepare(recipe, lm, written, encoder)
        key = f"{_content(lm.tokenizer)} {recipe.data.model_dump_json()} {recipe.seed}"
        if key not in self._prepared:
            self._prepared[key] = prepare(recipe, lm, (), encoder)
        return self._prepared[key]


def _content(tokenizer: PreTrainedTokenizerBase) -> str:
    """What decides a tokenizer's ids, as a hash; the object itself where the library does not say."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return str(id(tokenizer))
    return hashlib.sha256(f"{backend.to_str()} {tokenizer.chat_template}".encode()).hexdigest()
