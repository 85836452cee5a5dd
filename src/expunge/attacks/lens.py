"""Logit lens: what the layers below would have said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from expunge.attacks import depth
from expunge.attacks.scene import Budget, Scene, Tell, row
from expunge.decode import inference
from expunge.evals.reductions import PLAIN, Row
from expunge.lm import head_of
from expunge.registry import method


@method("attack", "lens")
@dataclass(frozen=True)
class Lens:
    """The key words' probability if the vocabulary head reads a hidden layer instead of the last; worst layer first.

    States of each layer pass the model's own final norm and head. An answer that only the last layers suppress stands
    readable below them.

    Source: nostalgebraist, "interpreting GPT: the logit lens" (2020).
    """

    leak: ClassVar[bool] = True
    shows: ClassVar[str] = "probability of the key words read from a hidden layer"
    needs: ClassVar[tuple[str, ...]] = ()
    reduction: ClassVar[str] = "best"
    parts: ClassVar[tuple[str, ...]] = ("all",)

    def budget(self, scene: Scene, part: str) -> Budget:
        """One pass over the records; the head once a layer."""
        return Budget(read=2 * len(scene.examined()) * scene.size)

    def rows(self, scene: Scene, label: str, part: str, tell: Tell) -> Iterator[Row]:
        """A row a record and layer."""
        lm, records = scene.load(label), scene.examined()
        head, norm = head_of(lm.model), depth.final_norm(lm)
        found = []
        with inference(lm):
            for done, one in enumerate(depth.seen(lm, scene.encoder(lm), records)):
                for layer, states in enumerate(one.states):
                    last = layer == len(one.states) - 1
                    logits = head.logits((states if last else norm(states)).to(lm.model.dtype))
                    logp = logits.float().log_softmax(-1).gather(-1, one.targets[:, None]).mean()
                    found.append(row(one.record, PLAIN if last else f"layer {layer}", float(logp.exp())))
                tell(done + 1, len(records))
        yield from found
