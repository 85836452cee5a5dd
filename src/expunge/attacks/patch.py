"""Activation patching: what is left of an answer when a layer's states come from the unlearned model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from expunge.attacks import asking, depth
from expunge.attacks.scene import Budget, Scene, Tell, row
from expunge.data.collate import collate
from expunge.decode import inference
from expunge.evals.reductions import PLAIN, Row
from expunge.lm import head_of, states_of
from expunge.registry import method

_BATCH = 16


@method("attack", "patch")
@dataclass(frozen=True)
class Patch:
    """The key words' probability in the target when one layer's states are this model's, mean over layers.

    If the knowledge is gone from a layer, the target above it cannot say it either; if it is only suppressed further
    up, it can. Beside it stands UDS, the unlearning depth score, where there is an oracle: with D_l the drop of the key
    words' log-probability when layer l is patched, over the layers where the oracle's mean drop is above .05,
    sum D_l(oracle) clip(D_l / D_l(oracle), 0, 1) / sum D_l(oracle); 1: as deep as the oracle.

    Source: UDS. Differs: states are patched at every position; the flag rests on the probability, which is not clipped.
    """

    leak: ClassVar[bool] = True
    shows: ClassVar[str] = "probability of the key words in the target with a layer's states from this model"
    needs: ClassVar[tuple[str, ...]] = ("target",)
    reduction: ClassVar[str] = "patched"
    parts: ClassVar[tuple[str, ...]] = ("all",)

    def budget(self, scene: Scene, part: str) -> Budget:
        """One pass of this model, and one of the target for each layer but the last."""
        return Budget(read=len(scene.examined()) * scene.size * scene.layers)

    def rows(self, scene: Scene, label: str, part: str, tell: Tell) -> Iterator[Row]:
        """A row a record and layer."""
        lm, target, records = scene.load(label), scene.load("target"), scene.examined()
        encoder, head = scene.encoder(lm), head_of(target.model)
        stack = depth.layers(target)
        found: list[Row] = []
        with inference(lm), inference(target):
            for start in range(0, len(records), _BATCH):
                group = records[start : start + _BATCH]
                items = [encoder.encode(record) for record in group]
                batch = collate(items, lm.pad_id).to(lm.device)
                own = states_of(lm.model, batch.input_ids, batch.attention_mask.long(), every_layer=True)
                for layer in range(len(stack)):
                    # the states behind layer l are what layer l + 1 reads; the last are behind the norm, and stay own
                    if layer == len(stack) - 1:
                        states, reader, condition = own[-1], head_of(lm.model), PLAIN
                    else:
                        with replaced(stack[layer], own[layer + 1]):
                            states = states_of(target.model, batch.input_ids, batch.attention_mask.long())[-1]
                        reader, condition = head, f"layer {layer + 1}"
                    for place, (record, item) in enumerate(zip(group, items, strict=True)):
                        at = asking.key_places(item, record)
                        if at:
                            logp = reader.logits(states[place, at]).float().log_softmax(-1)
                            right = logp.gather(-1, batch.targets[place, at][:, None]).mean()
                            found.append(row(record, condition, float(right.exp())))
                tell(min(start + _BATCH, len(records)), len(records))
        yield from found


@contextmanager
def replaced(layer: nn.Module, states: Tensor) -> Iterator[None]:
    """The layer's output is `states` (B, T, D) inside, whatever it computes."""

    def hook(module: nn.Module, given: Any, output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            return states.to(output.dtype)
        return (states.to(output[0].dtype), *output[1:])

    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
