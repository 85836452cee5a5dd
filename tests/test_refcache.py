"""The reference's numbers: computed once a record, the same whatever the batch, never with a gradient."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from expunge.core import Batch, Needs, Side, TokenStats
from expunge.errors import MethodError, TrainingError
from expunge.fused import ReferenceRows
from expunge.lm import Scored
from expunge.refcache import Reference, bytes_of_states, choose, must_live, remembered, to_keep
from tests.contract import harness as h
from tests.fixtures.models import tiny

RECORDS = h.items(5)
NAMES = ("logp", "label_logit", "lse")


class Counted(h.Leaves):
    """Leaves that note which records they were asked for."""

    asked: list[tuple[str, ...]]

    def forward(self, batch: Batch, needs: Needs, reference: ReferenceRows | None = None) -> TokenStats:
        self.asked.append(batch.ids)
        return super().forward(batch, needs, reference)


def counted(records: list[h.Encoded] = RECORDS) -> tuple[Reference, Counted]:
    model = Counted(records)
    model.asked = []
    return Reference(model), model  # type: ignore[arg-type]


def test_numbers_are_those_of_the_model_and_carry_no_gradient() -> None:
    reference, model = counted()
    batch = h.batch_of(RECORDS)
    found, expected = reference.stats(batch), model(batch, Needs())
    for name in NAMES:
        assert torch.equal(getattr(found, name), getattr(expected, name))
        assert not getattr(found, name).requires_grad


def test_each_record_is_computed_once_however_it_is_batched() -> None:
    reference, model = counted()
    whole = reference.stats(h.batch_of(RECORDS[:3]))
    again = reference.stats(h.batch_of([RECORDS[2], RECORDS[4], RECORDS[0]], pad_to=15))
    assert model.asked == [("f0", "f1", "f2"), ("f4",)]
    for row, other in ((0, 2), (2, 0)):
        assert torch.equal(again.logp[other, : len(RECORDS[row])], whole.logp[row, : len(RECORDS[row])])
    reference.stats(h.batch_of([RECORDS[4]] * 3))
    assert len(model.asked) == 2


def test_a_record_that_was_cut_or_scored_otherwise_is_computed_anew() -> None:
    reference, model = counted()
    item = RECORDS[0]
    reference.stats(h.batch_of([item]))
    targets = item.targets.copy()
    targets[(targets >= 0).argmax()] = -100
    reference.stats(h.batch_of([dataclasses.replace(item, targets=targets)]))
    reference.stats(h.batch_of([dataclasses.replace(item, input_ids=(item.input_ids + 1) % h.VOCABULARY)]))
    assert len(model.asked) == 3


def test_a_record_with_nothing_scored_is_no_trouble() -> None:
    reference, _ = counted()
    found = reference.stats(h.batch_of([h.empty(RECORDS[0]), h.empty(RECORDS[1])]))
    assert not found.logp.any()


def test_rows_are_asked_for_only_by_maps_that_read_the_reference() -> None:
    reference, _ = counted()
    batch = h.batch_of(RECORDS)
    assert reference.rows(batch, Needs(reference=True)) is None
    for objective in h.OBJECTIVES:
        rows = reference.rows(batch, objective.needs)
        if any(m.reads_reference for m in objective.needs.vocab):
            assert rows is not None
            assert not rows.hidden.requires_grad
            read = batch.targets.numel() if objective.needs.everywhere else int(batch.mask.sum())
            assert len(rows.hidden) == read
        else:
            assert rows is None


def test_numbers_remembered_stay_when_the_model_moves_on() -> None:
    module = Scored(tiny("llama")).train()
    batch = h.batch_of(RECORDS)
    reference = remembered(module, {frozenset(): RECORDS}, pad_id=0)
    assert module.training
    with torch.no_grad():
        before = module(batch, Needs()).logp
        for p in module.parameters():
            p.add_(0.1)
    torch.testing.assert_close(reference.stats(batch).logp, before, rtol=1e-5, atol=1e-6)


def test_dropout_plays_no_part_in_remembered_numbers() -> None:
    module = Scored(tiny("gpt2-tied-positions", resid_pdrop=0.5, embd_pdrop=0.5)).train()
    first, again = (
        remembered(module, {frozenset(): RECORDS}, pad_id=0).stats(h.batch_of(RECORDS)).logp for _ in range(2)
    )
    assert torch.equal(first, again)


def test_a_remembered_reference_says_so_when_asked_for_more() -> None:
    reference = remembered(Scored(tiny("llama")), {frozenset(): RECORDS[:2]}, pad_id=0)
    reference.stats(h.batch_of(RECORDS[:2]))
    with pytest.raises(TrainingError, match="records it never saw: f3"):
        reference.stats(h.batch_of([RECORDS[3]]))
    kl = next(o for o in h.OBJECTIVES if o.needs.any_reference and not o.needs.reference_stats)
    with pytest.raises(TrainingError, match="never saw: f0"):
        reference.rows(h.batch_of(RECORDS[:1]), kl.needs)


def test_whole_distributions_come_from_kept_states_as_from_the_model_itself() -> None:
    """After the start has moved on, without a forward pass; but not where more is read than the scored tokens."""
    module, batch = Scored(tiny("llama")), h.batch_of([RECORDS[3], RECORDS[0]], pad_to=15)
    kl = next(o for o in h.OBJECTIVES if o.needs.reference_rows and not (o.needs.everywhere or o.needs.smoothing))
    (key,) = (m.key for m in kl.needs.vocab)
    expected = module.reference_rows(batch, kl.needs)
    other = Scored(tiny("llama", seed=4))
    divergence = other(batch, kl.needs, expected).vocab[key].detach()
    kept = remembered(module, to_keep({"forget": RECORDS}, {"forget": kl.needs}), pad_id=0)
    assert kept.module is None
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1)
    found = kept.rows(batch, kl.needs)
    assert found is not None
    torch.testing.assert_close(found.hidden, expected.hidden, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other(batch, kl.needs, found).vocab[key], divergence, rtol=1e-4, atol=1e-5)
    assert divergence.abs().max() > 1e-3
    assert not must_live([kl.needs])
    assert must_live([dataclasses.replace(kl.needs, everywhere=True)])
    with pytest.raises(TrainingError, match="never saw: f3"):
        kept.rows(batch, dataclasses.replace(kl.needs, everywhere=True))


PLACES = frozenset({(0.5, "own"), (-1, "before")})


def test_hidden_states_are_those_of_the_model_whether_remembered_or_not() -> None:
    module, batch = Scored(tiny("llama")), h.batch_of([RECORDS[3], RECORDS[0]], pad_to=15)
    live = Reference(module).stats(batch, PLACES)  # type: ignore[arg-type]
    expected = module(batch, Needs(hidden=PLACES))  # type: ignore[arg-type]
    kept = remembered(module, {PLACES: RECORDS}, pad_id=0)  # type: ignore[dict-item]
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1)
    found = kept.stats(batch, PLACES)  # type: ignore[arg-type]
    for place in PLACES:
        assert not live.hidden[place].requires_grad
        assert torch.equal(live.hidden[place], expected.hidden[place].detach())
        torch.testing.assert_close(found.hidden[place], live.hidden[place], rtol=1e-5, atol=1e-5)
        assert not found.hidden[place][~batch.mask].any()
    torch.testing.assert_close(found.logp, live.logp, rtol=1e-5, atol=1e-5)


def test_states_that_were_not_kept_are_refused() -> None:
    kept = remembered(Scored(tiny("llama")), {PLACES: RECORDS[:2], frozenset(): RECORDS[2:]}, pad_id=0)  # type: ignore[dict-item]
    kept.stats(h.batch_of(RECORDS))
    with pytest.raises(TrainingError, match="records it never saw: f2"):
        kept.stats(h.batch_of(RECORDS[2:3]), PLACES)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="never saw: f0"):
        kept.stats(h.batch_of(RECORDS[:1]), frozenset({(1, "own")}))


def test_what_is_kept_is_what_a_sides_terms_read() -> None:
    hidden = Needs(reference_hidden=frozenset({(1, "own")}))
    needs: dict[Side, Needs] = {"forget": Needs(reference=True), "retain": hidden, "general": Needs()}
    found = to_keep({"forget": RECORDS[:1], "retain": RECORDS[1:3], "general": RECORDS[3:]}, needs)
    assert {key: [i.id for i in items] for key, items in found.items()} == {
        frozenset(): ["f0"],
        frozenset({(1, "own")}): ["f1", "f2"],
    }


def test_states_are_kept_as_long_as_they_take_no_more_than_the_weights() -> None:
    """One state of a token is 16 numbers of 4 bytes; the scalars count for nothing."""
    tokens = sum(item.scored for item in RECORDS)
    states = bytes_of_states({frozenset({(1, "own")}): RECORDS, frozenset(): RECORDS}, 16)
    assert states == 4 * 16 * tokens
    for weights, kept in ((states, "numbers"), (states - 1, "copied")):
        assert choose("auto", live=False, states=states, weights=weights, adapter=False).kept == kept
    assert choose("cache", live=False, states=states, weights=1, adapter=False).kept == "numbers"


def test_a_reference_of_which_more_is_read_stays_a_model() -> None:
    for adapter, kept in ((False, "copied"), (True, "adapter off")):
        assert choose("auto", live=True, states=0, weights=None, adapter=adapter).kept == kept
    assert choose("live", live=False, states=0, weights=1, adapter=True).kept == "copied"
    with pytest.raises(MethodError, match=r"reference=cache keeps numbers of scored tokens.*Set reference=live"):
        choose("cache", live=True, states=0, weights=1, adapter=False)
