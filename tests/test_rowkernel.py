"""The Triton kernels of the head beside torch's form: on CUDA, or by Triton's interpreter on a CPU.

Triton decides when it is imported whether it interprets, so `test_backend` runs this file in a process of its own.
"""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch
from torch import Tensor

from expunge import backend, fused, rowwise
from expunge.core import Needs
from expunge.fused import token_stats
from expunge.rowwise import Asked
from tests import test_fused

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not (INTERPRETED or torch.cuda.is_available()):
    pytest.skip("needs a CUDA device, or TRITON_INTERPRET=1 as in test_backend", allow_module_level=True)
rowkernel = pytest.importorskip("expunge.rowkernel", reason="Triton is not installed", exc_type=ImportError)

DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [
    *([] if INTERPRETED else [pytest.mark.gpu]),
    pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning"),  # NumPy, where a logit is -inf
    pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION:UserWarning"),
]
PLAIN, SHAPED = Asked((0.5, 1.0, 3.0), True), Asked((2.0, 1.0), True, 0.7, 5.0)
shaped = pytest.mark.parametrize("asked", [PLAIN, SHAPED], ids=["plain", "scale and softcap"])


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head works by kernels, on whatever device."""
    monkeypatch.setattr(backend, "_by_kernel", lambda raw: raw.dtype != torch.float64)


def rows(size: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Raw logits (4, size) and targets: a row with logits of -inf, one sure of its label, one sure of another."""
    g = torch.Generator().manual_seed(size)
    raw, targets = torch.randn(4, size, generator=g) * 3, torch.randint(0, size, (4,), generator=g)
    if size > 4:
        targets[0] = 1
        raw[0, -3:] = -torch.inf
        raw[1, targets[1]] = raw[2, (targets[2] + 1) % size] = 30.0
    return raw.to(DEVICE, dtype), targets.to(DEVICE)


def near(found: Tensor, expected: Tensor, rtol: float = 1e-5) -> None:
    """To rounding: near the cap the slope is a difference of ones, so that half a unit of 1 counts too."""
    torch.testing.assert_close(found, expected, rtol=rtol, atol=3e-7)


@pytest.mark.parametrize("size", [1, 19, 2048, 2049, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@shaped
def test_statistics_and_gradient_are_those_of_torch(asked: Asked, dtype: torch.dtype, size: int) -> None:
    """In float32 to rounding; where both round to 8 bits (or 11), it may be to either side."""
    raw, targets = rows(size, dtype)
    other = raw.clone()
    found = rowkernel.statistics(raw, targets, asked, gradient=True)
    expected = rowwise.statistics(other, targets, asked, gradient=True)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        near(a, b)
    near(raw, other, 1e-5 if dtype == torch.float32 else 2**-7)


def test_logits_are_left_alone_where_no_gradient_is_asked_for() -> None:
    raw, targets = rows(19)
    before = raw.clone()
    rowkernel.statistics(raw, targets, PLAIN, gradient=False)
    assert torch.equal(raw, before)


@pytest.mark.parametrize("more", [None, (4, 19), (4, 1)], ids=["alone", "more", "expanded"])
@shaped
def test_the_surplus_is_that_of_torch(asked: Asked, more: tuple[int, int] | None) -> None:
    raw, targets = rows(19)
    other, lead = raw.clone(), torch.tensor([1.0, -0.5, 0.0, 3.0], device=DEVICE)
    added = None
    if more is not None:
        added = torch.randn(*more, generator=torch.Generator().manual_seed(1)).to(DEVICE).expand(4, 19)
    logp, _, lse, *_ = rowwise.statistics(raw.clone(), targets, asked, gradient=False)
    rowkernel.surplus(raw, targets, lse, logp, asked, lead, added)
    rowwise.surplus(other, targets, lse, logp, asked, lead, added)
    near(raw, other)


def test_numbers_of_rows_may_stand_apart() -> None:
    """Columns of a table, as targets, log-probabilities, log-sum-exp and factors."""
    raw, targets = rows(19)
    table = torch.stack([targets, targets.roll(1)], dim=1)
    found = rowkernel.statistics(raw, table[:, 0], PLAIN, gradient=False)
    expected = rowwise.statistics(raw, targets, PLAIN, gradient=False)
    for a, b in zip(found, expected, strict=True):
        near(a, b)
    other, lead = raw.clone(), torch.tensor([1.0, -0.5, 0.0, 3.0], device=DEVICE)
    logp, _, lse = expected[:3]
    wide = torch.stack([lse, logp, lead, -lead], dim=1)
    rowkernel.surplus(raw, table[:, 0], wide[:, 0], wide[:, 1], PLAIN, wide[:, 2])
    rowwise.surplus(other, targets, lse, logp, PLAIN, lead)
    near(raw, other)


def test_no_rows_are_no_work() -> None:
    none = torch.empty(0, device=DEVICE)
    rowkernel.surplus(torch.empty(0, 19, device=DEVICE), none.long(), none, none, PLAIN, none)


def test_of_equal_logits_the_first_is_the_highest() -> None:
    """Within a block and across blocks; and where softcap makes equals of what was not."""
    raw = torch.zeros(3, 5000, device=DEVICE)
    raw[:, [7, 9, 2100, 4999]] = 2.0
    top1 = rowkernel.statistics(raw, torch.tensor([7, 9, 4999], device=DEVICE), Asked(), gradient=False)[3]
    assert top1.tolist() == [1.0, 0.0, 0.0]
    raw = torch.tensor([[0.0, 90.0, 100.0]] * 2, device=DEVICE)
    top1 = rowkernel.statistics(raw, torch.tensor([1, 2], device=DEVICE), Asked(softcap=2.0), gradient=False)[3]
    assert top1.tolist() == [1.0, 0.0]


def test_softcap_keeps_the_digits_of_small_and_large_logits() -> None:
    """Labels on either side of where the series of tanh ends, and far beyond where it is 1."""
    x = torch.tensor([1e-6, 1e-3, 0.05, 0.0999, 0.1001, 0.5, 3.0, 40.0], dtype=torch.float64)
    raw = torch.cat([x, -x])
    asked = Asked(softcap=30.0)
    label = rowkernel.statistics(
        (30 * raw).float()[:, None].to(DEVICE), torch.zeros(16, dtype=torch.int64, device=DEVICE), asked, gradient=False
    )[1]  # fmt: skip
    torch.testing.assert_close(label.double().cpu(), 30 * raw.tanh(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("needs", [test_fused.NEEDS, Needs(entropy=frozenset({1.0}), second_moment=True)])
@pytest.mark.parametrize("trains", [True, False], ids=["trained", "frozen"])
@pytest.mark.parametrize("chunk", [1, 2**24], ids=["chunks", "one chunk"])
def test_the_head_by_kernels_is_the_head_by_torch(
    chunk: int, trains: bool, needs: Needs, kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On each way to the gradient; 66 rows are two chunks, as 64 is the least that one holds."""
    n = 66 if chunk == 1 else 9
    monkeypatch.setattr(fused, "CHUNK_LOGITS", chunk)
    monkeypatch.setattr(fused, "CUDA_CHUNK_LOGITS", chunk)
    needs = dataclasses.replace(needs, entropy=frozenset({1.0}))
    found, grads = test_fused.gradients(token_stats, "all", needs, trains, n, torch.float32, DEVICE)
    monkeypatch.setattr(backend, "_by_kernel", lambda raw: False)
    expected, wanted = test_fused.gradients(token_stats, "all", needs, trains, n, torch.float32, DEVICE)
    for a, b in zip(
        [*test_fused.differentiable(found), *test_fused.detached(found)],
        [*test_fused.differentiable(expected), *test_fused.detached(expected)],
        strict=True,
    ):
        near(a, b)
    for a, b in zip(grads, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not INTERPRETED, reason="these tests keep to the CPU")
@pytest.mark.parametrize("p", test_fused.SURE[1::2])
def test_confident_tokens_keep_their_digits(p: float, kernels: None) -> None:
    test_fused.test_confident_tokens_keep_their_digits_in_float32(p)


def test_the_trial_passes_and_notices_wrong_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend._trial(DEVICE)
    right = rowkernel.statistics
    monkeypatch.setattr(rowkernel, "statistics", lambda *given: [1.01 * x for x in right(*given)])
    assert not backend._trial(DEVICE)


@pytest.mark.skipif(INTERPRETED, reason="needs a CUDA device")
def test_on_cuda_the_kernels_are_in_force() -> None:
    assert backend.why_not() is None
    raw, _ = rows(19)
    assert backend._by_kernel(raw)
    assert not backend._by_kernel(raw.double())
