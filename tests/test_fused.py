"""The chunked head against its naive twin, against finite differences, and against float64 where p is near 1."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from expunge import fused, rowwise
from expunge.core import Needs, VocabMap
from expunge.fused import Head, ReferenceRows, Rows, naive_token_stats, token_stats
from expunge.objectives.soft import NearTop, ToOthers
from tests.contract import harness as h

N, D, V = 150, 7, 19
HEADS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"bias": True},
    "scale": {"scale": 0.25},
    "softcap": {"softcap": 3.0},
    "all": {"bias": True, "scale": 1.7, "softcap": 2.0},
}
heads = pytest.mark.parametrize("kind", HEADS)
Stats = Callable[..., Rows]
NEEDS_PLAIN = Needs(entropy=frozenset({1.0}))


@dataclass(frozen=True)
class Spread:
    """A map that reads no reference: it stands for what future objectives may ask for."""

    key: str = "spread"
    reads_reference: bool = False

    def __call__(self, logits: Tensor, reference: Tensor | None, targets: Tensor) -> Tensor:
        assert reference is None
        return logits.square().mean(-1) * logits.gather(1, targets[:, None])[:, 0]


MAPS: frozenset[VocabMap] = frozenset({Spread()}).union(*(objective.needs.vocab for objective in h.OBJECTIVES))
"""Every vocabulary map that a registered objective uses, and one more."""
NEEDS = Needs(second_moment=True, entropy=frozenset({0.5, 1.0, 3.0}), vocab=MAPS)


def inputs(
    kind: str, n: int = N, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> tuple[Tensor, Head, Tensor, ReferenceRows]:
    """Hidden states and head with gradient, targets, and a reference with another head."""
    g = torch.Generator().manual_seed(5)
    settings = dict(HEADS[kind])

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=dtype).to(device)

    bias = drawn(V).requires_grad_() if settings.pop("bias", False) else None
    hidden, weight = drawn(n, D).requires_grad_(), drawn(V, D).requires_grad_()
    targets = torch.randint(0, V, (n,), generator=g).to(device)
    other = ReferenceRows(drawn(n, 5), Head(drawn(V, 5)))
    return hidden, Head(weight, bias, **settings), targets, other


def differentiable(rows: Rows) -> list[Tensor]:
    return [rows.logp, rows.label_logit, rows.lse, *(rows.vocab[key] for key in sorted(rows.vocab))]


def detached(rows: Rows) -> list[Tensor]:
    assert rows.second_moment is not None
    return [rows.top1.double(), rows.second_moment, *rows.entropy.values()]


def gradients(
    stats: Stats, kind: str, needs: Needs = NEEDS, head_trains: bool = True, n: int = N,
    dtype: torch.dtype = torch.float64, device: str = "cpu",
) -> tuple[Rows, list[Tensor]]:  # fmt: skip
    """All statistics, and the gradients of a sum of them with random coefficients; one in three rows has none."""
    hidden, head, targets, other = inputs(kind, n, dtype, device)
    if not head_trains:
        bias = None if head.bias is None else head.bias.detach()
        head = dataclasses.replace(head, weight=head.weight.detach(), bias=bias)
    rows = stats(hidden, head, targets, needs, other)
    g = torch.Generator().manual_seed(6)
    read = torch.arange(n) % 3 > 0
    coefficients = [(torch.randn(n, generator=g, dtype=dtype) * read).to(device) for _ in differentiable(rows)]
    total = sum((c * x).sum() for c, x in zip(coefficients, differentiable(rows), strict=True))
    leaves = [x for x in (hidden, head.weight, head.bias) if x is not None and x.requires_grad]
    return rows, list(torch.autograd.grad(total, leaves))  # type: ignore[arg-type]


@pytest.mark.parametrize("head_trains", [True, False], ids=["trained", "frozen"])
@pytest.mark.parametrize("maps", [True, False], ids=["maps", "no maps"])
@pytest.mark.parametrize("chunk", [64 * V, 2**24], ids=["three chunks", "one chunk"])
@heads
def test_the_chunked_head_is_its_naive_twin(
    kind: str, chunk: int, maps: bool, head_trains: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On each way to the gradient: kept, made in forward, made anew; blocks of a few rows in each of them."""
    monkeypatch.setattr(fused, "CHUNK_LOGITS", chunk)
    monkeypatch.setattr(rowwise, "_CPU_BLOCK", 7 * V)
    needs = NEEDS if maps else dataclasses.replace(NEEDS, vocab=frozenset())
    found, expected = (gradients(stats, kind, needs, head_trains) for stats in (token_stats, naive_token_stats))
    for a, b in zip(
        differentiable(found[0]) + detached(found[0]), differentiable(expected[0]) + detached(expected[0]), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    for a, b in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def counted() -> FlopCounterMode:
    """A counter of what products of matrices cost, in place ones too."""

    def added(total: Any, left: Any, right: Any, out_shape: Any = None, **_: Any) -> int:
        return 2 * int(left[0]) * int(left[1]) * int(right[1])

    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: added})


PLAIN, MAPPED = Needs(entropy=frozenset({1.0, 2.0})), Needs(vocab=frozenset({Spread()}))


@pytest.mark.parametrize(
    ("chunks", "needs", "head_trains", "products"),
    [(1, PLAIN, True, 3), (1, MAPPED, True, 3), (1, PLAIN, False, 2), (3, PLAIN, False, 2), (1, MAPPED, False, 2),
     (3, PLAIN, True, 4), (3, MAPPED, True, 4), (3, MAPPED, False, 3)],
)  # fmt: skip
def test_products_that_each_way_to_the_gradient_takes(
    chunks: int, needs: Needs, head_trains: bool, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In N x V x D multiply-adds, of which a trained head cannot do with less than 3."""
    monkeypatch.setattr(fused, "CHUNK_LOGITS", 64 * V if chunks > 1 else 2**24)
    hidden, head, targets, _ = inputs("plain")
    used = Head(head.weight if head_trains else head.weight.detach())
    with counted() as counter:
        rows = token_stats(hidden, used, targets, needs)
        (rows.logp.sum() + sum(value.sum() for value in rows.vocab.values())).backward()
    assert counter.get_total_flops() == products * 2 * N * D * V


@pytest.mark.parametrize("chunk", [64 * V, 2**24], ids=["three chunks", "one chunk"])
def test_tokens_that_no_gradient_reaches_cost_no_product_in_the_backward_pass(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "CHUNK_LOGITS", chunk)
    hidden, head, targets, _ = inputs("plain")
    rows = token_stats(hidden, head, targets, Needs())
    with counted() as counter:
        rows.logp[:10].sum().backward(retain_graph=True)
    assert counter.get_total_flops() == (2 if chunk > N * V else 3) * 2 * 10 * D * V
    with counted() as counter:
        rows.label_logit.sum().backward()  # a row of the weights a token
    assert counter.get_total_flops() == 0


def test_of_equal_logits_the_first_is_the_highest() -> None:
    """As arg max says; and the entropy of a model that is sure of another token than the label keeps its digits."""
    z = torch.tensor([[1.0, 2.0, 2.0], [1.0, 2.0, 2.0], [2.0, 1.0, 0.0], [0.0, 16.0, 1.0]])
    rows = token_stats(z, Head(torch.eye(3)), torch.tensor([1, 2, 0, 0]), NEEDS_PLAIN)
    assert rows.top1.tolist() == [True, False, True, False]
    logp = z[3].double().log_softmax(-1)
    assert float(rows.entropy[1.0][3]) == pytest.approx(float(-(logp.exp() * logp).sum()), rel=1e-5)


@pytest.mark.parametrize("stats", [token_stats, naive_token_stats])
def test_a_vocabulary_padded_with_logits_of_minus_infinity_says_what_it_says_without(stats: Stats) -> None:
    hidden, head, targets, _ = inputs("bias", n=5)
    assert head.bias is not None
    weight, bias = torch.cat([head.weight, head.weight[:3]]), torch.cat([head.bias, torch.full((3,), -torch.inf)])
    needs = dataclasses.replace(NEEDS, vocab=frozenset())
    found, expected = (stats(hidden, used, targets, needs) for used in (Head(weight, bias), head))
    for a, b in zip([found.logp, *detached(found)], [expected.logp, *detached(expected)], strict=True):
        torch.testing.assert_close(a, b)


@heads
def test_the_twins_differ_if_the_targets_are_shifted_by_one(kind: str) -> None:
    """The break on purpose: parity would notice."""
    hidden, head, targets, _ = inputs(kind)
    expected = naive_token_stats(hidden, head, targets, Needs()).logp
    found = token_stats(hidden, head, targets.roll(1), Needs()).logp
    assert (found - expected).abs().max() > 0.1


@heads
def test_gradients_agree_with_finite_differences(kind: str) -> None:
    """But for maps with a target made of the policy itself, through which by definition no gradient flows."""
    hidden, head, targets, other = inputs(kind, n=4)
    needs = dataclasses.replace(NEEDS, vocab=frozenset(m for m in MAPS if not isinstance(m, (NearTop, ToOthers))))
    assert len(needs.vocab) == len(MAPS) - 2

    def function(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
        rows = token_stats(hidden, Head(weight, bias, head.scale, head.softcap), targets, needs, other)
        return tuple(differentiable(rows))

    leaves = [hidden, head.weight, *([] if head.bias is None else [head.bias])]
    assert torch.autograd.gradcheck(function, leaves)


@heads
@pytest.mark.parametrize("stats", [token_stats, naive_token_stats])
def test_statistics_are_what_their_names_say(stats: Stats, kind: str) -> None:
    hidden, head, targets, _ = inputs(kind)
    rows = stats(hidden, head, targets, NEEDS, inputs(kind)[3])
    z = hidden.detach() @ head.weight.detach().T + (0 if head.bias is None else head.bias.detach())
    z = z * head.scale
    z = z if head.softcap is None else head.softcap * torch.tanh(z / head.softcap)
    p = z.exp() / z.exp().sum(-1, keepdim=True)
    own = p[torch.arange(N), targets]
    torch.testing.assert_close(rows.logp, own.log())
    torch.testing.assert_close(rows.label_logit, z[torch.arange(N), targets])
    torch.testing.assert_close(rows.lse, z.exp().sum(-1).log())
    torch.testing.assert_close(rows.second_moment, (p * p.log() ** 2).sum(-1))
    assert rows.top1.tolist() == (own == p.amax(-1)).tolist()
    for temperature, entropy in rows.entropy.items():
        q = (z / temperature).exp() / (z / temperature).exp().sum(-1, keepdim=True)
        torch.testing.assert_close(entropy, -(q * q.log()).sum(-1))
    assert not any(x.requires_grad for x in detached(rows))


@pytest.mark.parametrize("stats", [token_stats, naive_token_stats])
def test_no_rows_give_no_statistics_and_zero_gradient(stats: Stats) -> None:
    hidden, head, targets, other = inputs("all", n=0)
    rows = stats(hidden, head, targets, NEEDS, other)
    assert all(x.shape == (0,) for x in differentiable(rows) + detached(rows))
    sum(x.sum() for x in differentiable(rows)).backward()  # type: ignore[union-attr]
    assert head.weight.grad is not None
    assert (head.weight.grad == 0).all()


def test_only_what_trains_gets_a_gradient() -> None:
    hidden, head, targets, other = inputs("all")
    frozen = Head(head.weight.detach(), None, head.scale, head.softcap)
    token_stats(hidden, frozen, targets, NEEDS, other).logp.sum().backward()
    assert hidden.grad is not None
    only_head = token_stats(hidden.detach(), head, targets, NEEDS, other).logp.sum()
    expected = naive_token_stats(hidden.detach(), head, targets, NEEDS, other).logp.sum()
    found, wanted = (torch.autograd.grad(x, [head.weight, head.bias]) for x in (only_head, expected))
    torch.testing.assert_close(found, wanted)
    with torch.no_grad():
        assert not token_stats(hidden, head, targets, NEEDS, other).logp.requires_grad


class Largest(TorchDispatchMode):
    """Notes the greatest number of elements of any tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = [x for x in (out if isinstance(out, (tuple, list)) else (out,)) if isinstance(x, Tensor)]
        self.elements = max([self.elements, *(x.untyped_storage().nbytes() // x.element_size() for x in made)])
        return out


@pytest.mark.parametrize("stats", [token_stats, naive_token_stats])
def test_no_more_than_a_chunk_of_logits_is_ever_held(stats: Stats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "CHUNK_LOGITS", 64 * V)
    hidden, head, targets, other = inputs("softcap")
    with Largest() as found:
        rows = stats(hidden, head, targets, NEEDS, other)
        sum(x.sum() for x in differentiable(rows)).backward()  # type: ignore[union-attr]
    assert found.elements == (64 if stats is token_stats else N) * V


# Confident tokens: unlearning starts on memorised text, where naive arithmetic loses 1 - p, and with it the gradient.

SURE = (0.9, 0.999, 1 - 1e-5, 1 - 1e-7)


def confident(p: float, vocabulary: int = 4000, n: int = 20) -> tuple[Tensor, Tensor]:
    """float32 logits (n, V) whose target has about probability p, and the targets."""
    g = torch.Generator().manual_seed(1)
    z = torch.randn(n, vocabulary, generator=g) * 2
    targets = torch.randint(0, vocabulary, (n,), generator=g)
    z.scatter_(1, targets[:, None], -1e9)
    own = z.double().logsumexp(-1) + math.log(p) - math.log1p(-p)
    return z.scatter_(1, targets[:, None], own.float()[:, None]), targets


@pytest.mark.parametrize("p", SURE)
def test_confident_tokens_keep_their_digits_in_float32(p: float) -> None:
    z, targets = confident(p)
    needs = Needs(second_moment=True, entropy=frozenset({1.0}))
    truth = z.double().log_softmax(-1)
    logp = truth.gather(1, targets[:, None])[:, 0]
    entropy, moment = -(truth.exp() * truth).sum(-1), (truth.exp() * truth**2).sum(-1)
    leaf = z.clone().requires_grad_()
    rows = token_stats(leaf, Head(torch.eye(z.shape[1])), targets, needs)
    rows.logp.sum().backward()
    wanted = -truth.exp().scatter(1, targets[:, None], 0.0)
    wanted = wanted.scatter(1, targets[:, None], -torch.expm1(logp)[:, None])

    def worst(found: Tensor, expected: Tensor) -> float:
        return float(((found.detach().double() - expected) / expected).abs().max())

    assert rows.second_moment is not None
    assert leaf.grad is not None
    assert worst(rows.logp, logp) < 1e-6
    assert worst(rows.entropy[1.0], entropy) < 1e-6
    assert worst(rows.second_moment, moment) < 1e-6
    own = targets[:, None]
    assert worst(leaf.grad.gather(1, own), wanted.gather(1, own)) < 1e-6
    rest = torch.ones_like(z, dtype=torch.bool).scatter(1, own, False)
    # z - max is up to 35 here and rounded to 2e-6, which exp makes a relative error; softmax's own exp adds 1e-6
    assert worst(leaf.grad[rest], wanted[rest]) < 4e-6


def test_naive_float32_loses_those_digits() -> None:
    """Why the fused head is written as it is: log_softmax in float32 is off by 100% at 1 - p = 1e-7."""
    z, targets = confident(SURE[-1])
    logp = z.double().log_softmax(-1).gather(1, targets[:, None])[:, 0]
    naive = z.log_softmax(-1).gather(1, targets[:, None])[:, 0].double()
    assert float(((naive - logp) / logp).abs().max()) > 0.05


def test_bfloat16_states_give_float32_statistics_and_near_gradients() -> None:
    """The products are in bfloat16, the rest in float32; bfloat16 has 8 bits, so gradients agree to about 1%."""
    g = torch.Generator().manual_seed(2)
    hidden = torch.randn(64, 32, generator=g).bfloat16().requires_grad_()
    weight = (torch.randn(V, 32, generator=g) / 4).bfloat16().requires_grad_()
    targets = torch.randint(0, V, (64,), generator=g)
    rows = token_stats(hidden, Head(weight), targets, NEEDS_PLAIN)
    assert rows.logp.dtype == rows.entropy[1.0].dtype == torch.float32
    found = torch.autograd.grad(rows.logp.sum(), [hidden, weight])
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    expected = torch.autograd.grad(naive_token_stats(exact[0], Head(exact[1]), targets, NEEDS_PLAIN).logp.sum(), exact)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.bfloat16
        assert float((a.double() - b).norm() / b.norm()) < 0.01


def test_the_head_weights_gradient_is_summed_over_chunks_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "CHUNK_LOGITS", 1)
    n = 64 * 40
    hidden, targets = torch.ones(n, 1, dtype=torch.bfloat16), torch.zeros(n, dtype=torch.int64)
    weight = torch.zeros(4, 1, dtype=torch.bfloat16, requires_grad=True)
    token_stats(hidden, Head(weight), targets, Needs()).logp.sum().backward()
    assert weight.grad is not None
    # each token adds 1 - 1/4 to its own row; a bfloat16 sum would stop growing at 256
    assert weight.grad[:, 0].tolist() == [0.75 * n, *[-0.25 * n] * 3]
