"""How records are batched changes nothing: padding, order, chunks of the head, micro-batches."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest
from torch import Tensor

from expunge import fused, registry
from expunge.core import Batch, Objective, Scorer, Selector
from expunge.terms import Tokens
from tests.contract import harness as h

RECORDS = [*h.items(5), h.empty(h.items(6)[5])]
WHOLE = h.batch_of(RECORDS)
MODEL, REFERENCE = h.Leaves(RECORDS), h.reference_of(RECORDS)
RTOL = 1e-6
"""Weights are float32: sums over them see the order of the tokens in the eighth digit."""


@functools.cache
def whole(objective: Objective, score: Scorer, select: Selector, tokens: Tokens) -> tuple[dict[str, Tensor], float]:
    """Gradients and mean of a term on all records at once; skips pairs that a run refuses."""
    made = h.term(objective, score, select, tokens)
    h.allowed(made, h.forward_of(MODEL, WHOLE, made.needs, REFERENCE))
    found, (mean,) = h.gradients([made], MODEL, [WHOLE], REFERENCE)
    return found, mean


def cut(records: Sequence[h.Encoded], *sizes: int) -> list[Batch]:
    """Records in micro-batches of these sizes."""
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return [h.batch_of(records[start : start + size]) for start, size in zip(starts, sizes, strict=True)]


@h.cells
def test_padding_and_order_change_nothing(objective: Objective, score: Scorer, select: Selector) -> None:
    expected, mean = whole(objective, score, select, "selected")
    made = h.term(objective, score, select)
    shuffled = h.batch_of([RECORDS[i] for i in (3, 5, 0, 1, 4, 2)], pad_to=WHOLE.input_ids.shape[1] + 5)
    found, (other,) = h.gradients([made], MODEL, [shuffled], REFERENCE)
    if h.rectangular(objective):
        assert other != pytest.approx(mean, rel=1e-3), "it averages over padding by definition, so padding must show"
        return
    assert other == pytest.approx(mean, rel=RTOL)
    h.close(found, expected, rtol=RTOL)


@h.cells
def test_micro_batches_change_nothing(objective: Objective, score: Scorer, select: Selector) -> None:
    _same_in_pieces(objective, score, select, "selected")


@pytest.mark.parametrize("tokens", ["unselected", "all"])
@pytest.mark.parametrize("select", h.SELECTORS, ids=lambda s: str(s).replace(" ", ""))
@pytest.mark.parametrize("objective", h.methods("objective"), ids=str)
def test_micro_batches_change_nothing_for_other_tokens(objective: Objective, select: Selector, tokens: Tokens) -> None:
    _same_in_pieces(objective, registry.build("scorer", "entropy"), select, tokens)


def _same_in_pieces(objective: Objective, score: Scorer, select: Selector, tokens: Tokens) -> None:
    expected, mean = whole(objective, score, select, tokens)
    made = h.term(objective, score, select, tokens)
    found, (other,) = h.gradients([made], MODEL, cut(RECORDS, 3, 2, 1), REFERENCE)
    if objective.couples == "batch":
        assert other != pytest.approx(mean, rel=1e-6), "it says that rows are coupled, so micro-batches must show"
    else:
        assert other == pytest.approx(mean, rel=RTOL)
        h.close(found, expected, rtol=RTOL)


@pytest.mark.parametrize("select", ["raw", "normalised", "top:r=0.4", "threshold"])
@pytest.mark.parametrize("objective", ["ga", "ga:denominator=selected", "npo", "kl", "lpl"])
def test_one_by_eight_is_two_by_four_is_eight_by_one(objective: str, select: str) -> None:
    records = h.items(8, seed=5)
    model, reference = h.Leaves(records), h.reference_of(records)
    made = h.term(registry.build("objective", objective), "confidence", select)
    retain = h.term(registry.build("objective", "nll"))
    expected, means = h.gradients([made, retain], model, cut(records, 8), reference)
    for sizes in ((4, 4), (1,) * 8):
        found, others = h.gradients([made, retain], model, cut(records, *sizes), reference)
        assert others == pytest.approx(means, rel=RTOL)
        h.close(found, expected, rtol=RTOL)


def test_micro_batches_normalised_one_by_one_would_be_noticed() -> None:
    """The break on purpose: averaging the means of micro-batches instead of dividing by the counts of all."""
    made = h.term(registry.build("objective", "ga"), "entropy", "top:r=0.4")
    expected, _ = h.gradients([made], MODEL, [WHOLE], REFERENCE)
    pieces = [h.gradients([made], MODEL, [piece], REFERENCE)[0] for piece in cut(RECORDS, 3, 2, 1)]
    averaged = {name: sum((p[name] for p in pieces), start=0 * expected[name]) / 3 for name in expected}
    with pytest.raises(AssertionError, match="differ"):
        h.close(averaged, expected, rtol=RTOL)


@pytest.mark.parametrize("score", h.SCORERS, ids=str)
@pytest.mark.parametrize("objective", h.methods("objective"), ids=str)
def test_chunk_size_changes_nothing(objective: Objective, score: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    many = h.items(20, longest=16)
    model, batch = h.Leaves(many), h.batch_of(many)
    assert int(batch.mask.sum()) > 2 * 64
    made = h.term(objective, score, "normalised")
    expected, (mean,) = h.gradients([made], model, [batch], h.reference_of(many))
    monkeypatch.setattr(fused, "CHUNK_LOGITS", 1)  # as few rows a chunk as there can be
    found, (other,) = h.gradients([made], model, [batch], h.reference_of(many))
    assert other == pytest.approx(mean, rel=1e-12)
    h.close(found, expected, rtol=1e-12)
