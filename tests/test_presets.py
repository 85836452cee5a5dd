"""Named methods: every one builds, says where it is from, and is what its paper says."""

from __future__ import annotations

from typing import Any

import pytest

from expunge import presets, recipe
from expunge.errors import MethodError, RecipeError
from expunge.recipe import Method
from expunge.resolve import resolve
from expunge.terms import build_terms

named = pytest.mark.parametrize("name", presets.PRESETS)

Row = tuple[str, str, str, str, str, float]
RETAIN: Row = ("nll", "retain", "uniform", "raw", "selected", 1.0)


CRITICAL = "0.5*masking+0.5*frozen"
SELECTED = "ga:denominator=selected"


def forget(objective: str, score: str = "uniform", select: str = "raw", coef: float = 1.0) -> Row:
    return (objective, "forget", score, select, "selected", coef)


TABLE: dict[str, list[Row]] = {
    "ga": [forget("ga")],
    "graddiff": [forget("ga"), RETAIN],
    "graddiff-kl": [forget("ga"), ("kl", *RETAIN[1:])],
    "npo": [forget("npo"), RETAIN],
    "simnpo": [forget("simnpo", coef=0.125), RETAIN],
    "rmu": [forget("rmu"), ("activation", *RETAIN[1:])],
    "wga": [forget("ga", "confidence"), RETAIN],
    "satimp": [forget("ga", "satimp"), (*RETAIN[:-1], 0.1)],
    "satimp-ou": [forget("ga", "satimp:beta2=1.0", coef=0.1), RETAIN],
    "simsat": [forget("ga", "confidence:beta=5.0"), (*RETAIN[:-1], 0.1)],
    "simimp": [forget("ga", "satimp:beta1=0.0,beta2=1.0"), (*RETAIN[:-1], 0.1)],
    "simsat-hard": [forget("ga", "confidence", "top"), (*RETAIN[:-1], 0.1)],
    "simimp-hard": [forget("ga", "satimp:beta1=0.0,beta2=1.0", "top"), (*RETAIN[:-1], 0.1)],
    "tnpo": [forget("ga", "tnpo"), RETAIN],
    "wtnpo": [forget("ga", "tnpo:alpha=1.5"), RETAIN],
    "seul": [forget(SELECTED, "frozen:score=surprisal", "threshold > fill"), RETAIN],
    "su-llm": [forget(SELECTED, "assistant", "threshold > expand"), RETAIN],
    "su-ngram": [forget(SELECTED, "ngram", "threshold > expand"), RETAIN],
    "scn": [forget(SELECTED, "given", "threshold:value=0.0"), RETAIN],
    "sce": [forget(SELECTED, "given", "threshold:value=0.0"), RETAIN],
    "etw": [forget("ga", "entropy", "normalised", 0.1), RETAIN],
    "asu-gap": [forget("ga", "attention-gap", "normalised"), RETAIN],
    "influence": [forget(SELECTED, "influence", "top"), RETAIN],
    "dto": [
        forget("ga", "delta", "top:r=0.2"),
        ("kl", "forget", "delta", "top:r=0.2", "unselected", 1.0),
    ],
    "bss": [forget("ga", coef=0.7), forget("alternative:alternatives=own", coef=-0.3), RETAIN],
    "atwu": [forget("saturated", "learned", coef=5.0), (*RETAIN[:-1], 0.5)],
    "idk-nll": [forget("alternative"), RETAIN],
    "idk-dpo": [forget("dpo"), RETAIN],
    "altpo": [forget("dpo:beta=0.05,alternatives=own"), RETAIN],
    "undial": [forget("undial")],
    "undial-ou": [forget("undial:positions=predicting")],
    "ceu": [forget("ceu:denominator=selected", select="skip")],
    "pdu": [forget("flatten"), RETAIN],
    "palu": [
        forget("flatten:top_k=50,of=reference,denominator=selected", "given", "threshold:value=0.0 > onset"),
        ("kl:direction=reverse,denominator=selected", "forget", "given", "threshold:value=0.0", "unselected", 1.0),
        RETAIN,
    ],
    "asu": [forget("kl:attention=2.4"), RETAIN],
    "task-vector": [forget("nll")],
    "ihl": [forget("ihl"), RETAIN],
    "jensun": [forget("jensun", coef=0.5), ("js", *RETAIN[1:-1], 0.5)],
    "bst": [forget("bst"), RETAIN],
    "tokenunlearn-hard": [forget("ga", CRITICAL, "top"), RETAIN],
    "tokenunlearn-hard-wga": [forget("ga", CRITICAL, "top"), RETAIN],
    "tokenunlearn-hard-npo": [forget("npo", CRITICAL, "top"), RETAIN],
    "tokenunlearn-hard-simnpo": [forget("simnpo", CRITICAL, "top", 0.125), RETAIN],
    "tokenunlearn-hard-rmu": [forget("rmu", CRITICAL, "top"), ("activation", *RETAIN[1:])],
    "tokenunlearn-soft": [forget("ga", CRITICAL, "normalised"), RETAIN],
    "tokenunlearn-soft-npo": [forget("npo", CRITICAL, "normalised"), RETAIN],
}
"""Objective, side, score, selector, tokens and factor of each term, written out from the papers and the peer's code."""


@pytest.mark.parametrize("name", TABLE)
def test_a_preset_is_what_its_paper_says(name: str) -> None:
    terms = build_terms(Method(preset=name))
    assert [(str(t.objective), t.on, str(t.score), str(t.select), t.tokens, t.coef) for t in terms] == TABLE[name]


def test_pdu_bounds_the_retain_loss() -> None:
    constraint = build_terms(Method(preset="pdu"))[1].constraint
    assert constraint is not None
    assert constraint.model_dump() == {"at_most": 0.3, "start": 100.0, "rate": 5.0, "warmup_epochs": 5.0}
    with pytest.raises(MethodError, match="constraint, which finds its factor, and coef or retain_coef 2"):
        build_terms(Method(preset="pdu", retain_coef=2.0))


def test_tokenunlearn_takes_alpha_and_r_and_keeps_the_base_methods_own_weight() -> None:
    changed = build_terms(Method(preset="tokenunlearn-hard-wga:alpha=0.25,r=0.1"))[0]
    assert (str(changed.score), str(changed.select)) == ("0.25*masking+0.75*frozen", "top:r=0.1")
    assert str(changed.modulate) == "confidence"
    assert build_terms(Method(preset="tokenunlearn-hard"))[0].modulate is None
    assert not changed.score.needs.policy, "known before the forward pass"
    with pytest.raises(MethodError, match="alpha must be from 0 to 1"):
        presets.get("tokenunlearn-soft:alpha=1.5")


@named
def test_every_preset_builds_and_says_where_it_is_from(name: str) -> None:
    preset = presets.get(name)
    assert preset.summary
    assert "arXiv" in preset.source
    assert not preset.summary.endswith(".")
    assert any(t.on == "forget" for t in build_terms(Method(preset=name)))
    for found in preset.published:
        assert found.source
        asked = resolve({"published": found.name(name)})
        assert asked.method.preset == found.spec(name)
        assert build_terms(asked.method)


def test_published_settings_lie_beneath_a_file_and_above_it_on_the_command_line() -> None:
    name = "simnpo/tofu-forget10/llama-3.2-1b"
    tree = {"published": name, "train": {"learning_rate": 2e-5, "bf16": True}}
    beneath = recipe.load(tree)
    assert (beneath.train.learning_rate, beneath.train.bf16, beneath.train.warmup_epochs) == (2e-5, True, 1.0)
    assert beneath.method.preset == "simnpo:beta=3.5,delta=1"
    assert recipe.load(beneath.model_dump(mode="json")) == beneath
    above = recipe.load(
        {"train": tree["train"], "method": {"preset": "ga"}}, [f"published={name}", "train.max_steps=7"]
    )
    assert (above.train.learning_rate, above.train.bf16, above.train.max_steps) == (5e-5, True, 7)
    assert (above.method.preset, above.published) == ("simnpo:beta=3.5,delta=1", name)
    arms = recipe.variants(recipe.load({"arms": {"a": ["published=ga/muse"], "b": ["method.preset=ga"]}}))
    assert [(v.train.lr_scheduler_type, v.train.weight_decay) for v in arms] == [("constant", 0.01), ("linear", 0.01)]


def test_published_settings_of_another_name_are_refused_with_a_suggestion() -> None:
    for tree, overrides in (({"published": "simnpo/tofu-forget5"}, []), ({}, ["published=simnpo/tofu-forget5"])):
        with pytest.raises(RecipeError, match="simnpo/tofu-forget05"):
            recipe.load(tree, overrides)


def test_a_setting_may_go_to_several_places() -> None:
    forget_term, retain_term = build_terms(Method(preset="rmu:layer=8,retain=1200"))
    assert (str(forget_term.objective), str(retain_term.objective)) == ("rmu:layer=8", "activation:layer=8")
    assert retain_term.coef == 1200


@named
def test_settings_of_a_preset_change_its_terms(name: str) -> None:
    for key in presets.get(name).settings:
        if key == "model":  # a name, tested below
            continue
        changed = build_terms(Method(preset=f"{name}:{key}=" + ("5" if key in ("n", "layer") else "0.123")))
        assert changed != build_terms(Method(preset=name)), key
        with pytest.raises(MethodError, match=r"number|integer"):
            build_terms(Method(preset=f"{name}:{key}=much"))


def test_the_assistant_of_su_is_named_in_the_preset() -> None:
    assert str(build_terms(Method(preset="su-llm:model=models/base"))[0].score) == "assistant:model=models/base"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("npoo", "unknown preset 'npoo'. Did you mean: npo"),
        ("ga:beta=1", "preset 'ga' has no settings; found 'beta'. Write its terms"),
        ("tif:bta=1", "unknown setting of preset 'tif' 'bta'. Did you mean: beta"),
        ("tif:beta", "preset 'tif:beta': expected key=value after ':', found 'beta'"),
    ],
)
def test_a_preset_that_is_not_there_says_so(spec: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        presets.get(spec)


def test_presets_are_data_that_cannot_be_changed_by_who_uses_them() -> None:
    first: Any = presets.get("etw").terms[0]
    copy = dict(first)
    copy["coef"] = 99.0
    assert presets.get("etw").terms[0]["coef"] == 0.1
