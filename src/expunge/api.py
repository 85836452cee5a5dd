"""The Python API: what `import expunge` offers beside the modules; every name here is loaded when it is first used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from expunge import lm as lms
from expunge import pipeline, registry, runs
from expunge import recipe as recipes
from expunge.context import prepared_in
from expunge.core import IGNORE, Batch, Forward, Needs, TokenStats
from expunge.data.load import load
from expunge.data.records import Record, Split
from expunge.errors import MethodError
from expunge.fused import Head, naive_token_stats, placed
from expunge.lm import LM
from expunge.recipe import Model, Recipe, Source
from expunge.runfolder import RunFolder
from expunge.terms import require_fit

RecipeLike = Recipe | Mapping[str, Any] | str | Path


def load_recipe(source: RecipeLike, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a YAML file, a mapping, or a recipe itself; RecipeError names every fault at once."""
    return source if isinstance(source, Recipe) else recipes.load(source, overrides)


def load_records(
    path: str | Path, split: Split = "forget", *, columns: Mapping[str, str] | None = None
) -> list[Record]:
    """The records of a file or folder in any of the supported formats; `columns` maps our fields to its columns."""
    return load(Source(path=str(path), columns=dict(columns or {})), split)


def load_model(name_or_path: str | Path, *, dtype: str = "float32", device: str = "auto") -> LM:
    """A causal language model with its tokenizer, by folder or hub name."""
    settings = Model.model_validate({"model_name_or_path": str(name_or_path), "dtype": dtype})
    return lms.load(settings, device=lms.device_of(device))


def score_tokens(
    model: LM | str | Path, records: Sequence[Record], *, score: str = "entropy", select: str = "raw", seed: int = 0
) -> pa.Table:
    """A table with a row a record: tokens, characters, score and weight of each, under the given model.

    `score` and `select` are specs as in a recipe, such as 'entropy:temperature=2' and 'top:r=0.3'.
    """
    lm = model if isinstance(model, LM) else load_model(model)
    term = {"objective": "ga", "score": score, "select": select}
    return runs.score_tokens(recipes.load({"seed": seed, "method": {"terms": [term]}}), lm, records)


def unlearn(source: RecipeLike, overrides: Iterable[str] = ()) -> RunFolder:
    """The run folder of the recipe's method, with the unlearned model in model/; goes on where it was stopped."""
    return runs.unlearn(load_recipe(source, overrides))


def finetune(source: RecipeLike, overrides: Iterable[str] = (), *, without: Iterable[str] = ()) -> RunFolder:
    """The run folder of the recipe's model trained on its records; `without=['forget']` makes the oracle."""
    return runs.finetune(load_recipe(source, overrides), without=set(without))


def run(source: RecipeLike, overrides: Iterable[str] = ()) -> RunFolder:
    """The run folder of the whole path: targets made if asked for, unlearned, evaluated, reported."""
    return pipeline.run(load_recipe(source, overrides))


def evaluate(model: LM | str | Path, source: RecipeLike, out: str | Path, overrides: Iterable[str] = ()) -> RunFolder:
    """The run folder with the score tables and metrics of a model on the recipe's evaluation suite."""
    return pipeline.evaluate(model, load_recipe(source, overrides), out)


def token_weights(
    logits: Tensor,
    labels: Tensor,
    *,
    score: str = "entropy",
    select: str = "normalised",
    reference_logits: Tensor | None = None,
) -> Tensor:
    """(B, T) float32 weights of the label tokens, for the loss of somebody else's trainer; detached.

    `logits` (B, T, V) and `labels` (B, T) as Hugging Face models take and return them: not shifted, -100 where nothing
    is scored. `weights[:, t]` belongs to `labels[:, t]` and is 0 where that is -100 and in the first column. With
    per-token losses of the shifted labels, `(weights[:, 1:] * losses).sum() / (labels[:, 1:] != -100).sum()` is the
    weighted token mean. MethodError for scores that need more than logits: annotations, hidden states, preparation.

    >>> logits = torch.log(torch.tensor([[[0.5, 0.5], [1.0, 1e-30], [0.5, 0.5]]]))
    >>> token_weights(logits, torch.tensor([[-100, 0, 1]])).round(decimals=3).tolist()  # all at the first label
    [[0.0, 2.0, 0.0]]
    """
    scorer, selector = registry.build("scorer", score), registry.build("selector", select)
    if scorer.needs.hidden or scorer.needs.alternative:
        raise MethodError(f"score '{score}' needs more than logits; use it in a recipe")
    if prepared_in(scorer):
        raise MethodError(f"score '{score}' is prepared from whole records; use it in a recipe, or score_tokens")
    require_fit(scorer, selector)
    if scorer.needs.reference and reference_logits is None:
        raise MethodError(f"score '{score}' needs the reference's logits. Give reference_logits")
    targets = torch.full_like(labels, IGNORE)
    targets[:, :-1] = labels[:, 1:]
    ids = tuple(str(row) for row in range(len(labels)))
    batch = Batch(labels.clamp(min=0), targets, torch.ones_like(labels, dtype=torch.bool), ids)
    reference = None if reference_logits is None else _stats(reference_logits, batch, Needs())
    forward = Forward(batch, _stats(logits, batch, scorer.needs), reference)
    value = selector(scorer(forward, None), batch.mask).value
    return torch.cat([torch.zeros_like(value[:, :1]), value[:, :-1]], dim=1)


def _stats(logits: Tensor, batch: Batch, needs: Needs) -> TokenStats:
    rows = logits.detach()[batch.mask]
    identity = Head(torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device))
    flat = naive_token_stats(rows, identity, batch.targets[batch.mask], needs)
    return placed(flat, batch.mask, batch.mask, {})
