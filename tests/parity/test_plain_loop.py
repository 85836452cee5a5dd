"""Whole updates against a loop written without this package: Hugging Face's loss, torch's AdamW, float64, tiny model.

What tests/parity/test_training.py checks against the peer's records, this checks wherever those are absent.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, get_scheduler

from expunge import runfolder
from expunge.core import IGNORE
from expunge.lm import LM, Scored
from expunge.recipe import Method, Train
from expunge.refcache import Reference
from expunge.terms import build_terms
from expunge.train import Fit
from tests.contract import harness as h
from tests.fixtures.models import tiny
from tests.fixtures.tokenizers import bpe

FORGET, RETAIN = h.items(6), h.items(4, seed=9, prefix="r")
SETTINGS = Train.model_validate(
    {
        "learning_rate": 1e-2, "num_train_epochs": 2, "per_device_train_batch_size": 3, "warmup_steps": 1,
        "gradient_accumulation_steps": 1, "weight_decay": 0.1, "max_grad_norm": 0.5,
    }
)  # fmt: skip
Pieces = tuple[Tensor, Tensor, Tensor]
"""(B, T - 1) log p of labels under policy and reference, and a mask of labels."""


def per_token(model: PreTrainedModel, frozen: PreTrainedModel, records: list[h.Encoded]) -> Pieces:
    """Of records padded by hand, by logits[:, :-1] against labels[:, 1:]."""
    width = max(len(r.input_ids) for r in records)
    ids = torch.zeros(len(records), width, dtype=torch.long)
    labels, mask = torch.full_like(ids, IGNORE), torch.zeros_like(ids)
    for row, record in enumerate(records):
        n = len(record.input_ids)
        ids[row, :n], mask[row, :n] = torch.from_numpy(record.input_ids), 1
        labels[row, 1:n] = torch.from_numpy(record.targets)[:-1]
    scored = labels[:, 1:] != IGNORE
    found = []
    for m in (model, frozen):
        logp = m(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1)
        found.append(logp.gather(2, labels[:, 1:].clamp(min=0)[..., None])[..., 0] * scored)
    return found[0], found[1].detach(), scored


def mean(values: Tensor, mask: Tensor) -> Tensor:
    return values[mask].mean()


def wga(own: Tensor, ref: Tensor, mask: Tensor) -> Tensor:
    return mean(own.detach().exp() * own, mask)


def npo(own: Tensor, ref: Tensor, mask: Tensor) -> Tensor:
    return (-2 / 0.1 * F.logsigmoid(0.1 * (ref - own).sum(-1))).mean()


def simnpo(own: Tensor, ref: Tensor, mask: Tensor) -> Tensor:
    return 0.125 * (-2 / 4.5 * F.logsigmoid(4.5 * -own.sum(-1) / mask.sum(-1))).mean()


LOSSES: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "graddiff": lambda own, ref, mask: mean(own, mask),
    "wga": wga,
    "npo": npo,
    "simnpo": simnpo,
}


@pytest.mark.parametrize("preset", LOSSES)
def test_training_is_what_a_plain_loop_does(tmp_path: Path, preset: str) -> None:
    start = tiny("llama").double()
    lm = LM(copy.deepcopy(start), bpe(), "tiny")
    terms = build_terms(Method(preset=preset))
    frozen = Reference(Scored(copy.deepcopy(start).requires_grad_(False)))
    made = Fit(
        lm, terms, {"forget": FORGET, "retain": RETAIN}, SETTINGS, runfolder.create(tmp_path / "run", "unlearn"), 1,
        reference=frozen if any(t.needs.any_reference for t in terms) else None,
    )  # fmt: skip
    schedule = [micro for step in range(made.total) for micro in made.sampler.micro_batches(step)]
    made()
    model = copy.deepcopy(start).train()
    decayed = [p for name, p in model.named_parameters() if "norm" not in name]
    plain = [p for name, p in model.named_parameters() if "norm" in name]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    scheduler = get_scheduler("linear", optimizer, 1, made.total)
    losses = []
    for chosen in schedule:
        optimizer.zero_grad()
        forget = per_token(model, start, [FORGET[i] for i in chosen["forget"]])
        own, _, mask = per_token(model, start, [RETAIN[i] for i in chosen["retain"]])
        loss = LOSSES[preset](*forget) - mean(own, mask)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        scheduler.step()
        losses.append(float(loss.detach()))
    assert [line["loss"] for line in made.run.read_log()] == pytest.approx(losses, rel=1e-9)
    for (name, found), (_, expected) in zip(lm.model.named_parameters(), model.named_parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9, msg=name)
    moved = [float((p - q).detach().abs().max()) for p, q in zip(model.parameters(), start.parameters(), strict=True)]
    assert min(moved) > 1e-3
