"""Run folders -> one self-contained HTML file, which needs no network and carries its own security policy."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from expunge import runfolder
from expunge.errors import RunFolderError, unknown
from expunge.report import (
    answers,
    arms,
    collect,
    compare,
    curves,
    drift,
    facts,
    figures,
    measured,
    sentences,
    shell,
    summary,
    tokenview,
    words,
)
from expunge.report.arms import Comparing
from expunge.report.charts import SERIES_COLOURS
from expunge.report.collect import Column, View

_SECTIONS = (
    ("summary", "Summary"),
    ("metrics", "Numbers"),
    ("tokens", "Tokens"),
    ("training", "Training"),
    ("answers", "Answers"),
    ("settings", "Settings"),
    ("environment", "Environment"),
)


def render(
    runs: Sequence[str | Path],
    out: str | Path,
    redact: bool = False,
    comparing: Comparing | None = None,
    chosen: Sequence[str] = (),
) -> Path:
    """The HTML file `out`, at most 5 MB, about one run or several beside their target and oracle.

    A study's folder stands for the runs inside it. Whatever a run folder lacks is named on the page. With `redact` no
    text of records or models is written: tokens become blanks, records numbers, and lines of settings that share four
    words in a row with the forget set are blanked. `comparing` makes the table of arms where there are several runs,
    `chosen` names runs that stand out among them; what a measurement found is shown below them. RunFolderError if a
    path is no run folder.
    """
    found = context(runs, redact, comparing, chosen)
    target = Path(out).expanduser().resolve()
    with runfolder.replacing(target) as stream:
        stream.write(shell.template("page.html.j2").render(found).encode("utf-8", "replace"))
    return target


def context(
    runs: Sequence[str | Path], redact: bool = False, comparing: Comparing | None = None, chosen: Sequence[str] = ()
) -> dict[str, Any]:
    """All that the page's template shows, its drawings among it; arguments and errors as of `render`."""
    seen = collect.views([run for run in runs if not measured.is_study(run)])
    sheets = [measured.read(run) for run in runs if measured.is_study(run)]
    if len(seen) == 1:
        sheets += measured.beside(seen[0].folder.path)
    names = [view.name for view in seen]
    if strangers := [name for name in chosen if name not in names]:
        raise RunFolderError(unknown("run", strangers[0], names))
    places = [place for place, name in enumerate(names) if name in chosen]
    if redact:
        guard = _guard(seen, collect.columns(seen))
        seen, _ = facts.redacted(seen, [], guard)
        sheets = facts.cleaner(guard)(sheets)
    compared = comparing(seen) if comparing is not None and len(seen) > 1 else None
    wanted = [seen[place].name for place in places]
    folded, which = arms.drawn(seen, wanted)
    drawn = [view for arm in folded for view in arm.runs] or seen
    return {
        **_context(seen, drawn, redact, wanted),
        "arms": folded,
        "which": which,
        "compared": compared,
        "studies": [(sheet, measured.drawn(sheet)) for sheet in sheets],
    }


def _context(seen: Sequence[View], drawn: Sequence[View], redact: bool, chosen: Sequence[str]) -> dict[str, Any]:
    """What the template shows of the runs in `drawn`, one by one, and of all in `seen` where these count."""
    models = collect.columns(drawn)
    styles = _styles(models)
    css, js = shell.asset("page.css"), shell.asset("page.js")
    tokens = tokenview.pack(drawn, [model for model in models if model.role != "run"], redact)
    charts, drifts, weights, swept = curves.draw(drawn), drift.draw(drawn), figures.weights(drawn), figures.sweeps(seen)
    data = {"tokens": tokens, "charts": {c.key: c.data for c in (*charts, *drifts, *weights, *swept)}}
    found = {} if redact else answers.collect(models, styles)
    return {
        "policy": shell.policy(css, js),
        "css": Markup(css),  # nosec B704 - our own file
        "js": Markup(js),  # nosec B704 - our own file
        "data": shell.embedded(data),
        "version": importlib.metadata.version("expunge"),
        "redact": redact,
        "sections": _SECTIONS,
        "runs": drawn,
        "models": models,
        "styles": styles,
        "shown": compare.shown,
        "has_oracle": any(model.role == "oracle" for model in models),
        "has_tokens": bool(tokens),
        "tokens_note": _tokens_note(tokens),
        "charts": charts,
        "drifts": drifts,
        "weights": weights,
        "swept": swept,
        "bars": figures.bars(models, styles),
        "colours": SERIES_COLOURS,
        "relations": drift.relations(seen),
        "curves_missing": curves.missing(charts),
        "layers": curves.drift_by_layer(drawn),
        "answers": found,
        **summary.context(seen, drawn, models, styles, chosen),
        **facts.context(drawn, redact),
    }


def _guard(seen: Sequence[View], models: Sequence[Column]) -> words.Guard:
    folders = {folder.path: folder for folder in [v.folder for v in seen] + [m.folder for m in models]}
    return words.Guard(text for folder in folders.values() for text in sentences.texts(folder))


def _styles(models: Sequence[Column]) -> dict[str, str]:
    """The CSS class of each model: its role, or for runs their place in the palette."""
    runs = [model.name for model in models if model.role == "run"]
    return {
        model.name: f"s{runs.index(model.name) % SERIES_COLOURS}" if model.role == "run" else model.role
        for model in models
    }


def _tokens_note(tokens: Mapping[str, Any]) -> str:
    if not tokens:
        return ""
    count, total = len(tokens["records"]), tokens["total"]
    which = f"{count} of {total:,} records, evenly spaced. " if count < total else ""
    blank = "Every token is drawn as the same blank, because the page is redacted. " if tokens["redacted"] else ""
    return (
        f"{which}{blank}Shaded by the weight that the loss puts on a token, or by its probability or entropy. Move the "
        "slider through the epochs; point at a token, or walk with the arrow keys, to read its numbers."
    )
