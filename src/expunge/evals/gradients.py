"""How hard a model would still be pulled by an answer: the norm of the gradient of its loss, one answer at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from expunge.core import Needs
from expunge.data.collate import collate
from expunge.decode import Progress
from expunge.evals.scoring import Item
from expunge.fused import token_stats
from expunge.lm import LM, backbone_of, head_of


def norms(lm: LM, rows: Sequence[Item], *, progress: Progress | None = None) -> list[float]:
    """The mean over parameters of the Euclidean norm of the gradient of each answer's mean loss, in nats a token.

    As in OpenUnlearning, the token that ends the answer does not count, and each parameter tensor counts once. NaN for
    variants of the answer and for answers without a token. Dropout is off (there it is on).
    """
    training = lm.model.training
    asked = [p.requires_grad for p in lm.model.parameters()]
    lm.model.eval().requires_grad_(True)
    try:
        found = []
        for done, row in enumerate(rows, 1):
            found.append(_norm(lm, row) if row.variant == "answer" else math.nan)
            if progress is not None:
                progress(done, len(rows))
        return found
    finally:
        lm.model.zero_grad(set_to_none=True)
        lm.model.train(training)
        for parameter, wanted in zip(lm.model.parameters(), asked, strict=True):
            parameter.requires_grad_(wanted)


def _norm(lm: LM, row: Item) -> float:
    packed = collate([row.encoded], lm.pad_id).to(lm.device)
    mask = packed.mask.clone()
    places = row.encoded.offsets[row.mask]
    if len(places) and int(places[-1, 0]) < 0:
        mask[0, int(mask[0].nonzero()[-1])] = False  # the token that ends the text
    if not bool(mask.any()):
        return math.nan
    lm.model.zero_grad(set_to_none=True)
    with torch.enable_grad():
        states = backbone_of(lm.model)(
            input_ids=packed.input_ids, attention_mask=packed.attention_mask.long(), use_cache=False
        ).last_hidden_state
        loss = -token_stats(states[mask], head_of(lm.model), packed.targets[mask], Needs()).logp.mean()
        loss.backward()  # type: ignore[no-untyped-call]
    each = [p.grad.float().norm() for p in lm.model.parameters() if p.grad is not None]
    return float(torch.stack(each).mean())
