"""Attention at another temperature: what a model predicts when it attends less sharply, its weights as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from expunge.core import Smoothing
from expunge.errors import ModelError


@contextmanager
def smoothed(model: PreTrainedModel, smoothing: Smoothing | None) -> Iterator[None]:
    """Inside, the attention of the first layers divides its scores by the temperature before the softmax.

    `smoothing` is (temperature, share of the layers); None changes nothing. Gemma 2's cap on scores comes after the
    division. ModelError if the layers do not say how they scale their scores.
    """
    if smoothing is None:
        yield
        return
    temperature, share = smoothing
    layers = attentions(model)
    chosen = layers[: max(1, round(share * len(layers)))]
    before = [layer.scaling for layer in chosen]
    try:
        for layer, scaling in zip(chosen, before, strict=True):
            layer.scaling = scaling / temperature
        yield
    finally:
        for layer, scaling in zip(chosen, before, strict=True):
            layer.scaling = scaling


def attentions(model: PreTrainedModel) -> list[Any]:
    """The attention of each layer, in order: modules that know their layer and the factor of their scores."""
    found = [m for m in model.modules() if "Attention" in type(m).__name__ and isinstance(_own(m, "layer_idx"), int)]
    expected = int(model.config.get_text_config().num_hidden_layers)
    if len(found) != expected or not all(isinstance(_own(layer, "scaling"), float) for layer in found):
        raise ModelError(
            "attention at another temperature needs layers that say how they scale their scores; "
            f"{type(model).__name__} has {expected} layers, of which {len(found)} could be read. Use kl:attention=1"
        )
    return sorted(found, key=lambda layer: int(layer.layer_idx))


def _own(module: nn.Module, name: str) -> object:
    return vars(module).get(name)
