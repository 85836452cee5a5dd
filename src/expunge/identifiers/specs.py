"""From what a command line says to an identifier."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from expunge import registry
from expunge.errors import MethodError
from expunge.identifiers.finding import Identifier


def build(spec: registry.Spec, settings: Iterable[str] = ()) -> Identifier:
    """The identifier of a spec, with further settings `key=value` that may hold commas and quotes as they are.

    >>> str(build("regex", [r"pattern=[0-9]{2,4}"]))
    'regex:pattern="[0-9]{2,4}"'
    """
    given: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise MethodError(f"setting '{setting}' is not key=value")
        given[key.strip()] = value
    if not given:
        return cast(Identifier, registry.build("identifier", spec))
    return cast(Identifier, registry.build("identifier", {**registry.mapping("identifier", spec), **given}))
