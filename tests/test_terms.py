"""Terms: which tokens they read, what is known before a forward pass, what the log says of their weights."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from typing import Any

import pytest
import torch

from expunge import registry
from expunge.core import Batch, Forward, Objective, Scorer, Weights
from expunge.errors import MethodError
from expunge.recipe import Method, TermSpec
from expunge.terms import Term, Tokens, build_term, build_terms, coupled, term_values, weight_report
from expunge.testing import forward_from_probabilities
from tests.contract import harness as h

RECORDS = h.items(4)
BATCH = h.batch_of(RECORDS)
GIVEN = {"given": [0.0, 1.0, 0.5, 0.0], "gold": [0.0, 1.0, 0.0, 0.0]}
FORWARD = forward_from_probabilities(
    [[0.5, 0.5], [0.9, 0.1], [0.2, 0.8], [0.75, 0.25]], targets=[0, 0, 0, 0], static=GIVEN
)


def made(
    objective: str = "ga", score: str = "given", select: str = "raw", tokens: Tokens = "selected", **more: object
) -> Term:
    spec = TermSpec.model_validate({"objective": objective, "score": score, "select": select, "tokens": tokens, **more})
    return build_term(spec, Method(preset="ga"))


@pytest.mark.parametrize("select", ["raw", "threshold:value=0", "top:r=0.5", "threshold:value=0 > normalised"])
def test_selected_and_unselected_tokens_are_the_scored_ones_between_them(select: str) -> None:
    selected = made(select=select).weights(FORWARD)
    others = made(select=select, tokens="unselected").weights(FORWARD)
    assert (selected.value > 0).tolist() == [[False, True, True, False, False]]
    assert others.value.tolist() == [[1.0, 0.0, 0.0, 1.0, 0.0]]
    assert others.mask.equal(others.value > 0)


def test_all_tokens_have_weight_one_and_need_no_score() -> None:
    term = made(score="entropy", tokens="all")
    assert term.weights(FORWARD).value.tolist() == [[1.0, 1.0, 1.0, 1.0, 0.0]]
    assert not term.needs.entropy


def test_modulation_multiplies_the_selected_weights() -> None:
    term = made(select="threshold:value=0", modulate="confidence:beta=1")
    assert term.weights(FORWARD).value.tolist() == [pytest.approx([0.0, 0.9, 0.2, 0.0, 0.0])]
    assert made(score="entropy", modulate="entropy:temperature=2").needs.entropy == {1.0, 2.0}


def test_the_label_names_side_objective_and_tokens() -> None:
    assert made("npo:beta=0.5").label == "forget/npo:beta=0.5"
    assert made(tokens="unselected", on="retain").label == "retain/ga on unselected"


COUNTED = (*h.methods("objective"), registry.build("objective", "ga:denominator=selected"))


@functools.cache
def _answered(kind: str) -> Forward:
    """One pass for all that any method reads; 'impossible': every probability is exactly 0 in float32, so that a score
    can vanish for whole answers."""
    model = h.Leaves(RECORDS, dtype=torch.float32)
    if kind == "impossible":
        model.head = dataclasses.replace(model.head, scale=1e4)
    needs = functools.reduce(operator.or_, (method.needs for method in (*COUNTED, *h.methods("scorer"))))
    return h.forward_of(model, BATCH, needs, h.reference_of(RECORDS, dtype=torch.float32))


@pytest.mark.parametrize(
    ("tokens", "kind"),
    [("selected", "normal"), ("selected", "impossible"), ("unselected", "normal"), ("all", "normal")],
)
@pytest.mark.parametrize("score", h.methods("scorer"), ids=str)
def test_a_count_that_is_told_before_the_forward_pass_is_the_one_after_it(
    score: Scorer, tokens: Tokens, kind: str
) -> None:
    forward = _answered(kind)
    for select in h.SELECTORS:
        weights = h.term(COUNTED[0], score, select, tokens).weights(forward)
        for objective in COUNTED:
            after = objective(forward, weights).count
            before = h.term(objective, score, select, tokens).count_before(BATCH)
            assert before is None or before.tolist() == pytest.approx(after.tolist()), f"{objective} under {select}"
            if kind == "normal" and tokens == "all":
                assert before is not None


def test_counts_that_no_model_decides_are_known_before() -> None:
    for score, select in (
        ("given", "threshold:value=0"),
        ("random", "top"),
        ("confidence", "raw"),
        ("entropy", "normalised"),
    ):
        assert made(score=score, select=select).count_before(BATCH) is not None
    for score, select in (("entropy", "top"), ("confidence", "threshold")):
        assert made(score=score, select=select).count_before(BATCH) is None
    assert made("ga:denominator=selected", "confidence", "raw").count_before(BATCH) is None


def test_weights_that_are_none_name_their_term() -> None:
    broken = dataclasses.replace(FORWARD.batch, static={"given": torch.tensor([[-1.0, 0.0, 0.0, 0.0, 0.0]])})
    with pytest.raises(MethodError, match="term 'forget/ga', score 'given', select 'raw': weights must be >= 0"):
        term_values([made()], {"forget": Forward(broken, FORWARD.policy)})


def test_a_missing_annotation_is_named() -> None:
    bare = dataclasses.replace(FORWARD.batch, static={})
    with pytest.raises(MethodError, match="scorer 'given' needs an annotation"):
        made().weights(Forward(bare, FORWARD.policy))


def test_the_weight_report_says_what_was_selected() -> None:
    values = term_values([made(), made(score="uniform")], {"forget": FORWARD})
    report = weight_report(values + term_values([values[0].term], {"forget": FORWARD}))  # two micro-batches
    assert report == {"scored": 8.0, "selected": 4.0, "weight": 3.0, "gold": 2.0, "flat": 0.0, "empty": 0.0}


def test_the_weight_report_counts_flat_and_empty_answers() -> None:
    nothing = dataclasses.replace(FORWARD.batch, static={"given": torch.zeros(1, 5)})
    forward = Forward(nothing, FORWARD.policy)
    report = weight_report(term_values([made(select="threshold:value=0")], {"forget": forward}))
    assert (report["selected"], report["empty"], report["flat"]) == (0.0, 1.0, 0.0)
    assert math.isnan(report["gold"])
    report = weight_report(term_values([made(select="top")], {"forget": forward}))
    assert (report["selected"], report["empty"], report["flat"]) == (4.0, 0.0, 1.0)
    assert weight_report(term_values([made()], {"forget": forward}))["empty"] == 1.0


def test_terms_are_built_from_a_preset_or_written_out() -> None:
    forget, retain = build_terms(Method(preset="etw"))
    assert (str(forget.objective), str(forget.score), str(forget.select)) == ("ga", "entropy", "normalised")
    assert (forget.coef, forget.on, retain.on, retain.coef) == (0.1, "forget", "retain", 1.0)
    (single,) = build_terms(Method(terms=(TermSpec(objective="npo", score="gold", select="top:r=0.2", coef=3.0),)))
    assert (str(single.objective), single.coef, single.control) == ("npo", 3.0, "none")


def test_factors_replace_those_of_the_preset() -> None:
    forget, retain = build_terms(Method(preset="etw", forget_coef=0.7, retain_coef=2.0))
    assert (forget.coef, retain.coef) == (0.7, 2.0)


@pytest.mark.parametrize("control", ["grad-matched", "update-matched"])
def test_a_matched_control_reads_all_tokens_asks_no_score_and_leaves_none_unselected(control: Any) -> None:
    """TIF without an annotation: its score would be refused; the words that it would preserve are none."""
    unwanted, general = build_terms(Method(preset="tif", control=control))
    ids = torch.zeros(1, 4, dtype=torch.long)
    batch = Batch(ids, torch.tensor([[1, 1, 1, -100]]), ids == 0, ("a",))
    assert unwanted.weights(Forward.before(batch)).value.tolist() == [[1, 1, 1, 0]]
    assert not general.weights(Forward.before(batch)).mask.any()
    counts = [term.count_before(batch) for term in build_terms(Method(preset="etw", control=control))]
    assert [None if count is None else count.tolist() for count in counts] == [[3], [3]]


def test_a_control_replaces_weights_of_forget_terms_only() -> None:
    forget, retain = build_terms(Method(preset="wga", control="shuffle"))
    assert (forget.control, retain.control) == ("shuffle", "none")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Method(), "no method was given"),
        (Method(preset="etww"), "unknown preset 'etww'. Did you mean: etw"),
        (Method(terms=(TermSpec(objective="nll", on="retain"),)), "nothing would be forgotten"),
        (Method(terms=(TermSpec(objective="ga", tokens="all"),), control="random"), "this method has none"),
        (Method(terms=(TermSpec(objective="gaa"),)), "unknown objective 'gaa'"),
    ],
)
def test_a_method_that_does_not_fit_says_why(method: Method, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        build_terms(method)


def test_coupled_terms_are_named() -> None:
    assert coupled(build_terms(Method(preset="graddiff"))) == []
    batchwise = [o for o in h.OBJECTIVES if o.couples == "batch"]
    assert coupled([h.term(o) for o in batchwise]) == [f"forget/{o}" for o in batchwise]


def test_an_objective_counts_what_it_says_it_counts() -> None:
    objective: Objective
    for objective in h.OBJECTIVES:
        forward = h.forward_of(h.Leaves(RECORDS), BATCH, objective.needs, h.reference_of(RECORDS))
        for name in ("raw", "top"):
            weights: Weights = registry.build("selector", name)(
                torch.rand(BATCH.targets.shape) * BATCH.mask, BATCH.mask
            )
            assert objective.count(weights, BATCH.mask).equal(objective(forward, weights).count)


@pytest.mark.parametrize("objective", ["kl:positions=all", "undial:positions=predicting"])
def test_weights_that_nothing_reads_are_refused(objective: str) -> None:
    build_term(TermSpec(objective=objective), Method())
    for more in ({"score": "entropy", "select": "normalised"}, {"select": "top"}, {"modulate": "confidence"}):
        with pytest.raises(MethodError, match="reads prompt and padding too, and no weights"):
            build_term(TermSpec.model_validate({"objective": objective, **more}), Method())
    build_term(TermSpec(objective=objective.partition(":")[0], score="entropy", select="top"), Method())
