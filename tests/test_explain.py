"""Every field is explained, in words, and the JSON schema agrees with the shipped file."""

from __future__ import annotations

import json
from pathlib import Path

from expunge.explain import FieldHelp, fields, json_schema, value_at
from expunge.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent


def field(path: str) -> FieldHelp:
    return next(f for f in fields() if f.path == path)


def test_every_field_has_a_meaning_and_a_type() -> None:
    for f in fields():
        assert f.meaning, f.path
        assert f.kind, f.path


def test_types_and_defaults_in_words() -> None:
    assert field("train.adam_beta1") == FieldHelp(
        "train.adam_beta1", "number >= 0 and < 1", "0.9", "decay of AdamW's mean of gradients"
    )
    assert field("model.dtype").kind == "one of float32, bfloat16, float16"
    assert field("evaluation.limit").kind == "whole number > 0 or null"
    assert field("evaluation.limit").default == "null"
    assert field("data.forget.columns").kind == "mapping"
    assert field("method.terms").kind == "list of sections"
    assert field("method.terms[].objective").default == ""
    assert field("finetune").kind == "section or null"
    assert field("finetune.train.learning_rate").kind == "number > 0"


def test_values_of_a_recipe() -> None:
    recipe = Recipe()
    assert value_at(recipe, "train.learning_rate") == "1e-05"
    assert value_at(recipe, "evaluation.generate") == "true"
    assert value_at(recipe, "finetune.train.learning_rate") == ""


def test_the_shipped_schema_is_the_schema() -> None:
    shipped = json.loads((ROOT / "docs" / "recipe.schema.json").read_text(encoding="utf-8"))
    assert shipped == json_schema(), "run: expunge schema > docs/recipe.schema.json"
