"""Adapters (LoRA, DoRA) in a model: put in, switched off, folded into the weights. The one place that imports peft.

A model keeps its class: its layers are replaced by layers that hold the old one beside the adapter, which is what
transformers does itself. Nothing here costs anything for a model without an adapter.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from expunge.errors import ModelError
from expunge.sections import Adapter

NAME = "expunge"
CONFIG = "adapter_config.json"


def attach(model: PreTrainedModel, settings: Adapter, seed: int) -> None:
    """Puts a new adapter in, that changes nothing yet; only its parameters train. What is random comes from `seed`.

    ModelError if the model has an adapter already, or none of its layers is meant.
    """
    from peft import LoraConfig

    if attached(model):
        raise ModelError("the model has an adapter already; fold it into the weights before another is put in")
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=settings.target_modules,
        modules_to_save=list(settings.modules_to_save) or None,
        use_dora=settings.use_dora,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # as GPT-2 keeps its weights
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            model.add_adapter(config, NAME)
        except ValueError as error:
            layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
            raise ModelError(
                f"train.adapter.target_modules='{settings.target_modules}' does not fit "
                f"{type(model).__name__}: {str(error)[:200]}. Its linear layers look like: {', '.join(layers[:4])}"
            ) from error
    base = Path(str(model.name_or_path))
    if base.is_dir():
        model.peft_config[NAME].base_model_name_or_path = str(base.resolve())


def attached(model: nn.Module) -> bool:
    """True if the model has adapters, its own or those it was loaded with."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


@contextmanager
def switched_off(model: PreTrainedModel) -> Iterator[None]:
    """The model as it was before the adapter, in evaluation mode, inside the block."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    # transformers' enable_adapters leaves layers that are trained whole switched off
    layers = [module for module in model.modules() if isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper))]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    training = model.training
    model.eval()
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, trains in flags:  # switching off freezes all of an adapter, switching on none
            parameter.requires_grad_(trains)
        model.train(training)


def fold(model: PreTrainedModel) -> None:
    """Adds the adapters to the weights they stand beside and removes them: parameters have their old names again.

    ModelError if the folded model's logits on a few tokens are not those of the model with its adapters, within 1e-4 of
    the largest in float32 and 5e-2 in other types; or if its weights are quantised, to which nothing can be added.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    if quantised(model):
        raise ModelError(
            "an adapter cannot be folded into quantised weights without rounding it away. Set "
            "train.adapter.save=adapter to keep it beside them"
        )
    expected = _logits(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            model.set_submodule(name, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            model.set_submodule(name, module.modules_to_save[module.active_adapters[0]])
    del model.peft_config
    model._hf_peft_config_loaded = False
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    found = _logits(model)
    worst = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    tolerance = 1e-4 if model.dtype == torch.float32 else 5e-2
    if not worst <= tolerance:
        raise ModelError(
            f"the adapter folded into the weights gives other logits than beside them, by {worst:.2g} of the largest "
            f"(at most {tolerance:g}). Set train.adapter.save=adapter"
        )


def quantised(model: nn.Module) -> bool:
    """True if the weights were quantised when the model was loaded."""
    return getattr(model, "quantization_method", None) is not None


def linear_of(layer: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """Weight (V, D) and bias of a linear layer, adapters on it included; None if it is not one that we can read.

    A quantised weight is made whole. Gradients reach an adapter's matrices through the weight.
    """
    if type(layer) is nn.Linear:
        return layer.weight, layer.bias
    if not _peft_loaded():
        return _whole(layer)
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper

    if isinstance(layer, ModulesToSaveWrapper):
        inner = layer.original_module if layer.disable_adapters else layer.modules_to_save[layer.active_adapters[0]]
        return linear_of(inner)
    if not isinstance(layer, LoraLayer):
        return _whole(layer)
    base = linear_of(layer.get_base_layer())
    if base is None or layer.disable_adapters or layer.merged:
        return base
    if any(layer.use_dora.get(n) or not isinstance(layer.lora_dropout[n], nn.Identity) for n in _active(layer)):
        raise ModelError(
            "an adapter on the vocabulary head is read as a change of its weight, which DoRA and dropout are not. "
            "Leave the head out of train.adapter.target_modules, or set use_dora=false and lora_dropout=0"
        )
    weight, bias = base
    adapter: Any = layer
    for name in _active(layer):
        weight = weight + adapter.get_delta_weight(name).to(weight.dtype)
    return weight, bias


def base_of(folder: Path) -> str:
    """The base model that an adapter's folder names."""
    found = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not isinstance(found, str) or not found:
        raise ModelError(f"'{folder}' is an adapter, but its {CONFIG} names no base model (base_model_name_or_path)")
    return found


def _active(layer: Any) -> list[str]:
    return [name for name in layer.active_adapters if name in layer.lora_A]


def _whole(layer: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """A layer of bitsandbytes with its weight made whole again."""
    if not isinstance(layer, nn.Linear):
        return None
    from peft.utils.integrations import dequantize_module_weight

    return dequantize_module_weight(layer).detach(), layer.bias


def _peft_loaded() -> bool:
    return "peft" in sys.modules


def _logits(model: PreTrainedModel) -> Tensor:
    vocabulary = int(model.config.get_text_config().vocab_size)
    ids = (torch.arange(8, device=model.device) * 7 % vocabulary)[None]
    training = model.training
    model.eval()
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits.float()
    model.train(training)
    return logits
