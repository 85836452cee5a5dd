"""Hidden states of the layers at the tokens that attacks on latent knowledge look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.attacks import asking
from expunge.data.collate import collate
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.errors import ModelError
from expunge.lm import LM, backbone_of, states_of

_BATCH = 16


@dataclass(frozen=True)
class Seen:
    """One record at its K key tokens: hidden states (L + 1, K, D) of all layers, and targets (K,).

    The last layer's states are those behind the final norm, as the vocabulary head reads them.
    """

    record: Record
    states: Tensor
    targets: Tensor


def seen(
    lm: LM, encoder: Encoder, records: Sequence[Record], answers: Sequence[str] | None = None, *, own: bool = False
) -> Iterator[Seen]:
    """Every record with a key token. The states are those that predict these tokens, or (`own`) that have read them.

    `answers` replace the records' own; then all their tokens count as key tokens.
    """
    bodies: Sequence[str | None] = answers if answers is not None else [None] * len(records)
    for start in range(0, len(records), _BATCH):
        group = records[start : start + _BATCH]
        items = [encoder.encode(r, answer=a) for r, a in zip(group, bodies[start : start + _BATCH], strict=True)]
        batch = collate(items, lm.pad_id).to(lm.device)
        states = torch.stack(states_of(lm.model, batch.input_ids, batch.attention_mask.long(), every_layer=True))
        for row, (record, item) in enumerate(zip(group, items, strict=True)):
            bare = record if answers is None else Record(record.id, record.prompt, "-")
            places = asking.key_places(item, bare)
            if places:
                at = [min(place + own, len(item) - 1) for place in places]
                yield Seen(record, states[:, row, at].float(), batch.targets[row, places])


def final_norm(lm: LM) -> nn.Module:
    """The norm between the last layer and the vocabulary head; ModelError where it cannot be found."""
    backbone = backbone_of(lm.model)
    for name in ("norm", "final_layernorm", "ln_f", "final_layer_norm", "norm_f"):
        module = getattr(backbone, name, None)
        if isinstance(module, nn.Module):
            return module
    raise ModelError(f"{type(backbone).__name__}: no final norm was found; this attack reads hidden layers through it")


def layers(lm: LM) -> nn.ModuleList:
    """The layers of the model in order; ModelError where they cannot be found."""
    for module in backbone_of(lm.model).modules():
        if isinstance(module, nn.ModuleList) and len(module) == lm.model.config.get_text_config().num_hidden_layers:
            return module
    raise ModelError(f"{type(lm.model).__name__}: its list of layers was not found; this attack changes their states")
