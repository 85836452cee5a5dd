"""What pydantic finds wrong, in one line a fault: the dotted path, what was expected, what was given, a near name."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxset = 2, 4, 4, 4
_CLEARER = {"model_type": "should be a mapping of settings", "tuple_type": "should be a list"}


def fault_lines(top: type[BaseModel], error: ValidationError, other_names: Mapping[str, str]) -> list[str]:
    """One line for each fault. `other_names` maps names from elsewhere to dotted paths, for suggestions."""
    return [line for e in error.errors(include_url=False) for line in _fault(top, e, other_names).splitlines()]


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section in an annotation such as `Source | None` or `tuple[TermSpec, ...]`, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (section_of(part) for part in getattr(annotation, "__args__", ()))
    return next((section for section in inner if section is not None), None)


def _fault(top: type[BaseModel], error: Any, other_names: Mapping[str, str]) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown key{_hint(top, error['loc'], other_names)}"
    if error["type"] == "missing":
        return f"{path}: must be given"
    message = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "should be")
    if error["type"] == "value_error":
        return f"{path}: {message}" if path else message
    message = _CLEARER.get(error["type"], message)
    found = "a mapping" if isinstance(error["input"], Mapping) else _SHORT.repr(error["input"])
    return f"{path or 'recipe'}: {message} (got {found})"


def _hint(top: type[BaseModel], location: tuple[Any, ...], other_names: Mapping[str, str]) -> str:
    """A nearby key of the same section, else a key of that name elsewhere, else the keys there are."""
    *parents, name = location
    here = list(_section_at(top, parents).model_fields)
    close = difflib.get_close_matches(str(name), here, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{'.'.join((*map(str, parents), close[0]))}'?"
    everywhere = {path.rpartition(".")[2]: path for path in _paths(top)} | dict(other_names)
    close = difflib.get_close_matches(str(name), everywhere, n=1, cutoff=0.8)
    if close:
        return f"; did you mean '{everywhere[close[0]]}'?"
    return f". There are: {', '.join(here)}"


def _paths(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every dotted path below a section; of two with the same last name, the first section's wins by coming last."""
    for name, field in reversed(section.model_fields.items()):
        inner = section_of(field.annotation)
        if inner is not None:
            yield from _paths(inner, f"{prefix}{name}.")
        yield prefix + name


def _section_at(top: type[BaseModel], parents: Iterable[Any]) -> type[BaseModel]:
    section = top
    for part in parents:
        field = section.model_fields.get(str(part))
        section = (section_of(field.annotation) if field is not None else None) or section
    return section
