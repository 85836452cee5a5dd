"""Published methods as points of the algebra: {objective, on, score, select, tokens, coef} terms, nothing else.

A preset is named by its key, `tif`, or with settings of its own, `tif:beta=0.3,preserve=0.005`; settings that were
published for a benchmark and a model by `npo/tofu`. One file a family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from expunge.errors import MethodError, unknown
from expunge.presets import answers, ascent, selection, spans, states
from expunge.presets.preset import Preset, Published, Term

__all__ = ["PRESETS", "Preset", "Published", "Term", "get", "published", "with_setting"]

PRESETS: Mapping[str, Preset] = {
    **ascent.PRESETS,
    **selection.PRESETS,
    **spans.PRESETS,
    **states.PRESETS,
    **answers.PRESETS,
}


def get(spec: str) -> Preset:
    """The preset of that name, its settings filled in; MethodError with a suggestion if there is none.

    >>> [term["objective"] for term in get("tif:beta=0.3").terms]
    ['lpl:beta=0.3', 'preserve']
    """
    name, _, rest = spec.partition(":")
    if name.strip() not in PRESETS:
        raise MethodError(unknown("preset", name.strip(), PRESETS))
    preset = PRESETS[name.strip()]
    for pair in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            raise MethodError(f"preset '{spec}': expected key=value after ':', found '{pair}'")
        if not preset.settings:
            raise MethodError(f"preset '{name}' has no settings; found '{key}'. Write its terms to change them")
        if key not in preset.settings:
            raise MethodError(unknown(f"setting of preset '{name}'", key, preset.settings))
        for place in preset.settings[key].split():
            preset = replace(preset, terms=_set(preset.terms, place, f"preset '{name}': {key}", value))
    return preset


def published(name: str) -> dict[str, Any]:
    """What settings that were published say in a recipe, by dotted name; MethodError with a suggestion if unknown.

    >>> found = published("simnpo/tofu-forget10/llama-3.2-1b")
    >>> found["method.preset"], found["train.learning_rate"]
    ('simnpo:beta=3.5,delta=1', 5e-05)
    """
    known = {found.name(preset): (preset, found) for preset, own in PRESETS.items() for found in own.published}
    if name not in known:
        raise MethodError(unknown("published settings", name, known))
    preset, found = known[name]
    return found.recipe(preset)


def _set(terms: tuple[Term, ...], place: str, what: str, value: str) -> tuple[Term, ...]:
    """The terms with `value` at 'TERM.coef' or 'TERM.score.mix', or as a setting of a spec at 'TERM.objective.KEY'."""
    index, part, *key = place.split(".")
    term = dict(terms[int(index)])
    if key == ["mix"]:
        share = _number(what, value)
        if not 0 <= share <= 1:
            raise MethodError(f"{what} must be from 0 to 1 (got '{value}')")
        first, second = (score.partition("*")[2] for score in term[part].split("+"))
        term[part] = f"{share:g}*{first}+{1 - share:g}*{second}"
    elif key:
        term[part] = with_setting(term[part], key[0], value)
    else:
        term[part] = _number(what, value)
    return (*terms[: int(index)], term, *terms[int(index) + 1 :])


def _number(what: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise MethodError(f"{what} must be a number (got '{value}')") from None


def with_setting(spec: str, key: str, value: str) -> str:
    """The spec with one setting as given, in place of the one it may have.

    >>> with_setting("npo", "beta", "0.2"), with_setting("satimp:beta1=5,beta2=0.1", "beta2", "1")
    ('npo:beta=0.2', 'satimp:beta1=5,beta2=1')
    """
    name, _, rest = spec.partition(":")
    settings = dict(pair.split("=", 1) for pair in rest.split(",") if pair) | {key: value}
    return f"{name}:" + ",".join(f"{k}={v}" for k, v in settings.items())
