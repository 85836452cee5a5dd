"""Settings and environment of the runs, what is absent, and the same with forget text taken out."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from expunge.report import curves, words
from expunge.report.collect import Column, View, mapping

_ABSOLUTE = re.compile(r"(?:(?<=[\s'\"(=])|^)(?:[A-Za-z]:|~)?[\\/](?:[^\\/\s'\"]+[\\/])+", re.MULTILINE)
_MAX_RECIPE = 40_000
_NAMES = ("name", "output_dir", "overwrite")


def context(seen: Sequence[View], redact: bool) -> dict[str, Any]:
    """What the template needs for settings, environment and the list of what is absent."""
    return {
        "recipes": [_recipe(view) for view in seen],
        "settings_differ": differing(seen),
        "facts": environment(seen, redact),
        "absent": [(view.name, view.absent) for view in seen if view.absent],
    }


def differing(seen: Sequence[View]) -> list[tuple[str, list[str]]]:
    """(dotted setting, its value in each run) where the recipes differ, but for names and folders."""
    flat = [_flatten(view.settings or {}) for view in seen]
    if sum(bool(one) for one in flat) < 2:
        return []
    rows = []
    for key in dict.fromkeys(key for one in flat for key in one):
        values = [_value(one.get(key)) if one else "" for one in flat]
        if (
            key not in ("name", "output_dir", "overwrite")
            and len({value for value, one in zip(values, flat, strict=True) if one}) > 1
        ):
            rows.append((key, values))
    return rows


def environment(seen: Sequence[View], redact: bool = False) -> list[tuple[str, list[str]]]:
    """(fact, one value a run, or a single one where all agree)."""
    each = [_facts(view, redact) for view in seen]
    rows = []
    for key in dict.fromkeys(key for one in each for key in one):
        values = [one.get(key, "") for one in each]
        rows.append((key, values[:1] if len(set(values)) == 1 else values))
    return rows


def redacted(seen: Sequence[View], models: Sequence[Column], guard: words.Guard) -> tuple[list[View], list[Column]]:
    """The same runs with names, settings, errors and messages free of forget text and of folders of this machine.

    Their tables still hold text: who draws the page must not show it.
    """
    clean = cleaner(guard)
    names = {view.name: f"run {place + 1}" if guard.finds(view.name) else view.name for place, view in enumerate(seen)}
    views = [_redacted(view, names[view.name], clean) for view in seen]
    renamed = []
    for model in models:
        others = {f"{model.role} of {old}": f"{model.role} of {new}" for old, new in names.items()}
        name = (names if model.role == "run" else others).get(model.name, model.name)
        renamed.append(dataclasses.replace(model, name=name))
    return views, renamed


def _redacted(view: View, name: str, clean: Callable[[Any], Any]) -> View:
    settings = clean(view.settings)
    return dataclasses.replace(
        view,
        name=name,
        manifest=clean(view.manifest),
        log=clean(view.log),
        own=dataclasses.replace(view.own, name=name),
        settings=settings,
        changed=clean(view.changed),
        recipe_text=_yaml(settings) if settings else "",
        absent=tuple(clean(view.absent)),
        verdict=clean(view.verdict),
        attacks=clean(view.attacks),
    )


def cleaner(guard: words.Guard) -> Callable[[Any], Any]:
    """What takes forget text and folders of this machine out of a tree."""

    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {clean(key): clean(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [clean(item) for item in value]
        return _ABSOLUTE.sub("…/", guard.clean(value)) if isinstance(value, str) else value

    return clean


def _recipe(view: View) -> dict[str, str]:
    short = _yaml(view.changed) if view.changed else ""
    text = view.recipe_text
    if len(text) > _MAX_RECIPE:
        text = text[:_MAX_RECIPE] + "\n# cut: the whole recipe is in the run folder"
    return {"name": view.name, "short": words.visible(short, _MAX_RECIPE), "text": words.visible(text, 2 * _MAX_RECIPE)}


def _facts(view: View, redact: bool) -> dict[str, str]:
    manifest = view.manifest
    where = mapping(manifest.get("environment"))
    found: dict[str, object] = {
        "run folder": None if redact else view.folder.path,
        "status": manifest.get("status"),
        "started": str(manifest.get("created") or "").replace("T", " ").replace("+00:00", " UTC"),
        "took": _elapsed(manifest),
        **curves.effort(view),
        "model": mapping(manifest.get("model")).get("name"),
        "model hash": mapping(manifest.get("model")).get("hash"),
    }
    for split, entry in mapping(manifest.get("data")).items():
        count, digest = mapping(entry).get("count"), mapping(entry).get("hash")
        found[f"{split} set"] = f"{count} records" + (f", {digest}" if digest else "")
    found |= {"recipe hash": manifest.get("recipe_hash"), "seed": manifest.get("seed")}
    found |= {key: where.get(key) for key in ("expunge", "python", "platform", "processors")}
    found |= mapping(where.get("packages"))
    return {key: words.visible(str(value), 300) for key, value in found.items() if value not in (None, "")}


def _elapsed(manifest: Mapping[str, Any]) -> str:
    try:
        start, end = (datetime.datetime.fromisoformat(str(manifest.get(key))) for key in ("created", "finished"))
        return curves.duration((end - start).total_seconds())
    except (ValueError, TypeError):
        return ""


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _value(value: object) -> str:
    text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
    return words.visible(text, 200)


def _yaml(tree: object) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=10_000)
