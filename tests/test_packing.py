"""Several sequences in a row: the numbers and the gradient of each by itself, or no packing at all."""

from __future__ import annotations

import pytest
import torch

from expunge.core import Needs
from expunge.lm import Scored
from expunge.packing import Packed, takes_any_mask
from tests.contract import harness as h
from tests.fixtures.models import tiny

LENGTHS = (3, 12, 5, 6, 4, 9)
BATCH = h.batch_of([*h.items(6), *h.items(3, seed=9, prefix="r", longest=16)])
NEEDS = Needs(entropy=frozenset({1.0}), hidden=frozenset({(1, "own"), (-1, "before")}))


def mask_of(lengths: tuple[int, ...]) -> torch.Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def test_every_token_has_a_place_of_its_own_in_a_row_that_its_sequence_keeps_to() -> None:
    mask = mask_of(LENGTHS)
    packed = Packed.of(mask)
    assert packed.segment.shape == (4, 12)  # 39 tokens: 12, 9 + 3, 6 + 5, 4 where 6 rows were
    assert packed.saves
    values = torch.arange(mask.numel()).view_as(mask) + 1
    rows = packed.pack(values, mask)
    assert sorted(rows[rows > 0].tolist()) == values[mask].tolist()
    assert packed.unpack(rows[..., None])[..., 0][mask].equal(values[mask])
    assert packed.unpack(packed.positions[..., None])[..., 0][mask].equal(torch.arange(12).expand(6, 12)[mask])


def test_sequences_of_one_length_are_left_as_they_are() -> None:
    assert not Packed.of(mask_of((4, 4, 4))).saves
    assert not Packed.of(mask_of((5, 4, 4))).saves


def test_a_token_sees_itself_and_what_stands_before_it_in_its_own_sequence() -> None:
    packed = Packed.of(mask_of((4, 2, 1)))
    allowed = packed.attention(torch.float32)[:, 0] == 0
    assert packed.segment.tolist() == [[0, 0, 0, 0], [1, 1, 2, -1]]
    assert allowed[1].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_a_packed_batch_gives_the_numbers_and_the_gradient_of_the_padded_one(bf16: bool) -> None:
    found = {}
    for packs in (True, False):
        module = Scored(tiny("llama"), bf16=bf16)
        module._packs = module._packs and packs
        stats = module(BATCH, NEEDS)
        assert module._tested == packs, "otherwise this compares nothing"
        (stats.logp.sum() + stats.hidden[1, "own"].square().sum()).backward()
        found[packs] = stats, {name: p.grad for name, p in module.named_parameters()}
    (one, grads), (other, expected) = found[True], found[False]
    near = {"rtol": 0.05, "atol": 0.05} if bf16 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(one.logp, other.logp, **near)
    torch.testing.assert_close(one.entropy[1.0], other.entropy[1.0], **near)
    for place in NEEDS.hidden:
        torch.testing.assert_close(one.hidden[place], other.hidden[place], **near)
    for name, g in expected.items():
        assert g is not None
        assert float((grads[name] - g).norm() / g.norm()) < (0.05 if bf16 else 1e-5), name


def test_a_leak_between_sequences_is_noticed_and_the_batch_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Scored(tiny("llama"), naive=True)(BATCH, Needs()).logp
    monkeypatch.setattr(Packed, "attention", lambda self, dtype: torch.zeros(len(self.segment), 1, 15, 15, dtype=dtype))
    module = Scored(tiny("llama"))
    with pytest.warns(UserWarning, match="do not give the states that they give alone; batches are padded"):
        found = module(BATCH, Needs()).logp
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    module(BATCH, Needs())


def test_models_whose_positions_or_window_do_not_allow_it_are_padded() -> None:
    assert takes_any_mask(tiny("llama"))
    assert not takes_any_mask(tiny("gpt2-tied-positions"))
    module = Scored(tiny("gpt2-tied-positions"))
    module(BATCH, Needs())
    assert not module._tested
