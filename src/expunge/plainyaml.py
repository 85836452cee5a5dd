"""YAML whose unquoted values stay the text they were written as, and `a.b=c` overrides; the schema decides on types.

YAML 1.1 guesses types: `no` becomes False, `1e-5` stays text but `1.0e-5` becomes a number, `012` becomes 10 and
`1:30` becomes 90. Here only an empty value, `~` and `null` mean something (None). Explicit tags (`!!int 3`) are kept.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """SafeLoader that guesses no types and refuses a key that is given twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise ValueError(f"the key '{key.value}' is given twice, again on line {key.start_mark.line + 1}")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"(?:<<)$"), ["<"])


def parse(text: str) -> Any:
    """Mappings, lists, text and None. ValueError in one line if `text` is not YAML.

    >>> parse("{a: 1e-5, b: no, c: 012, d: null, e: '~', f: [1, 2]}")
    {'a': '1e-5', 'b': 'no', 'c': '012', 'd': None, 'e': '~', 'f': ['1', '2']}
    """
    try:
        return yaml.load(text, Loader=_Loader)  # nosec B506: a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f" on line {mark.line + 1}, column {mark.column + 1}"
        raise ValueError(f"not valid YAML{where}: {' '.join(str(error.problem).split())}") from None
    except RecursionError:
        raise ValueError("not valid YAML: nested too deeply") from None
    except Exception as error:  # PyYAML leaks KeyError, IndexError, AttributeError, ... on malformed scalars
        raise ValueError(f"not valid YAML: {' '.join(str(error).split())}") from None


def read(path: Path) -> dict[str, Any]:
    """The mapping in a file; ValueError in one line if there is no such file or something else is in it."""
    if not path.is_file():
        found = f"'{path}' is a folder" if path.is_dir() else f"there is no file '{path}'"
        raise ValueError(f"{found}; a recipe is a YAML file")
    try:
        tree = parse(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if tree is not None and not isinstance(tree, dict):
        raise ValueError(
            f"expected a mapping of settings, found {'a list' if isinstance(tree, list) else 'plain text'}"
        )
    return tree or {}


def override(tree: dict[Any, Any], assignment: str) -> None:
    """Sets one `a.b=value` in `tree`; ValueError if it does not fit.

    A number in the path picks an item of a list; dashes count as underscores, and leading ones are ignored.

    >>> tree = {"train": {"seed": "1"}, "terms": [{"coef": "1"}]}
    >>> override(tree, "--train.learning-rate=1e-5"); override(tree, "terms.0.coef=2"); tree
    {'train': {'seed': '1', 'learning_rate': '1e-5'}, 'terms': [{'coef': '2'}]}
    """
    key, equals, text = assignment.partition("=")
    *parents, last = key.strip().lstrip("-").replace("-", "_").split(".")
    if not equals or not all((*parents, last)):
        raise ValueError(f"'{assignment}': expected key=value, such as train.learning_rate=1e-5")
    try:
        value = parse(text)
    except ValueError:
        value = text
    node: Any = tree
    for part in parents:
        node = _step_down(node, part, assignment)
    if isinstance(node, list):
        node[_position(node, last, assignment)] = value
    else:
        node[last] = value


def _step_down(node: Any, part: str, assignment: str) -> Any:
    if isinstance(node, list):
        child = node[_position(node, part, assignment)]
    else:
        child = node[part] = {} if node.get(part) is None else node[part]
    if not isinstance(child, (dict, list)):
        raise ValueError(f"'{assignment}': '{part}' is {child!r:.60} and holds no settings")
    return child


def _position(node: list[Any], part: str, assignment: str) -> int:
    if not (part.isdecimal() and part.isascii() and int(part) < len(node)):
        raise ValueError(f"'{assignment}': the list there has {len(node)} items, counted from 0; found '{part}'")
    return int(part)
