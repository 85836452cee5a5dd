"""Every method as text and back, and as documentation."""

from __future__ import annotations

import dataclasses
import doctest
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge import registry
from expunge.errors import MethodError
from tests.contract import harness as h

KINDS: tuple[registry.Kind, ...] = ("scorer", "selector", "objective")
NAMES = [(kind, name) for kind in KINDS for name in registry.names(kind)]
named = pytest.mark.parametrize(("kind", "name"), NAMES, ids=[f"{kind}-{name}" for kind, name in NAMES])


def _settings(cls: type) -> st.SearchStrategy[dict[str, Any]]:
    """Settings of a method, drawn from the types of its fields."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return st.fixed_dictionaries({}, optional={f.name: st.from_type(hints[f.name]) for f in dataclasses.fields(cls)})


@st.composite
def _made(draw: st.DrawFn, kind: registry.Kind) -> Any:
    cls = registry.get(kind, draw(st.sampled_from(registry.names(kind))))
    try:
        return cls(**draw(_settings(cls)))
    except MethodError:  # not finite, or settings that exclude each other
        return cls()


@pytest.mark.parametrize(
    ("kind", "made"),
    [(kind, made) for kind in KINDS for made in h.methods(kind, variants=True)],
    ids=lambda value: str(value),
)
def test_build_and_str_are_inverse(kind: registry.Kind, made: Any) -> None:
    assert registry.build(kind, str(made)) == made
    assert str(registry.build(kind, str(made))) == str(made)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_build_and_str_are_inverse_for_drawn_settings(kind: registry.Kind, data: st.DataObject) -> None:
    made = data.draw(_made(kind))
    assert registry.build(kind, str(made)) == made
    assert registry.build(kind, {"name": made.spec_name, **dataclasses.asdict(made)}) == made


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), _made("scorer")), min_size=2, max_size=4))
def test_sums_of_scores_are_text_and_back(parts: list[tuple[float, Any]]) -> None:
    made = registry.build("scorer", "+".join(f"{c}*{scorer}" for c, scorer in parts))
    assert made.parts == tuple(parts)
    assert registry.build("scorer", str(made)) == made


@settings(max_examples=40, deadline=None)
@given(st.lists(_made("selector"), min_size=2, max_size=4))
def test_chains_of_selectors_are_text_and_back(parts: list[Any]) -> None:
    made = registry.build("selector", " > ".join(map(str, parts)))
    assert made.parts == tuple(parts)
    assert registry.build("selector", str(made)) == made


@named
def test_a_method_says_where_it_comes_from_and_shows_an_example_that_runs(kind: registry.Kind, name: str) -> None:
    cls = registry.get(kind, name)
    doc = cls.__doc__ or ""
    first = doc.strip().splitlines()[0]
    assert first.endswith((".", ":")) or len(doc.strip().splitlines()[1].strip()) > 0, "the first line is a fact"
    assert not first.startswith(cls.__name__ + "("), "the docstring that dataclass writes says nothing"
    assert "Source:" in doc, "say where the method is published, or that it is ours"
    examples = [test for test in doctest.DocTestFinder().find(cls, name) if test.examples]
    assert examples, "show a worked example"


@named
def test_settings_are_checked_when_a_method_is_made(kind: registry.Kind, name: str) -> None:
    cls = registry.get(kind, name)
    with pytest.raises(MethodError, match="setting"):
        registry.build(kind, {"name": name, "no_such_setting": 1})
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if hints[field.name] in (float, int):
            for value in ("much", float("nan"), float("inf"), None):
                with pytest.raises(MethodError, match=f"{name}.*{field.name}"):
                    cls(**{field.name: value})
        if typing.get_origin(hints[field.name]) is typing.Literal:
            with pytest.raises(MethodError, match=f"{name}.*{field.name}"):
                cls(**{field.name: "no such choice"})
