"""What the sections of a recipe are made of: a level that refuses unknown keys, the kinds of values, a fresh model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
Text = str | None


def _spec_text(value: Any) -> Any:
    """{name: npo, beta: 0.1} -> 'npo:beta=0.1'; anything else as it is."""
    if not isinstance(value, Mapping):
        return value
    settings = {str(key): setting for key, setting in value.items()}
    name = settings.pop("name", None)
    if not isinstance(name, str) or any(isinstance(v, (Mapping, list, tuple)) for v in settings.values()):
        raise ValueError("a method given as a mapping needs the key 'name', and plain values")
    return name + (":" if settings else "") + ",".join(f"{key}={setting}" for key, setting in settings.items())


def _split(value: Any) -> Any:
    """'a, b' -> ('a', 'b'); anything else as it is."""
    return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Spec = Annotated[
    str,
    BeforeValidator(_spec_text),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object", "required": ["name"]}]}),
]
"""Text such as `npo:beta=0.1`, or the same as a mapping: {name: npo, beta: 0.1}."""


class Section(BaseModel):
    """One level of the recipe: unknown keys are refused, values are checked, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class FreshModel(Section):
    """A small Llama with random weights, and a byte-level BPE tokenizer fitted on the training text."""

    hidden_size: PositiveInt = Field(256, description="width of the hidden states")
    intermediate_size: PositiveInt = Field(704, description="width of the feed-forward layers")
    num_hidden_layers: PositiveInt = Field(4, description="number of layers")
    num_attention_heads: PositiveInt = Field(4, description="attention heads a layer")
    vocab_size: PositiveInt = Field(4096, description="size of the tokenizer that is fitted")
    max_position_embeddings: PositiveInt = Field(512, description="longest text, in tokens")
    tie_word_embeddings: bool = Field(True, description="share the embedding with the head")

    @model_validator(mode="after")
    def _check(self) -> FreshModel:
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError("hidden_size must be a multiple of 2 * num_attention_heads")
        return self


class Adapter(Section):
    """A low-rank adapter that is trained in place of the weights. Names and meanings as in peft's LoraConfig."""

    r: PositiveInt = Field(16, description="rank")
    lora_alpha: PositiveInt = Field(32, description="the adapter's product is scaled by lora_alpha / r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="on what the adapter reads, in training")
    target_modules: str = Field(
        "all-linear", description="regular expression for the layers; all-linear: all but the vocabulary head"
    )
    modules_to_save: Names = Field((), description="layers trained whole beside the adapter")
    use_dora: bool = Field(False, description="train the size of each row of the weights apart (DoRA)")
    save: Literal["merged", "adapter"] = Field(
        "merged", description="merged: an ordinary model; adapter: what can be taken off again, beside its base"
    )
