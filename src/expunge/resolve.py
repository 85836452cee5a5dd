"""A recipe with its methods: one call finds the faults of the schema and of every spec together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from expunge import presets, recipe, registry, terms
from expunge.errors import MethodError, RecipeError
from expunge.recipe import Method, Recipe, TermSpec
from expunge.registry import Kind

_SPECS: Mapping[str, Kind] = {"objective": "objective", "score": "scorer", "select": "selector", "modulate": "scorer"}


def resolve(
    source: str | Path | Mapping[str, Any] | None, overrides: Iterable[str] = (), verb: recipe.Verb | None = None
) -> Recipe:
    """The recipe, ready for `verb` ('run' or 'finetune'); RecipeError names every fault, those of its specs included.

    Plugins that the recipe names are loaded first. With `verb` given, what that verb needs must be there too.
    """
    found = recipe.load(source, overrides, also=method_faults)
    faults = [fault for variant in recipe.variants(found) for fault in _variant_faults(found, variant, verb)]
    if faults:
        name = str(source) if isinstance(source, (str, Path)) else "recipe"
        raise RecipeError(list(dict.fromkeys(faults)), name)
    return found


def _variant_faults(whole: Recipe, variant: Recipe, verb: recipe.Verb | None) -> list[str]:
    """What a single run of the recipe still lacks for `verb`; named after its arm if the recipe has arms."""
    faults = recipe.missing(variant, verb) if verb is not None else []
    if not whole.arms:
        return faults
    return [f"arms.{variant.name}: {fault}" for fault in [*method_faults(variant.method, variant.plugins), *faults]]


def method_faults(method: Method, plugins: Iterable[str] = ()) -> list[str]:
    """What is wrong with the names and settings in a method section; empty if it can be built, or says nothing yet."""
    faults = list(_plugin_faults(plugins))
    if method.preset is not None and method.preset not in presets.PRESETS:
        return [*faults, *_fault("method.preset", lambda: presets.get(str(method.preset)))]
    for place, spec in enumerate(method.terms):
        faults += _term_faults(f"method.terms.{place}", spec)
    if not faults and (method.preset is not None or method.terms):
        faults += _fault("method", lambda: terms.build_terms(method))
    return faults


def _term_faults(path: str, spec: TermSpec) -> Iterator[str]:
    for key, kind in _SPECS.items():
        text = getattr(spec, key)
        if text is not None:
            yield from _fault(f"{path}.{key}", lambda kind=kind, text=text: registry.build(kind, text))


def _plugin_faults(plugins: Iterable[str]) -> Iterator[str]:
    for plugin in plugins:
        yield from _fault("plugins", lambda plugin=plugin: registry.load_plugin(plugin))


def _fault(path: str, build: Any) -> Iterator[str]:
    try:
        build()
    except MethodError as error:
        yield f"{path}: {error}"
