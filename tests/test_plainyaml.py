"""Unquoted values stay text, overrides land where they say, and nothing but ValueError comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.plainyaml import override, parse, read


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("012", "012"),
        ("1e-5", "1e-5"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("=", "="),
        ("", None),
        ("~", None),
        ("null", None),
        ("'null'", "null"),
        ("nullable", "nullable"),
        ("!!int 3", 3),
        ("[a, {b: }]", ["a", {"b": None}]),
    ],
)
def test_plain_values_stay_text(text: str, value: Any) -> None:
    assert parse(text) == value


def test_merge_keys_still_work() -> None:
    assert parse("x: &b {q: 1}\ny:\n  <<: *b\n  r: 2")["y"] == {"q": "1", "r": "2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "the key 'a' is given twice, again on line 2"),
        ("a: [", "on line 1"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("!!bool x", "not valid YAML"),
        ("!!int ''", "not valid YAML"),
        ("[" * 3000, "nested too deeply"),
        ("\x00", "not valid YAML"),
    ],
)
def test_faults_are_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read_says_what_is_there_instead(tmp_path: Path) -> None:
    for content, message in ((None, "there is no file"), ("- a", "found a list"), ("hello", "found plain text")):
        file = tmp_path / "r.yaml"
        if content is not None:
            file.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            read(file)
    with pytest.raises(ValueError, match="is a folder"):
        read(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(ValueError, match="utf-8"):
        read(tmp_path / "latin.yaml")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfname: x\n")
    assert read(tmp_path / "bom.yaml") == {"name": "x"}
    (tmp_path / "empty.yaml").write_text("# nothing yet\n", encoding="utf-8")
    assert read(tmp_path / "empty.yaml") == {}


def test_overrides_make_sections_and_reach_into_lists() -> None:
    tree: dict[str, Any] = {"train": None, "terms": [{"coef": "1"}, {"coef": "2"}]}
    for assignment in ("train.lr=1e-5", "--a.b-c.d=x=y", "terms.1.coef=3", "name=", "terms.0=null"):
        override(tree, assignment)
    assert tree == {
        "train": {"lr": "1e-5"},
        "a": {"b_c": {"d": "x=y"}},
        "terms": [None, {"coef": "3"}],
        "name": None,
    }


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("x", "expected key=value"),
        ("=3", "expected key=value"),
        ("a..b=3", "expected key=value"),
        ("name.x=3", "'name' is 'run' and holds no settings"),
        ("terms.2.coef=3", "has 1 items, counted from 0; found '2'"),
        ("terms.coef=3", "found 'coef'"),
        ("terms.-1=3", "found '_1'"),
    ],
)
def test_overrides_that_do_not_fit(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".+") as caught:
        override({"name": "run", "terms": [{}]}, assignment)
    assert message in str(caught.value)


@given(st.text(max_size=60))
def test_arbitrary_text_gives_a_value_or_a_value_error(text: str) -> None:
    try:
        parse(text)
    except ValueError as error:
        assert "\n" not in str(error)


@given(st.text(max_size=40))
def test_arbitrary_overrides_apply_or_are_value_errors(text: str) -> None:
    tree: dict[Any, Any] = {"a": {"b": "c"}, "l": ["x"]}
    try:
        override(tree, text)
    except ValueError as error:
        assert str(error)
