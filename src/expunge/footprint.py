"""How large a model is, and what its training takes: guessed from names, or counted without weights."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from expunge.recipe import Model, Train
from expunge.sections import FreshModel

_PHI = re.compile(r"phi-1[._]5", re.IGNORECASE)
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_QUANTISED = {"int8": 1.0, "nf4": 0.56}
"""Bytes a weight, scales included, as if the embedding were quantised too."""
_KEPT, _KEPT_INNER = 19, 4
"""Values that a Llama layer keeps for the backward pass, a token and unit of width; the same of the inner width."""
_SCORED, _ROWS, _CHUNK = 2 / 3, 3, 2**25
"""Share of a batch's tokens that are answers; rows of logits held for each of them, at most a chunk of each."""
_LIBRARIES = 60 * 2**20
"""What a run holds beside its arrays: libraries that are loaded late, tokens, tables."""
EFFICIENCY = 0.4
"""Share of the speed of a large matrix product that training reaches; measured between 0.3 and 0.6 on CPUs."""


@dataclass(frozen=True)
class Amount:
    """A number, or None where it cannot be known here, and whether it was counted or estimated."""

    value: int | None
    exact: bool = True

    def __str__(self) -> str:
        if self.value is None:
            return "unknown here"
        return f"{self.value:,}" if self.exact else f"about {self.value:,}"


@dataclass(frozen=True)
class Shape:
    """The size of a model: parameters in all, width, layers (0 where not known).

    `widths`: inputs and outputs of all its linear layers but the head, added up: an adapter of rank r has r times that.
    `inner`: width of the feed-forward layers; `vocabulary`: tokens that it predicts.
    """

    parameters: Amount
    hidden: int = 0
    layers: int = 0
    widths: int = 0
    inner: int = 0
    vocabulary: int = 0


def shape_of(model: Model) -> Shape:
    """The size of a recipe's model from its configuration, made without weights, or guessed from its name.

    >>> shape_of(Model(model_name_or_path="open-unlearning/tofu_Llama-3.2-1B-Instruct_full")).parameters
    Amount(value=1000000000, exact=False)
    """
    if model.fresh is not None:
        return _fresh_shape(model.fresh)
    name = model.model_name_or_path or ""
    if (Path(name) / "adapter_config.json").is_file():
        from expunge.adapters import base_of

        name = base_of(Path(name))
    if (Path(name) / "config.json").is_file():
        return _local_shape(name)
    found = re.search(r"(\d+(?:\.\d+)?)[bB](?![a-zA-Z])", name)
    guess = float(found[1]) if found else 1.4 if _PHI.search(name) else None
    return Shape(Amount(None if guess is None else int(guess * 1e9), exact=False))


def memory(shape: Shape, model: Model, train: Train, tokens: int, reference: bool) -> dict[str, int]:
    """Bytes by purpose at the peak of a step with `tokens` tokens in a micro-batch; empty if the size is unknown.

    >>> sizes = memory(Shape(Amount(1000)), Model(), Train(), tokens=0, reference=False)
    >>> sizes["weights"], sizes["AdamW"], sum(sizes.values())
    (4000, 8000, 20000)
    """
    count = shape.parameters.value
    if count is None:
        return {}
    wide = BYTES[model.dtype]
    weights = int(count * _QUANTISED.get(model.quantization, wide))
    trained = count * wide if train.adapter is None else 4 * train.adapter.r * shape.widths
    sizes = {"weights": weights, "gradients": trained, "AdamW": 2 * trained, "start, for the drift": trained}
    if train.adapter is not None:
        sizes["adapter"] = trained
    if reference:
        sizes["reference"] = weights
    if shape.layers and tokens:
        layer = shape.hidden if train.gradient_checkpointing else _KEPT * shape.hidden + _KEPT_INNER * shape.inner
        sizes["activations"] = tokens * shape.layers * layer * (2 if train.bf16 else 4)
        sizes["logits"] = 4 * _ROWS * min(int(_SCORED * tokens) * shape.vocabulary, _CHUNK)
        sizes["libraries"] = _LIBRARIES
    return sizes


def disk(sizes: Mapping[str, int], train: Train) -> int:
    """Bytes that a training leaves at most: the model, and checkpoints of what is trained with AdamW's state.

    >>> disk({"weights": 100, "gradients": 10, "AdamW": 20}, Train(save_total_limit=2))
    190
    """
    if not sizes:
        return 0
    return sizes["weights"] + (train.save_total_limit + 1) * (sizes["gradients"] + sizes["AdamW"])


def measure_speed(bf16: bool = False, seconds: float = 0.2) -> float:
    """Floating-point operations a second in matrix products on this machine's fastest device; bfloat16 on GPUs only."""
    import torch

    from expunge.lm import device_of

    device = device_of("auto")
    size = 2048 if device != "cpu" else 768
    matrix = torch.ones(size, size, device=device, dtype=torch.bfloat16 if bf16 and device != "cpu" else torch.float32)
    done, began = 0, time.perf_counter()
    while done < 2 or time.perf_counter() - began < seconds:
        float((matrix @ matrix)[0, 0])
        done += 1
    return 2.0 * size**3 * done / (time.perf_counter() - began)


def _local_shape(folder: str) -> Shape:
    import torch
    from torch import nn
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    text = config.get_text_config()
    linear = [m for m in model.modules() if isinstance(m, nn.Linear) and m is not model.get_output_embeddings()]
    widths = sum(m.in_features + m.out_features for m in linear)
    hidden, layers = int(text.hidden_size), int(text.num_hidden_layers)
    inner = int(text.to_dict().get("intermediate_size") or 4 * hidden)
    return Shape(Amount(model.num_parameters()), hidden, layers, widths, inner, int(text.vocab_size))


def _fresh_shape(fresh: FreshModel) -> Shape:
    """A Llama of this size: embedding, four square and three wide matrices and two norms a layer, the last norm."""
    width = fresh.hidden_size
    layer = 4 * width**2 + 3 * width * fresh.intermediate_size + 2 * width
    tables = fresh.vocab_size * width * (1 if fresh.tie_word_embeddings else 2)
    widths = fresh.num_hidden_layers * (8 * width + 3 * (width + fresh.intermediate_size))
    count = Amount(tables + fresh.num_hidden_layers * layer + width)
    return Shape(count, width, fresh.num_hidden_layers, widths, fresh.intermediate_size, fresh.vocab_size)


def total(*amounts: Amount) -> Amount:
    """The sum of amounts; None if one of them is not known."""
    values = [amount.value for amount in amounts]
    known = [value for value in values if value is not None]
    return Amount(sum(known) if len(known) == len(values) else None, all(amount.exact for amount in amounts))
