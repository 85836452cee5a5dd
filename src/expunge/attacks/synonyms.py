"""Spurious forgetting: the right word is avoided, and its likes are not."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from expunge.attacks import depth
from expunge.attacks.scene import Budget, Scene, Tell, row
from expunge.decode import inference
from expunge.evals.reductions import PLAIN, Row
from expunge.lm import LM, head_of
from expunge.registry import method


@method("attack", "synonyms")
@dataclass(frozen=True)
class Synonyms:
    """The probability of the key words with that of tokens that say the same: other case, space, accents.

    At each key token, the mass of all tokens whose letters are the same but for these; the geometric mean over key
    tokens. `plain` is the right tokens alone. A loss that pushes down the trained token moves mass to its likes.

    Source: BS, arXiv 2510.19422, which judges beams by a language model. Differs: equality of letters.
    """

    leak: ClassVar[bool] = True
    shows: ClassVar[str] = "probability of the key words, however they are spelt"
    needs: ClassVar[tuple[str, ...]] = ()
    reduction: ClassVar[str] = "best"
    parts: ClassVar[tuple[str, ...]] = ("all",)

    def budget(self, scene: Scene, part: str) -> Budget:
        """One pass over the records."""
        return Budget(read=len(scene.examined()) * scene.size)

    def rows(self, scene: Scene, label: str, part: str, tell: Tell) -> Iterator[Row]:
        """Two rows a record: the right tokens, and all that say the same."""
        lm, records = scene.load(label), scene.examined()
        likes, head = alike(lm), head_of(lm.model)
        found: list[Row] = []
        with inference(lm):
            for done, one in enumerate(depth.seen(lm, scene.encoder(lm), records)):
                logp = head.logits(one.states[-1].to(lm.model.dtype)).float().log_softmax(-1)
                targets: list[int] = one.targets.tolist()
                alone = torch.stack([logp[k, token] for k, token in enumerate(targets)])
                all_of = [logp[k, likes[token]].logsumexp(-1) for k, token in enumerate(targets)]
                found.append(row(one.record, PLAIN, float(alone.mean().exp())))
                found.append(row(one.record, "any spelling", float(torch.stack(all_of).mean().exp())))
                tell(done + 1, len(records))
        yield from found


def alike(lm: LM) -> Mapping[int, Sequence[int]]:
    """For each token id, those whose text has the same letters: itself at least."""
    size = int(lm.model.config.get_text_config().vocab_size)
    texts = [str(lm.tokenizer.decode([token])) for token in range(size)]
    groups: dict[str, list[int]] = defaultdict(list)
    for token, text in enumerate(texts):
        groups[letters(text) or f"\x00{token}"].append(token)
    return {token: groups[letters(text) or f"\x00{token}"] for token, text in enumerate(texts)}


def letters(text: str) -> str:
    """A text without case, accents and white space.

    >>> letters(" Zürich"), letters("ZURICH ")
    ('zurich', 'zurich')
    """
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in parts if not unicodedata.combining(c) and not c.isspace())
