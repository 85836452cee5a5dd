"""Selectors that weigh softly or take neighbours along, chains of them, and which scores go with which."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from expunge import registry
from expunge.core import Batch
from expunge.errors import MethodError
from expunge.recipe import Method, TermSpec
from expunge.terms import build_term
from expunge.weighting.chain import bound
from expunge.weighting.selection import Softmax, Top
from expunge.weighting.smoothing import Expand, Pool, groups

MASK = torch.tensor([[True, True, True, True, False]])
SCORES = torch.tensor([[0.0, 3.0, 0.0, 6.0, 9.0]])


def weights(spec: str, scores: torch.Tensor = SCORES, mask: torch.Tensor = MASK) -> list[float]:
    found: list[float] = registry.build("selector", spec)(scores, mask).value[0].tolist()
    return found


def batch(**static: list[float]) -> Batch:
    ids = torch.zeros(1, 5, dtype=torch.long)
    targets = torch.where(MASK, 0, -100)
    known = {name: torch.tensor([values]) for name, values in static.items()}
    return Batch(ids, targets, torch.ones_like(MASK), ("r",), known)


def test_top_k_takes_k_tokens_or_all_there_are_with_ties_to_the_earliest() -> None:
    assert weights("top:k=2") == [0, 1, 0, 1, 0]
    assert weights("top:k=3") == [1, 1, 0, 1, 0]
    assert weights("top:k=9") == [1, 1, 1, 1, 0]
    assert Top(r=0.5, k=1)(SCORES, MASK).value.sum() == 1, "a number given by name goes before the share"


def test_softmax_weights_sum_to_the_number_of_tokens_whatever_the_scale() -> None:
    scores = torch.tensor([[math.log(2.0), 0.0, math.log(5.0), 0.0, 7.0]])  # 2, 1, 5, 1 of 9
    assert weights("softmax", scores) == pytest.approx([8 / 9, 4 / 9, 20 / 9, 4 / 9, 0.0])
    assert weights("softmax", scores - 5.0) == pytest.approx([8 / 9, 4 / 9, 20 / 9, 4 / 9, 0.0], rel=1e-5)
    assert weights("softmax:temperature=0.5", scores) == pytest.approx([16 / 31, 4 / 31, 100 / 31, 4 / 31, 0.0])


def test_softmax_of_flat_scores_is_uniform_and_counted() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    made = Softmax()(torch.tensor([[-4.0, -4.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), mask)
    assert made.value.tolist() == mask.float().tolist()
    assert made.flat == 1


def test_pool_over_a_window_looks_at_scored_tokens_only() -> None:
    assert weights("pool") == [1.5, 1.0, 3.0, 3.0, 0.0]
    assert weights("pool:how=max") == [3.0, 3.0, 6.0, 6.0, 0.0]
    assert weights("pool:window=0") == [0.0, 3.0, 0.0, 6.0, 0.0]
    gap = torch.tensor([[True, False, True, False, False]])
    assert weights("pool", torch.tensor([[2.0, 9.0, 4.0, 9.0, 9.0]]), gap) == [3.0, 0.0, 3.0, 0.0, 0.0]


def test_pool_over_words_takes_a_word_as_one() -> None:
    known = batch(word=[1.0, 1.0, 2.0, 0.0, 0.0])
    mean = bound(Pool(by="word"), known)(SCORES, MASK).value[0].tolist()
    assert mean == [1.5, 1.5, 0.0, 6.0, 0.0]
    whole = bound(registry.build("selector", "top:k=2 > pool:by=word,how=max"), known)
    assert whole(SCORES, MASK).value[0].tolist() == [1.0, 1.0, 0.0, 1.0, 0.0]


def test_pool_over_spans_takes_neighbouring_annotated_tokens_as_one() -> None:
    known = batch(given=[0.0, 1.0, 0.5, 0.0, 0.0], gold=[1.0] * 5)
    assert bound(Pool(by="span"), known)(SCORES, MASK).value[0].tolist() == [0.0, 1.5, 1.5, 6.0, 0.0]
    assert groups(torch.tensor([[1.0, 1.0, 0.0, 1.0, 0.0]]), MASK, runs=True).tolist() == [[-1, -1, 2, -2, 4]]


@pytest.mark.parametrize(("by", "what"), [("word", "words of the records"), ("span", "annotated spans")])
def test_pool_says_what_it_lacks(by: str, what: str) -> None:
    made = registry.build("selector", f"pool:by={by}")
    with pytest.raises(MethodError, match=f"needs {what}, and this batch has none"):
        bound(made, batch())
    with pytest.raises(MethodError, match="use it in a recipe"):
        made(SCORES, MASK)


def test_expansion_takes_neighbours_of_selected_tokens_along() -> None:
    selected = torch.tensor([[0.0, 0.0, 0.0, 1.0, 0.0]])
    assert weights("expand:c=1", selected) == [0.0, 0.0, 1.0, 1.0, 0.0]
    assert weights("threshold:value=5 > expand") == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert Expand(c=2)(selected, MASK).value.equal(Pool(window=2, how="max")(selected, MASK).value)


def test_nothing_selected_stays_nothing_through_a_chain() -> None:
    for spec in ("threshold:value=10 > normalised", "threshold:value=10 > expand > softmax"):
        made = registry.build("selector", spec)(SCORES, MASK)
        assert not made.value.any()
        assert not made.mask.any()
        assert made.flat == 0


@pytest.mark.parametrize("score", ["rank(entropy+confidence)", "zscore(0.5*entropy+0.5*confidence)"])
@pytest.mark.parametrize("select", ["top", "softmax", "threshold", "softmax > top", "top > normalised"])
def test_ranks_and_zscores_go_through_an_order(score: str, select: str) -> None:
    assert build_term(TermSpec(objective="ga", score=score, select=select), Method())


@pytest.mark.parametrize("select", ["raw", "normalised", "pool", "expand", "pool > top"])
def test_ranks_and_zscores_are_no_weights(select: str) -> None:
    for score, what in (("rank(entropy+confidence)", "ranks"), ("zscore(entropy)", "z-scores")):
        with pytest.raises(MethodError, match=f"gives {what}, which are an order and no weights; select '{select}'"):
            build_term(TermSpec(objective="ga", score=score, select=select), Method())
    with pytest.raises(MethodError, match="modulate 'rank"):
        build_term(TermSpec(objective="ga", modulate="rank(entropy+confidence)"), Method())


def test_a_term_binds_its_selector_to_the_batch() -> None:
    from expunge.testing import forward_from_probabilities

    forward = forward_from_probabilities([[0.5, 0.5]] * 3, targets=[0, 0, 0], static={"given": [0.0, 4.0, 2.0]})
    known = {**forward.batch.static, "word": torch.tensor([[1.0, 1.0, 2.0, 0.0]])}
    forward = replace(forward, batch=replace(forward.batch, static=known))
    term = build_term(TermSpec(objective="ga", score="given", select="pool:by=word"), Method())
    assert term.weights(forward).value[0].tolist() == [2.0, 2.0, 2.0, 0.0]
