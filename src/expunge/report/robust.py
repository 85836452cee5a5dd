"""The answer to 'robust?': what attacks brought back, from attacks.json in the run folders, the worst attack first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.report import words
from expunge.report.collect import Cell, View, mapping, number

QUESTION, ASKS = "Robust?", "Does it stay forgotten under attack?"
MANY = 4
"""More runs than these are counted, not listed."""
UNTESTED = "Not tested: no attack was run."
_OUTCOMES = {
    "leaks": "leaks under {flagged}",
    "holds": "holds: none of {tried} brought back more than {margin:g} above what was never known",
    "undecided": "undecided: {undecided} had nothing to be compared with, or too few people",
}


@dataclass(frozen=True)
class Attack:
    """The attack that brings back most: its name, what its number is, and the number of each model by (role, name)."""

    name: str
    measure: str
    cells: Mapping[tuple[str, str], Cell]


def worst(seen: Sequence[View]) -> Attack | None:
    """The attack with the largest gap to what was never known, in any of the runs; None if no run was attacked."""
    ranked = [
        (_gap(entry), name)
        for view in seen
        for name, entry in _attacks(view).items()
        if entry.get("leak") is not False and number(entry.get("value")) is not None
    ]
    if not ranked:
        return None
    name = max(ranked, key=lambda pair: pair[0])[1]
    entries = {view.name: entry for view in seen if (entry := _attacks(view).get(name)) is not None}
    cells: dict[tuple[str, str], Cell] = {}
    for role in ("target", "oracle"):
        value = next((found for entry in entries.values() if (found := number(entry.get(role))) is not None), None)
        if value is not None:
            cells[role, role] = Cell(value)
    for run, entry in entries.items():
        value = number(entry.get("value"))
        if value is not None:
            ends = number(entry.get("low")), number(entry.get("high"))
            few = entry.get("optimistic") is True
            cells["run", run] = Cell(value, *ends, higher="worse", optimistic=few)
    return Attack(name, str(next(iter(entries.values())).get("measure") or ""), cells)


def answer(seen: Sequence[View]) -> str:
    """'Leaks under relearn and sampling.'; with the name of each run where there are several; '' without attacks."""
    told = [(view.name, text) for view in seen if (text := _outcome(view))]
    if len(seen) == 1:
        return "".join(f"{text[0].upper()}{text[1:]}." for _, text in told)
    if len(told) <= MANY:
        return " ".join(f"{name}: {text}." for name, text in told)
    outcomes = Counter(str(mapping(view.attacks.get("robust")).get("outcome")) for view in seen)
    parts = [f"{outcomes[name]} of {len(seen)} runs: {name}." for name in _OUTCOMES if outcomes[name]]
    return " ".join([*parts, f"{outcomes['None']} not attacked."] if outcomes["None"] else parts)


def _outcome(view: View) -> str:
    found = mapping(view.attacks.get("robust"))
    pattern = _OUTCOMES.get(str(found.get("outcome")))
    if pattern is None:
        return ""
    names = {key: words.joined(_names(found.get(key))) for key in ("flagged", "undecided")}
    tried = len(_names(found.get("tried")))
    return pattern.format(
        **names, tried=f"{tried} attack{'' if tried == 1 else 's'}", margin=number(found.get("margin")) or 0.0
    )


def _names(value: object) -> list[str]:
    return list(map(str, value)) if isinstance(value, list) else []


def _attacks(view: View) -> dict[str, Mapping[str, Any]]:
    return {str(name): mapping(entry) for name, entry in mapping(view.attacks.get("attacks")).items()}


def _gap(entry: Mapping[str, Any]) -> float:
    gap = number(entry.get("gap"))
    return gap if gap is not None else number(entry.get("value")) or 0.0
