"""The peer's loss functions on fixed inputs: values and gradients, in float64 and through the chunked float32 head.

The numbers come from the peer's own code (see the README beside them). Each parity has a sibling that shifts the
targets or reads padding, and must fail.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from expunge import registry
from expunge.core import IGNORE, Batch, Forward, Needs, TokenStats, Weights
from expunge.fused import Head, ReferenceRows, naive_token_stats, placed, token_stats
from expunge.refcache import Reference
from expunge.step import Step, accumulate
from expunge.terms import Term

Golden = Mapping[str, Any]


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    with np.load(shared / "parity/golden/losses.npz") as file:
        return {key: file[key] for key in file.files}


class Fixed(nn.Module):
    """A model that returns the same logits (B, T, V) whatever it is asked."""

    def __init__(self, logits: np.ndarray, dtype: torch.dtype, naive: bool) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.from_numpy(logits).to(dtype))
        self.head = Head(torch.eye(logits.shape[-1], dtype=dtype))
        self.stats = naive_token_stats if naive else token_stats

    def forward(self, batch: Batch, needs: Needs, reference: ReferenceRows | None = None) -> TokenStats:
        read = torch.ones_like(batch.mask) if needs.everywhere else batch.mask
        rows = self.stats(self.logits[read], self.head, batch.targets.clamp(min=0)[read], needs, reference)
        return placed(rows, read, batch.mask, {})

    def reference_rows(self, batch: Batch, needs: Needs) -> ReferenceRows:
        read = torch.ones_like(batch.mask) if needs.everywhere else batch.mask
        return ReferenceRows(self.logits[read].detach(), self.head)


def batch_of(golden: Golden, case: str) -> Batch:
    ids, labels = (torch.from_numpy(golden[f"loss/{case}/{key}"]) for key in ("input_ids", "labels"))
    targets = torch.full_like(labels, IGNORE)
    targets[:, :-1] = labels[:, 1:]
    mask = torch.from_numpy(golden[f"loss/{case}/attention_mask"])
    return Batch(ids, targets, mask, tuple(f"{case}{row}" for row in range(len(ids))))


def shifted(batch: Batch) -> Batch:
    return dataclasses.replace(batch, targets=torch.cat([batch.targets[:, -1:], batch.targets[:, :-1]], dim=1))


def with_padding(batch: Batch) -> Batch:
    """As if the padding were scored, as masks made by comparing labels to a pad id do."""
    return dataclasses.replace(batch, targets=torch.where(batch.attention_mask, batch.targets, batch.input_ids))


def with_prompt(batch: Batch) -> Batch:
    moved = torch.cat([batch.input_ids[:, 1:], torch.full_like(batch.targets[:, :1], IGNORE)], dim=1)
    following = torch.cat([batch.attention_mask[:, 1:], torch.zeros_like(batch.attention_mask[:, :1])], dim=1)
    return dataclasses.replace(batch, targets=torch.where(following, moved, IGNORE))


def term(objective: str, score: str = "uniform", select: str = "raw") -> Term:
    return Term(
        registry.build("objective", objective),
        "forget",
        registry.build("scorer", score),
        registry.build("selector", select),
    )


TERMS: Mapping[str, Term] = {
    "graddiff_forget": term("ga"),
    "npo_beta0.1": term("npo:beta=0.1"),
    "npo_beta1.0": term("npo:beta=1"),
    "wga_beta0.5": term("ga", "confidence:beta=0.5"),
    "wga_beta1.0": term("ga", "confidence:beta=1"),
    "wga_beta5.0": term("ga", "confidence:beta=5"),
    "satimp_5.0_1.0": term("ga", "satimp:beta1=5,beta2=1"),
    "satimp_1.0_1.0": term("ga", "satimp:beta1=1,beta2=1"),
    "satimp_0.5_2.0": term("ga", "satimp:beta1=0.5,beta2=2"),
    "simnpo_delta0.0_beta4.5": term("simnpo:beta=4.5,delta=0"),
    "simnpo_delta0.4_beta2.5": term("simnpo:beta=2.5,delta=0.4"),
    "kl_divergence": term("kl:positions=all"),
    "undial_beta1.0": term("undial:beta=1,positions=predicting"),
    "undial_beta10.0": term("undial:beta=10,positions=predicting"),
    "ceu_n0": term("ceu"),
    "ceu_n1": term("ceu:denominator=selected", select="skip:n=1"),
    "ceu_n2": term("ceu:denominator=selected", select="skip:n=2"),
    "pdu_forget": term("flatten:positions=own"),
}


def ours(
    golden: Golden, case: str, made: Term, batch: Batch, *, dtype: torch.dtype = torch.float64, naive: bool = False
) -> tuple[float, Tensor]:
    """Mean and gradient of a term, through the code that training runs."""
    model = Fixed(golden[f"loss/{case}/logits"], dtype, naive)
    reference = Reference(Fixed(golden[f"loss/{case}/ref_logits"], dtype, naive))  # type: ignore[arg-type]
    _, (mean,) = accumulate(Step((made,), reference), model, [{"forget": batch}], lambda loss: loss.backward(), [0])
    assert model.logits.grad is not None
    return mean, model.logits.grad.double()


def agree(golden: Golden, key: str, found: tuple[float, Tensor], rtol: float) -> None:
    """Value within rtol; gradient within rtol of its largest entry (it was stored in float32)."""
    value, gradient = float(golden[f"{key}/value"]), torch.from_numpy(golden[f"{key}/grad"]).double()
    assert found[0] == pytest.approx(value, rel=rtol), key
    assert float((found[1] - gradient).abs().max()) <= max(rtol, 1e-7) * float(gradient.abs().max()), key


cases = pytest.mark.parametrize("case", ["A", "B"])
named = pytest.mark.parametrize("name", TERMS)


@named
@cases
def test_values_and_gradients_are_the_peers_in_float64(golden: Golden, case: str, name: str) -> None:
    for naive in (False, True):
        found = ours(golden, case, TERMS[name], batch_of(golden, case), naive=naive)
        agree(golden, f"loss/{case}/{name}", found, rtol=1e-7)


@named
@cases
def test_the_chunked_float32_head_gives_them_too(golden: Golden, case: str, name: str) -> None:
    found = ours(golden, case, TERMS[name], batch_of(golden, case), dtype=torch.float32)
    agree(golden, f"loss/{case}/{name}", found, rtol=1e-5)


BREAKS: list[Callable[[Batch], Batch]] = [shifted, with_padding, with_prompt]


@pytest.mark.parametrize("broken", BREAKS)
@named
@cases
def test_a_misread_batch_does_not_agree(golden: Golden, case: str, name: str, broken: Callable[[Batch], Batch]) -> None:
    if name == "kl_divergence":
        pytest.skip("reads every position, so targets do not matter to it")
    found = ours(golden, case, TERMS[name], broken(batch_of(golden, case)))
    with pytest.raises(AssertionError):
        agree(golden, f"loss/{case}/{name}", found, rtol=1e-3)


@cases
def test_a_divergence_over_answer_tokens_is_not_the_peers(golden: Golden, case: str) -> None:
    """The default is the correct form; the peer's mean over prompt and padding is kl:positions=all."""
    found = ours(golden, case, term("kl"), batch_of(golden, case))
    with pytest.raises(AssertionError):
        agree(golden, f"loss/{case}/kl_divergence", found, rtol=1e-3)


@pytest.mark.parametrize(
    ("objective", "name"),
    [("undial:beta=10", "undial_beta10.0"), ("flatten", "pdu_forget"), ("ceu:denominator=selected", "ceu_n1")],
)
@cases
def test_the_corrected_forms_are_not_the_peers(golden: Golden, case: str, objective: str, name: str) -> None:
    found = ours(golden, case, term(objective), batch_of(golden, case))
    with pytest.raises(AssertionError):
        agree(golden, f"loss/{case}/{name}", found, rtol=1e-3)


@cases
def test_sequence_sums_are_the_peers(golden: Golden, case: str) -> None:
    model = Fixed(golden[f"loss/{case}/logits"], torch.float64, naive=False)
    sums = -model(batch_of(golden, case), Needs()).logp.sum(-1)
    sums.sum().backward()
    assert model.logits.grad is not None
    assert sums.tolist() == pytest.approx(golden[f"loss/{case}/batch_nll/value"].tolist(), rel=1e-12)
    expected = torch.from_numpy(golden[f"loss/{case}/batch_nll/grad"]).double()
    torch.testing.assert_close(model.logits.grad, expected, rtol=1e-6, atol=1e-7)


# RMU: its peer's loss is a function of hidden states, which stand here where a model's would.


def states_of(golden: Golden) -> tuple[Batch, Tensor, Tensor]:
    """A batch whose tokens at the peer's mask are scored, and both (B, T, D) states as they are read: their own."""
    mask = torch.from_numpy(golden["loss/rmu_activation/mask"])
    assert not mask[:, 0].any(), "the first token is predicted by nothing"
    targets = torch.full(mask.shape, IGNORE)
    targets[:, :-1][mask[:, 1:]] = 1
    batch = Batch(torch.zeros_like(targets), targets, torch.ones_like(mask), tuple(f"r{i}" for i in range(len(mask))))
    one, two = (torch.from_numpy(golden[f"loss/rmu_activation/activation{k}"]).double() for k in (1, 2))
    return batch, one.requires_grad_(), two


def activation_loss(golden: Golden, objective: str, break_it: bool = False) -> tuple[float, Tensor]:
    batch, one, two = states_of(golden)
    made = registry.build("objective", objective)

    def stats(states: Tensor) -> TokenStats:
        shifted = states if break_it else torch.cat([states[:, 1:], torch.zeros_like(states[:, :1])], dim=1)
        return dataclasses.replace(Forward.before(batch).policy, hidden={made.place: shifted})

    loss = made(Forward(batch, stats(one), stats(two)), Weights.ones(batch.mask))
    mean = loss.value.sum() / loss.count.sum()
    mean.backward()
    assert one.grad is not None
    return float(mean.detach()), one.grad


def test_the_peers_activation_loss_is_the_broadcast_mean(golden: Golden) -> None:
    agree(golden, "loss/rmu_activation", activation_loss(golden, "activation:mean=broadcast"), rtol=1e-7)


def test_the_mean_of_sequence_means_is_not_the_peers_but_what_it_says(golden: Golden) -> None:
    found = activation_loss(golden, "activation")
    with pytest.raises(AssertionError):
        agree(golden, "loss/rmu_activation", found, rtol=1e-3)
    one, two = (golden[f"loss/rmu_activation/activation{k}"].astype(np.float64) for k in (1, 2))
    rows = zip(one, two, golden["loss/rmu_activation/mask"], strict=True)
    assert found[0] == pytest.approx(np.mean([((a - b) ** 2)[m].mean() for a, b, m in rows]), rel=1e-12)


def test_states_of_the_next_position_do_not_agree(golden: Golden) -> None:
    found = activation_loss(golden, "activation:mean=broadcast", break_it=True)
    with pytest.raises(AssertionError):
        agree(golden, "loss/rmu_activation", found, rtol=1e-3)


def test_the_direction_is_the_peers(golden: Golden) -> None:
    expected = torch.from_numpy(golden["loss/rmu_control_vector_seed0_dim16/value"])[0, 0]
    torch.testing.assert_close(registry.build("objective", "rmu:steering_coeff=20").target(16), expected)
    assert not torch.allclose(registry.build("objective", "rmu:steering_coeff=20,seed=1").target(16), expected)


# DPO: two batches at once, the refused answer and the preferred one.


def dpo_batches(golden: Golden, case: str) -> Batch:
    """The refused answers, and with them the preferred ones, which have a batch of their own."""
    own = batch_of(golden, case)
    win = {name: golden[f"loss/{case}/dpo/win_{name}"] for name in ("input_ids", "labels", "attention_mask")}
    other = batch_of({f"loss/{case}/{name}": value for name, value in win.items()}, case)
    return dataclasses.replace(own, alternative=dataclasses.replace(other, ids=tuple(f"{name}~" for name in own.ids)))


class Both(nn.Module):
    """A `Fixed` for either of two batches, told apart by the names of their records."""

    def __init__(self, own: Fixed, other: Fixed) -> None:
        super().__init__()
        self.own, self.other = own, other

    def forward(self, batch: Batch, needs: Needs, reference: ReferenceRows | None = None) -> TokenStats:
        chosen = self.other if batch.ids[0].endswith("~") else self.own
        stats: TokenStats = chosen(batch, needs, reference)
        return stats


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-7), (torch.float32, 1e-5)])
@pytest.mark.parametrize("beta", ["0.1", "1.0"])
@cases
def test_dpo_is_the_peers(golden: Golden, case: str, beta: str, dtype: torch.dtype, rtol: float) -> None:
    names = [f"loss/{case}/{name}" for name in ("logits", "dpo/win_logits", "ref_logits", "dpo/win_ref_logits")]
    own, win, ref, ref_win = (Fixed(golden[name], dtype, naive=False) for name in names)
    model, reference = Both(own, win), Reference(Both(ref, ref_win))  # type: ignore[arg-type]
    step = Step((term(f"dpo:beta={beta}"),), reference)
    batch = dpo_batches(golden, case)
    _, (mean,) = accumulate(step, model, [{"forget": batch}], lambda loss: loss.backward(), [0])
    key = f"loss/{case}/dpo_beta{beta}"
    for part, grad in ((own, "grad_lose"), (win, "grad_win")):
        assert part.logits.grad is not None
        golden_part = {f"{key}/value": golden[f"{key}/value"], f"{key}/grad": golden[f"{key}/{grad}"]}
        agree(golden_part, key, (mean, part.logits.grad.double()), rtol)


@cases
def test_dpo_of_answers_read_one_place_off_is_not_the_peers(golden: Golden, case: str) -> None:
    names = [f"loss/{case}/{name}" for name in ("logits", "dpo/win_logits", "ref_logits", "dpo/win_ref_logits")]
    own, win, ref, ref_win = (Fixed(golden[name], torch.float64, naive=False) for name in names)
    batch = dpo_batches(golden, case)
    assert batch.alternative is not None
    wrong = dataclasses.replace(batch, alternative=shifted(batch.alternative))
    step = Step((term("dpo:beta=1"),), Reference(Both(ref, ref_win)))  # type: ignore[arg-type]
    _, (mean,) = accumulate(step, Both(own, win), [{"forget": wrong}], lambda loss: loss.backward(), [0])
    assert mean != pytest.approx(float(golden[f"loss/{case}/dpo_beta1.0/value"]), rel=1e-3)
