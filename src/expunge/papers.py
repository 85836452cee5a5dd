"""The index of papers, docs/paper.md, from the docstrings of all methods and from the presets.

`python -m expunge.papers > docs/paper.md` writes it anew; a test says when that is due.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator

from expunge import combine, registry, sam
from expunge.core import Objective, Scorer, Selector
from expunge.errors import MethodError
from expunge.presets import PRESETS, Preset
from expunge.terms import require_fit, require_read

_SECTION = re.compile(r"^(Source|Differs|Relations): (.*?)(?=^(?:Source|Differs|Relations): |^\s*$|\Z)", re.M | re.S)
_ARXIV = re.compile(r"(?:arXiv )?\b(\d{4}\.\d{5})\b")

_KINDS: tuple[tuple[registry.Kind, str], ...] = (
    ("objective", "Objectives"),
    ("scorer", "Scores"),
    ("selector", "Selectors"),
)

_BY_NO_WEIGHT = ("kl:positions=all", "undial:positions=predicting")
_ORDERS = ("rank(entropy+given)", "zscore(entropy+given)")
"""Settings and sums that do not go with every selector."""

MISSING: tuple[tuple[str, str, str], ...] = (
    ("DUET", "ICLR 2026", "the prefix, the number K of logits, the threshold of the Huber loss"),
    ("SSIUU", "2509.22263", "lam, and which neurons count as negatively attributing"),
    ("FO-ZO", "ICLR 2026", "the number N of alternating steps, the size of the perturbation, its step size"),
    ("DualOptim+", "ICML 2026", "which optimiser states are shared, and how often the two sides alternate"),
    ("ALTER", "2603.01792", "how its experts are routed; `ihl` is its loss, entropy its score"),
)
"""Methods that are not here, where they are published, and what was not published of them or is not built."""


def sections(cls: type) -> dict[str, str]:
    """What a method's docstring says under Source, Differs and Relations, and its first line under ''.

    >>> sorted(sections(registry.get("objective", "undial")))
    ['', 'Differs', 'Relations', 'Source']
    """
    doc = inspect.getdoc(cls) or ""
    found = {name: " ".join(text.split()) for name, text in _SECTION.findall(doc)}
    return {"": " ".join(doc.partition("\n\n")[0].split()), **found}


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield from (
        "# Papers",
        "",
        "What is implemented, where it is published, where its settings come from, whether its numbers were held",
        "against the authors' or a peer's code, and how it differs from there. This page is made from docstrings and",
        "presets: `python -m expunge.papers > docs/paper.md`.",
        "",
        "## Presets",
        "",
        "*Parity* says what was compared: *values and gradients* with the numbers of published code on fixed inputs;",
        "*from the equation* where there was no code to run, with a derivation of its own in float64 beside it.",
        "",
    )
    yield from _table(("preset", "what", "source of its settings", "parity", "differs"), map(_preset, PRESETS.items()))
    yield from (
        "",
        "## Published settings",
        "",
        "By benchmark and model: `published: NAME` in a recipe takes them beneath its own keys, `published=NAME` on",
        "the command line above them. What they do not name is as OpenUnlearning runs the benchmark.",
        "",
    )
    yield from _table(("name", "settings", "source"), _published())
    for kind, title in _KINDS:
        yield from ("", f"## {title}", "")
        methods = ((name, registry.get(kind, name)) for name in registry.names(kind))
        yield from _table(("name", "what", "source", "differs"), map(_method, methods))
    yield from (
        "",
        "## How gradients meet",
        "",
        "`method.combine`, beside the plain sum; and where they are taken.",
        "",
    )
    meetings = {"project": combine.Project, "sago": combine.Sago, "train.sam_radius": sam.Sam}
    yield from _table(("name", "what", "source", "differs"), map(_method, meetings.items()))
    yield from (
        "",
        "## What goes with what",
        "",
        "Every objective with every selector, every score with every selector: *yes*, or why a run refuses it. Scores",
        "that may be below 0 (`influence`, and those with `signed`) are refused as weights where one is: `top`,",
        "`threshold` and `softmax` read their order. What an objective makes of weights: [the algebra](algebra.md).",
        "",
    )
    yield from _table(("", *(f"`{name}`" for name in registry.names("selector"))), _grid())
    yield from ("", "## Not here", "", "And what would have to be guessed.", "")
    yield from _table(("method", "source", "what was not found"), MISSING)


def _preset(named: tuple[str, Preset]) -> tuple[str, ...]:
    name, preset = named
    return f"`{name}`", preset.summary, preset.source, preset.parity, preset.differs


def _published() -> Iterator[tuple[str, ...]]:
    for name, preset in PRESETS.items():
        for found in preset.published:
            said = ", ".join(f"{key} {value}" for key, value in found.recipe(name).items())
            yield f"`{found.name(name)}`", said.replace("method.preset ", "").replace("train.", ""), found.source


def _grid() -> Iterator[tuple[str, ...]]:
    """A row for each objective under a uniform score, and for each score: what each selector is to it."""
    selectors = [registry.build("selector", name) for name in registry.names("selector")]
    uniform = registry.build("scorer", "uniform")
    for spec in [*registry.names("objective"), *_BY_NO_WEIGHT]:
        objective = registry.build("objective", spec)
        yield f"`{spec}`", *(_fits(uniform, select, objective) for select in selectors)
    for spec in [*registry.names("scorer"), *_ORDERS]:
        score = registry.build("scorer", spec)
        yield f"score `{spec}`", *(_fits(score, select) for select in selectors)


def _fits(score: Scorer, select: Selector, objective: Objective | None = None) -> str:
    try:
        require_fit(score, select)
        if objective is not None:
            require_read(objective, score, select)
    except MethodError:
        return "an order is no weight" if objective is None else "reads no weights"
    return "yes"


def _method(named: tuple[str, type]) -> tuple[str, ...]:
    found = sections(named[1])
    return f"`{named[0]}`", found[""], found.get("Source", ""), found.get("Differs", "")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield _row(head)
    yield _row(("---",) * len(head))
    for row in rows:
        yield _row(tuple(_linked(cell) for cell in row))


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _linked(text: str) -> str:
    return _ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)


if __name__ == "__main__":
    sys.stdout.write(page())
