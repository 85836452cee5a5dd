"""A Hugging Face causal language model as a source of token statistics: load, save, head, forward."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import is_bitsandbytes_available
from transformers.utils import logging as transformers_logging

from expunge import adapters, collective, ranks
from expunge.attention import smoothed
from expunge.core import At, Batch, Needs, TokenStats
from expunge.errors import ModelError
from expunge.fused import Head, ReferenceRows, naive_token_stats, placed, token_stats
from expunge.packing import Packed, takes_any_mask
from expunge.recipe import Model

transformers_logging.disable_progress_bar()

_SCALES: Mapping[str, bool] = {"logit_scale": False, "logits_scaling": True, "lm_head_multiplier": False}
"""Configuration names of a factor on the logits, and whether the model divides by it."""
_SELF_TEST_TOKENS = 8


@dataclass(frozen=True)
class LM:
    """A causal language model, its tokenizer, and the name it was loaded under."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        device: torch.device = self.model.device
        return device

    @property
    def pad_id(self) -> int:
        """A token id to fill rows with; which one does not matter, because masks come from lengths."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if isinstance(pad, int) else 0


def load(settings: Model, *, device: str = "cpu") -> LM:
    """The model that a recipe names, in evaluation mode, checked to be one whose head expunge can read.

    Weights in pickle files are refused unless `allow_pickle`. ModelError says what was looked for and where.
    """
    name = settings.model_name_or_path
    if name is None:
        raise ModelError("no model was given. Set model.model_name_or_path to a folder or a hub name")
    _check_folder(name, settings)
    tokenizer = load_tokenizer(settings)
    quantised = {} if settings.quantization == "none" else {"quantization_config": _quantization(settings)}
    with in_our_words(name):
        model, report = AutoModelForCausalLM.from_pretrained(
            name,
            output_loading_info=True,
            revision=settings.model_revision,
            dtype=getattr(torch, settings.dtype),
            attn_implementation=settings.attn_implementation,
            use_safetensors=None if settings.allow_pickle else True,
            trust_remote_code=False,
            **quantised,
        )
    if report["missing_keys"]:
        absent = ", ".join(sorted(report["missing_keys"])[:3])
        raise ModelError(f"cannot load '{name}': its weights are not complete, {absent} would be random")
    lm = LM((model if quantised else model.to(device)).eval(), tokenizer, name)
    if not quantised:
        self_test(lm.model)
        return lm
    try:
        self_test(lm.model)
    except RuntimeError as error:
        raise ModelError(
            f"'{name}' cannot be run with model.quantization={settings.quantization} here: {str(error)[:200]}. "
            "On a CPU bitsandbytes needs layers whose widths are multiples of 64 for nf4; use int8"
        ) from error
    return lm


def _quantization(settings: Model) -> BitsAndBytesConfig:
    """How bitsandbytes is to quantise the weights; ModelError if it is not there."""
    if not is_bitsandbytes_available():
        raise ModelError(f"model.quantization={settings.quantization} needs bitsandbytes: pip install 'expunge[quant]'")
    if settings.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = getattr(torch, settings.dtype)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def load_tokenizer(settings: Model) -> PreTrainedTokenizerBase:
    """The tokenizer that a recipe names, or its model's own."""
    name = settings.tokenizer_name_or_path or settings.model_name_or_path
    if name is None:
        raise ModelError("no model was given. Set model.model_name_or_path to a folder or a hub name")
    if (Path(name) / adapters.CONFIG).is_file() and not (Path(name) / "tokenizer_config.json").is_file():
        name = adapters.base_of(Path(name))
    with in_our_words(name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name, revision=settings.model_revision, trust_remote_code=False
        )
    return tokenizer


def device_of(name: str) -> str:
    """The device a recipe means: 'auto' is CUDA, then Apple's GPU, then the CPU. Each process has a GPU of its own."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return f"cuda:{ranks.here().local}" if name == "cuda" and ranks.here().size > 1 else name


def save(lm: LM, folder: Path) -> None:
    """Writes an ordinary Hugging Face folder: safetensors weights, configuration, tokenizer; readable by its group."""
    if ranks.here().main:
        lm.model.save_pretrained(folder)
        lm.tokenizer.save_pretrained(folder)
        for file in folder.iterdir():
            if file.is_file():
                file.chmod(0o644)
    collective.wait()


def content_hash(model: nn.Module) -> str:
    """SHA-256 (16 hex digits) over the names, shapes, types and bytes of all parameters: what caches are keyed by."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        data = parameter.detach().cpu().contiguous()
        digest.update(f"{name}{tuple(data.shape)}{data.dtype}".encode())
        digest.update(data.view(torch.uint8).numpy().tobytes() if data.ndim else str(data.item()).encode())
    return digest.hexdigest()[:16]


def head_of(model: PreTrainedModel) -> Head:
    """The vocabulary head as `fused` needs it: weights, bias, logit scale and softcap, read from model and config."""
    output = model.get_output_embeddings()
    found = None if output is None else adapters.linear_of(output)
    if found is None:
        raise ModelError(
            f"{type(model).__name__} has the output layer {type(output).__name__}; expunge reads a linear head"
        )
    weight, bias = found
    config = model.config.get_text_config().to_dict()
    scale = 1.0
    for key, divides in _SCALES.items():
        factor = config.get(key)
        if factor is not None:
            scale = 1.0 / factor if divides else float(factor)
    cap = config.get("final_logit_softcapping")
    return Head(weight, bias, scale, None if cap is None else float(cap))


def self_test(model: PreTrainedModel) -> None:
    """Compares our reading of the head with the model's own logits on a few tokens; ModelError on a mismatch.

    Also refuses a model whose logits are not finite, or at any position depend on a later token.
    """
    name = type(model).__name__
    vocabulary = int(model.config.get_text_config().vocab_size)
    ids = (torch.arange(_SELF_TEST_TOKENS, device=model.device) * 7 % vocabulary)[None]
    later = torch.cat([ids[:, :-1], (ids[:, -1:] + 1) % vocabulary], dim=1)
    training = model.training
    model.eval()
    with torch.no_grad():
        own, other = (model(input_ids=i, use_cache=False).logits.float() for i in (ids, later))
        try:
            ours = head_of(model).logits(backbone_of(model)(input_ids=ids, use_cache=False).last_hidden_state)
        except (RuntimeError, AttributeError, TypeError) as error:
            raise ModelError(f"{name}: its vocabulary head does not fit its final hidden states: {error}") from error
    model.train(training)
    if not bool(torch.isfinite(own).all()):
        raise ModelError(f"{name}: its logits are not finite; the weights are broken")
    exact = model.dtype == torch.float32 and not adapters.quantised(model)  # eight bits round what they read, too
    tolerance = 1e-4 if exact else 5e-2
    size = own.abs().max().clamp(min=1e-6)
    if bool((own - other)[:, :-1].abs().max() > tolerance * size):
        raise ModelError(f"{name} is not causal: its prediction of a token depends on that token")
    worst = float((own - ours).abs().max() / size)
    if not worst <= tolerance:
        raise ModelError(
            f"{name}: our reading of its vocabulary head differs from its own logits by {worst:.2g} of "
            f"the largest (at most {tolerance:g}); this architecture is not supported"
        )


def backbone_of(model: PreTrainedModel) -> nn.Module:
    """The model without its vocabulary head: what returns final hidden states."""
    backbone: nn.Module = model.base_model
    return backbone


class Scored(nn.Module):
    """The one module that training wraps: its forward runs backbone and vocabulary head and returns statistics.

    `bf16`: the backbone runs under autocast, and the head multiplies in bfloat16 too; statistics stay float32.
    Sequences of unlike length share rows where attention allows it, tested on the first such batch; not with `packs`
    off, which batches need whose attention mask hides tokens inside of a sequence. `bare`: the model without its
    adapter, in evaluation mode.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        naive: bool = False,
        bf16: bool = False,
        packs: bool = True,
        bare: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self._stats = naive_token_stats if naive else token_stats
        self._bf16 = bf16
        self._bare = bare
        self._packs, self._tested = packs and not naive and takes_any_mask(model), False
        self.train(model.training)  # a new module says it trains; whoever puts back its mode would switch dropout on

    def forward(self, batch: Batch, needs: Needs, reference: ReferenceRows | None = None) -> TokenStats:
        """Statistics (B, T) of the batch's scored tokens; `reference` as `reference_rows` returns it."""
        read = torch.ones_like(batch.mask) if needs.everywhere else batch.mask
        targets = batch.targets.clamp(min=0)[read]
        with self._seen():
            states = self._states(batch, needs)
            rows = self._stats(states[-1][read], head_of(self.model), targets, needs, reference)
        return placed(rows, read, batch.mask, hidden_states(states, needs, batch.mask))

    def reference_rows(self, batch: Batch, needs: Needs) -> ReferenceRows:
        """Final hidden states at the positions that vocabulary maps read, without gradient."""
        read = torch.ones_like(batch.mask) if needs.everywhere else batch.mask
        with torch.no_grad(), self._seen(), smoothed(self.model, next(iter(needs.smoothing), None)):
            return ReferenceRows(self._states(batch, replace(needs, hidden=frozenset()))[-1][read], head_of(self.model))

    def _seen(self) -> AbstractContextManager[None]:
        return adapters.switched_off(self.model) if self._bare else nullcontext()

    def _states(self, batch: Batch, needs: Needs) -> tuple[Tensor, ...]:
        """The states (B, T, D); what they are at padding matters only where maps are asked for everywhere."""
        every_layer = bool(needs.hidden)
        packed = Packed.of(batch.attention_mask) if self._packs and not needs.everywhere else None
        if packed is None or not packed.saves:
            return self._padded(batch, every_layer)
        if not self._tested:
            self._tested = True
            if not self._apart(batch, packed):
                self._packs = False
                warnings.warn(
                    f"{type(self.model).__name__}: sequences side by side in a row do not give the states that they "
                    "give alone; batches are padded instead, at the same numbers and more work",
                    stacklevel=2,
                )
                return self._padded(batch, every_layer)
        return tuple(packed.unpack(states) for states in self._packed(batch, packed, every_layer))

    def _padded(self, batch: Batch, every_layer: bool) -> tuple[Tensor, ...]:
        ids, mask = batch.input_ids, batch.attention_mask.long()
        return states_of(self.model, ids, mask, bf16=self._bf16, every_layer=every_layer)

    def _packed(self, batch: Batch, packed: Packed, every_layer: bool) -> tuple[Tensor, ...]:
        mask = packed.attention(torch.bfloat16 if self._bf16 else self.model.dtype)
        ids = packed.pack(batch.input_ids, batch.attention_mask)
        return states_of(
            self.model, ids, mask, positions=packed.positions, bf16=self._bf16, every_layer=every_layer
        )  # fmt: skip

    def _apart(self, batch: Batch, packed: Packed) -> bool:
        """True if nothing leaks from one sequence of a row into another: states are those of the padded batch."""
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            alone = self._padded(batch, False)[-1][batch.attention_mask].float()
            beside = packed.unpack(self._packed(batch, packed, False)[-1])[batch.attention_mask].float()
        self.model.train(training)
        exact = self.model.dtype == torch.float32 and not self._bf16
        return bool((alone - beside).abs().max() <= (1e-4 if exact else 5e-2) * alone.abs().max().clamp(min=1e-6))


def states_of(
    model: PreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    positions: Tensor | None = None,
    bf16: bool = False,
    every_layer: bool = False,
) -> tuple[Tensor, ...]:
    """The final hidden states (B, T, D), last of the tuple; before them those of all layers, if they are asked for.

    `bf16`: under autocast, and the final states in bfloat16.
    """
    placed_at = {} if positions is None else {"position_ids": positions}  # not every model knows the argument
    # the head stays outside: what autocast would do to it in forward, it would not do again in backward
    with torch.autocast(input_ids.device.type, torch.bfloat16, enabled=bf16):
        out = backbone_of(model)(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=False,
            output_hidden_states=every_layer,
            **placed_at,
        )
    last = out.last_hidden_state.to(torch.bfloat16) if bf16 else out.last_hidden_state
    return (*out.hidden_states[:-1], last) if every_layer else (last,)


def hidden_states(states: tuple[Tensor, ...], needs: Needs, mask: Tensor) -> dict[tuple[int | float, At], Tensor]:
    """The (B, T, D) states that `needs.hidden` names, 0 where nothing is scored."""
    out: dict[tuple[int | float, At], Tensor] = {}
    for layer, at in needs.hidden:
        index = round(layer * (len(states) - 1)) if isinstance(layer, float) else layer
        if not -len(states) <= index < len(states):
            raise ModelError(f"layer {layer} was asked for; this model has hidden states 0 to {len(states) - 1}")
        state = states[index]
        if at == "own":
            state = torch.cat([state[:, 1:], torch.zeros_like(state[:, :1])], dim=1)
        out[layer, at] = torch.where(mask[..., None], state, 0.0)
    return out


def _check_folder(name: str, settings: Model) -> None:
    folder = Path(name)
    if not folder.is_dir():
        if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise ModelError(
                f"'{name}' is not a folder with a model. Give a folder that holds config.json, or a hub name"
            )
        return
    if (folder / adapters.CONFIG).is_file():
        base = adapters.base_of(folder)
        if Path(base).exists() or base.startswith((".", "/", "~")) or base.count("/") > 1:
            _check_folder(base, settings)
    elif not (folder / "config.json").is_file():
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise ModelError(f"'{name}' is not a model folder: it has no config.json. It holds: {found}")
    safe = list(folder.glob("*.safetensors"))
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
    if not safe and pickles and not settings.allow_pickle:
        raise ModelError(
            f"'{name}' holds its weights in a pickle file ({pickles[0]}), which can run code when it is read. "
            "Convert it to safetensors, or set model.allow_pickle=true if you trust its source"
        )
    if not safe and not pickles:
        raise ModelError(f"'{name}' holds a configuration but no weights")


@contextmanager
def in_our_words(name: str) -> Iterator[None]:
    """Turns what the Hugging Face libraries raise at the border into a ModelError that says what to do."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        text = " ".join(str(error).split())
        if "gated" in text or "401" in text or "403" in text:
            advice = "it is gated or private: accept its terms on the hub and set HF_TOKEN"
        elif Path(name).is_dir():
            advice = f"its folder could not be read as a causal language model: {text[:300]}"
        elif os.environ.get("HF_HUB_OFFLINE") == "1" or "offline" in text or "connect" in text.lower():
            advice = "the hub cannot be reached from here. Give the folder of a local copy, or unset HF_HUB_OFFLINE"
        else:
            advice = f"{text[:300]}"
        raise ModelError(f"cannot load '{name}': {advice}") from error
