"""The recipe's schema for people and for editors: every field with its path, type, default and meaning."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from expunge.recipe import Recipe

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"
_PLAIN = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
_LIMITS = {"exclusiveMinimum": "> ", "minimum": ">= ", "exclusiveMaximum": "< ", "maximum": "<= "}


@dataclass(frozen=True)
class FieldHelp:
    """One line of `expunge explain`. `kind` says the type in words; `default` is text, empty where it must be given."""

    path: str
    kind: str
    default: str
    meaning: str
    section: bool = False


def json_schema() -> dict[str, Any]:
    """The recipe as JSON schema, for editors that check and complete YAML."""
    return {"$schema": SCHEMA_ID, **Recipe.model_json_schema()}


def fields() -> list[FieldHelp]:
    """Every field of the recipe in the order of the schema; list items have `[]` in their path.

    >>> next(f for f in fields() if f.path == "train.learning_rate").kind
    'number > 0'
    """
    schema = Recipe.model_json_schema()
    return list(_walk(schema, schema["$defs"], ""))


def value_at(recipe: Recipe, path: str) -> str:
    """What a recipe holds at a dotted path, as text; empty if the section is not there.

    >>> value_at(Recipe(), "train.learning_rate"), value_at(Recipe(), "finetune.train.learning_rate")
    ('1e-05', '')
    """
    node: Any = recipe.model_dump(mode="json")
    for part in path.removesuffix("[]").split("."):
        if not isinstance(node, Mapping) or part not in node:
            return ""
        node = node[part]
    return _text(node)


def _walk(section: Mapping[str, Any], defs: Mapping[str, Any], prefix: str) -> Iterator[FieldHelp]:
    required = section.get("required", ())
    for name, field in section["properties"].items():
        path = prefix + name
        inner, is_list = _inner(field, defs)
        empty: dict[str, str] | None = {} if field.get("type") == "object" else None
        default = "" if name in required else _text(field.get("default", empty))
        if inner is None:
            yield FieldHelp(path, _kind(field), default, field.get("description", ""))
            continue
        kind = "list of sections" if is_list else "section"
        optional = kind + (" or null" if "anyOf" in field else "")
        meaning = field.get("description") or inner.get("description", "")
        yield FieldHelp(path, optional, default if "anyOf" in field or is_list else "", meaning, section=True)
        yield from _walk(inner, defs, path + ("[]." if is_list else "."))


def _inner(field: Mapping[str, Any], defs: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, bool]:
    """The section that a field holds, and whether it holds a list of them."""
    for option in field.get("anyOf", (field,)):
        is_list = option.get("type") == "array"
        target = option.get("items", {}) if is_list else option
        if "$ref" in target:
            return defs[target["$ref"].rpartition("/")[2]], is_list
    return None, False


def _kind(field: Mapping[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_kind(option) for option in field["anyOf"])
    if "enum" in field:
        return "one of " + ", ".join(map(str, field["enum"]))
    kind = field.get("type")
    if kind == "array":
        return f"list of {_kind(field['items'])}"
    if kind == "object":
        return "mapping"
    limits = " and ".join(f"{sign}{field[key]}" for key, sign in _LIMITS.items() if key in field)
    return f"{_PLAIN.get(str(kind), 'null')} {limits}".strip()


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, (bool, dict, list)):
        return json.dumps(value)
    return str(value)
