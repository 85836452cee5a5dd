"""The inspector: one self-contained HTML page about an annotation, or two side by side, every record with its spans."""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from expunge import runfolder
from expunge.data import agreement
from expunge.data.agreement import Units
from expunge.data.records import Record
from expunge.errors import DataError
from expunge.report import shell, spans
from expunge.report.spans import Shown

_MEASURES = (
    ("precision", "Precision", "of what {first} marks, {second} marks too"),
    ("recall", "Recall", "of what {second} marks, {first} marks too"),
    ("f1", "F1", "their harmonic mean"),
    ("jaccard", "Jaccard", "of what either marks, both mark"),
    ("kappa", "Cohen's kappa", "agreement beyond chance"),
)


def render(
    out: str | Path,
    records: Sequence[Record],
    shown: Sequence[Shown],
    *,
    units: Units = agreement.words,
    unit: str = "words",
) -> Path:
    """The HTML file `out`, below 5 MB, about the records that one or two annotations cover.

    Shares are of `units`: words between white space, or `agreement.tokens(encoder)` for a tokenizer's tokens (say so
    in `unit`). Texts that are too long for the page are cut, and records thinned evenly if that is not enough; the page
    says so. It loads nothing, and text in it is only ever text. DataError if the annotations cover none of the records.
    """
    if not 1 <= len(shown) <= 2:
        raise DataError(f"the inspector shows one annotation or two side by side; {len(shown)} were given.")
    covered = [record for record in records if any(record.id in one.spans for one in shown)]
    if not covered:
        raise DataError(f"annotation '{shown[0].name}' covers none of the {len(records)} records.")
    facts = spans.overview(covered, shown, units)
    tables = _agreement(covered, shown, units, unit) if len(shown) == 2 else []
    packed = spans.pack(covered, shown, units)
    css, js = shell.asset("page.css") + shell.asset("inspector.css"), shell.asset("inspector.js")
    context = {
        "policy": shell.policy(css, js),
        "css": Markup(css),  # nosec B704 - our own file
        "js": Markup(js),  # nosec B704 - our own file
        "data": shell.embedded({**packed, "unit": unit}),
        "version": importlib.metadata.version("expunge"),
        "title": " against ".join(one.name for one in shown),
        "kicker": "Annotation" if len(shown) == 1 else "Two annotations of the same records",
        "lede": _lede(facts, tables, unit),
        "notes": _notes(facts, len(records), packed),
        "facts": facts,
        "about": [_about(fact) for fact in facts],
        "measures": [(key, name, _where(text, shown)) for key, name, text in _MEASURES],
        "agreement": tables,
        "phrases": spans.phrases(covered, shown),
        "unit": unit,
        "number": _number,
        "percent": _percent,
    }
    target = Path(out).expanduser().resolve()
    with runfolder.replacing(target) as stream:
        stream.write(shell.template("inspector.html.j2").render(context).encode("utf-8", "replace"))
    return target


def _agreement(records: Sequence[Record], shown: Sequence[Shown], units: Units, unit: str) -> list[dict[str, Any]]:
    try:
        return spans.agree(records, shown, {unit: units, "characters": agreement.characters})
    except DataError:  # no record that both cover: shown all the same, each beside an empty place
        return []


def _lede(facts: Sequence[Mapping[str, Any]], tables: Sequence[Mapping[str, Any]], unit: str) -> str:
    shares = [_percent(fact["marked"] / fact["units"] if fact["units"] else 0.0) for fact in facts]
    if len(facts) == 1:
        fact = facts[0]
        return (
            f"{_count(fact['spans'], 'span')} in {_count(fact['records'], 'record')}: "
            f"{shares[0]} of the {unit} are called unwanted."
        )
    first, second = (f"{fact['name']} calls {share}" for fact, share in zip(facts, shares, strict=True))
    if not tables:
        return f"{first} of the {unit} unwanted and {second}. They have no record in common."
    together = _percent(tables[0]["jaccard"])
    return f"{first} of the {unit} unwanted and {second}. Of what either marks, both mark {together}."


def _notes(facts: Sequence[Mapping[str, Any]], total: int, packed: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader must know about gaps, each with the filter that shows its records: none, mid-word, thinned, cut."""
    notes = []
    for place, fact in enumerate(facts):
        prefix = f"{fact['name']}: " if len(facts) == 2 else ""
        if fact["records"] < total:
            notes.append((f"{prefix}{_count(total - fact['records'], 'record')} of the data not annotated", ""))
        if fact["empty"]:
            notes.append((f"{prefix}nothing unwanted in {_count(fact['empty'], 'record')}", f"none{place}"))
        if fact["midword"]:
            notes.append((f"{prefix}{_count(fact['midword'], 'span')} beginning or ending inside a word", "midword"))
    if len(packed["records"]) < packed["total"]:
        notes.append((f"below: {len(packed['records']):,} of {packed['total']:,} records, evenly spaced", ""))
    cut = sum(any(record["more"]) for record in packed["records"])
    if cut:
        notes.append((f"{_count(cut, 'long text')} cut short below; the shares are of the whole", ""))
    return notes


def _about(fact: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of how an annotation came about."""
    manifest = fact["manifest"]
    if manifest is None:
        return []
    parameters = ", ".join(f"{key}={value}" for key, value in manifest.parameters.items())
    rows = [
        ("identifier", f"{manifest.identifier} {manifest.version}".strip()),
        ("settings", parameters[:300]),
        ("data", manifest.data_hash),
    ]
    return [(name, text) for name, text in rows if text]


def _where(text: str, shown: Sequence[Shown]) -> str:
    return text.format(first=shown[0].name, second=shown[-1].name)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _percent(share: float) -> str:
    return (
        "n/a"
        if math.isnan(share)
        else f"{100 * share:.0f} %"
        if share >= 0.095 or not share
        else f"{100 * share:.1f} %"
    )


def _number(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.2f}"
