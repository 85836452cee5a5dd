"""The theory, measured: do the weights of a score raise the signal-to-noise ratio of the gradient they make?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from expunge import registry, runfolder
from expunge.core import Selector
from expunge.data.collate import collate
from expunge.data.encode import Encoded, Encoder
from expunge.data.records import Record
from expunge.errors import DataError
from expunge.evals import snr
from expunge.evals.snr import MOMENTS, Signal
from expunge.lm import LM
from expunge.progress import Progress
from expunge.recipe import Recipe
from expunge.runfolder import RunFolder
from expunge.sampling import record_draw
from expunge.sides import encode_all
from expunge.studies import gradients, models, sheets
from expunge.studies.gradients import Probe, Vector
from expunge.studies.selectivity import forget_records, scored
from expunge.studies.sheets import Figure, Line, Sheet, Table, shown
from expunge.weighting.controls import Control, controlled
from expunge.weighting.selection import Top

QUESTION = "snr"
_TABLE, _RESULTS = f"{sheets.FOLDER}/moments.parquet", f"{sheets.FOLDER}/signals.json"
Weighting = tuple[str, str, float]
"""Scorer ('' if none decides), kind of weights, and r (NaN if there is none), as in `snr.MOMENTS`."""


@dataclass(frozen=True)
class Asked:
    """What is compared: scorers, the shares r of hard selection, the soft selector.

    `direction`: 'oracle', from the target to the recipe's oracle; 'gold', the gradient of the gold tokens of a half of
    the subjects whose records are not measured; or a model (see `models.load`) in the oracle's place. `parameters`: a
    regular expression of the names of the parameters that count; all if None.
    """

    scorers: tuple[str, ...]
    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5, 0.7)
    soft: str = "normalised"
    model: str = "target"
    direction: str = "oracle"
    parameters: str | None = None


def run(
    recipe: Recipe, asked: Asked, out: Path, progress: Progress, *, resamples: int = 2000, seed: int = 0
) -> RunFolder:
    """The folder with two numbers for each record and weighting, the ratios, and the page."""
    folder = sheets.create(out, recipe, QUESTION)
    with runfolder.recording(folder):
        _, which = models.named(asked.model)
        lm = models.load(recipe, which)
        records = forget_records(recipe, lm)
        scores = _scores(recipe, lm, records, asked, progress)  # before the probe: scorers may look at gradients too
        probe = Probe.of(lm.model, asked.parameters)
        items = [e for e in encode_all(Encoder.from_recipe(lm.tokenizer, recipe.data), records) if e.scored]
        direction, items = _direction(recipe, lm, probe, asked, items, records, progress)
        table = _moments(lm, probe, direction, items, records, scores, asked, recipe.seed, progress)
        folder.write_table(_TABLE, table)
        judge(folder, resamples=resamples, seed=seed)
    return folder


def judge(folder: RunFolder, *, resamples: int = 2000, seed: int = 0) -> list[Signal]:
    """The ratios of a study's table, written to its folder with the page; no model is needed."""
    found = snr.measure(folder.read_table(_TABLE).cast(MOMENTS), resamples=resamples, seed=seed)
    folder.write_json(_RESULTS, [one.as_json() for one in found])
    sheets.write(folder, _sheet(found))
    return found


def weightings(
    scores: Mapping[str, Tensor], soft: Selector, shares: Sequence[float], draw: int
) -> dict[Weighting, Tensor]:
    """The weights (n,) of one record under every weighting: uniform, hard and random at each share, soft, shuffled.

    `scores[NAME]` (n,) are the record's scored tokens; `draw` decides what is random about the record.
    """
    count = len(next(iter(scores.values())))
    mask = torch.ones(1, count, dtype=torch.bool)

    def made(select: Selector, own: Tensor, control: Control = "none") -> Tensor:
        draws = lambda _: torch.Generator().manual_seed(draw)  # noqa: E731
        return controlled(select, own[None], mask, control, draws).value[0]

    out: dict[Weighting, Tensor] = {("", "uniform", math.nan): torch.ones(count)}
    for share in shares:
        out["", "random", share] = made(Top(r=share), torch.zeros(count), "random")
    for name, own in scores.items():
        for share in shares:
            out[name, "hard", share] = made(Top(r=share), own)
        out[name, "soft", math.nan] = made(soft, own)
        out[name, "shuffled", math.nan] = made(soft, own, "shuffle")
    return out


def halves(items: Sequence[Encoded], records: Mapping[str, Record], seed: int) -> tuple[list[Encoded], list[Encoded]]:
    """The items in two parts that share no subject (no record, if there is only one subject), drawn by the seed."""
    subject = {item.id: records[item.id].subject or item.id for item in items}
    names = sorted(set(subject.values()))
    if len(names) < 2:
        subject = {item.id: item.id for item in items}
        names = sorted(subject)
    if len(names) < 2:
        raise DataError(
            "a direction from gold spans needs two forget records at least: half give it, half are measured"
        )
    order = np.random.default_rng([seed, 0]).permutation(len(names))
    first = {names[i] for i in order[: len(names) // 2]}
    return [i for i in items if subject[i.id] in first], [i for i in items if subject[i.id] not in first]


def _scores(
    recipe: Recipe, lm: LM, records: Sequence[Record], asked: Asked, progress: Progress
) -> dict[str, dict[str, Tensor]]:
    """For each scorer the scores (n,) of each record's scored tokens."""
    found = {}
    with progress.stage("Score tokens") as bar:
        for place, scorer in enumerate(asked.scorers):
            rows = scored(recipe, lm, records, "", scorer, "top").to_pylist()
            found[scorer] = {row["id"]: torch.tensor(row["score"]) for row in rows}
            bar(place + 1, len(asked.scorers), scorer)
    return found


def _direction(
    recipe: Recipe,
    lm: LM,
    probe: Probe,
    asked: Asked,
    items: list[Encoded],
    records: Sequence[Record],
    progress: Progress,
) -> tuple[Vector, list[Encoded]]:
    """The unit vector of the direction, and the items that may be measured along it."""
    if asked.direction != "gold":
        _, which = models.named(asked.direction)
        return gradients.between(lm.model, models.load(recipe, which).model, asked.parameters), items
    giving, measured = halves(items, {r.id: r for r in records}, recipe.seed)
    total: dict[str, Tensor] = {}
    with progress.stage("Direction from gold spans") as bar:
        for place, item in enumerate(giving):
            batch = collate([item], lm.pad_id).to(lm.device)
            gold = batch.static["gold"][batch.mask] if "gold" in batch.static else torch.zeros(0)
            if bool((gold > 0).any()):
                gradients.add(total, next(probe.gradients(batch, [gold])))
            bar(place + 1, len(giving))
    if not total:
        raise DataError("no forget record has gold spans, so they give no direction. Name an oracle with --direction")
    return gradients.unit(total), measured


def _moments(
    lm: LM,
    probe: Probe,
    direction: Vector,
    items: Sequence[Encoded],
    records: Sequence[Record],
    scores: Mapping[str, Mapping[str, Tensor]],
    asked: Asked,
    seed: int,
    progress: Progress,
) -> pa.Table:
    """A row a record and weighting in the schema `MOMENTS`, one record in memory at a time."""
    soft = registry.build("selector", asked.soft)
    subjects = {record.id: record.subject for record in records}
    rows: list[dict[str, Any]] = []
    with progress.stage("Gradients, record by record") as bar:
        for place, item in enumerate(items):
            batch = collate([item], lm.pad_id).to(lm.device)
            own = {name: found[item.id] for name, found in scores.items()}
            made = weightings(own, soft, asked.shares, record_draw(seed, item.id))
            for (scorer, weights, share), (along, whole) in _distinct(probe, batch, made, direction).items():
                names = {"id": item.id, "subject": subjects[item.id], "scorer": scorer, "weights": weights}
                rows.append({**names, "share": share, "projection": along, "square": whole})
            bar(place + 1, len(items))
    return pa.Table.from_pylist(rows, schema=MOMENTS)


def _distinct(
    probe: Probe, batch: Any, made: Mapping[Weighting, Tensor], direction: Vector
) -> dict[Weighting, tuple[float, float]]:
    """The moments of every weighting; those that give the same weights share one backward pass."""
    keys = {which: tuple((w / w.sum()).tolist()) if float(w.sum()) > 0 else () for which, w in made.items()}
    wanted = [key for key in dict.fromkeys(keys.values()) if key]
    found = gradients.moments(probe.gradients(batch, [torch.tensor(key) for key in wanted]), direction)
    by_key = {**dict(zip(wanted, found, strict=True)), (): (math.nan, math.nan)}
    return {which: by_key[key] for which, key in keys.items()}


def _sheet(found: Sequence[Signal]) -> Sheet:
    """A row a weighting, and SNR against the share of tokens kept."""
    columns = (
        "weights",
        "score",
        "share kept",
        "SNR",
        "over uniform",
        "mean along d",
        "mean squared length",
        "records",
    )
    rows = tuple(
        (
            one.weights,
            one.scorer or "-",
            "-" if math.isnan(one.share) else f"{one.share:g}",
            shown(one.snr, 4),
            shown(one.ratio, 2),
            shown(one.projection, 4),
            shown(one.square, 3),
            str(one.records),
        )
        for one in found
    )
    table = Table(
        "Signal to noise", "Intervals are over subjects; 'over uniform' on the same resamples.", columns, rows
    )
    uniform = next(one for one in found if one.weights == "uniform")
    lede = (
        "Signal to noise of one record's gradient along the direction of unlearning. Uniform weights: "
        f"{shown(uniform.snr, 4)}."
    )
    return Sheet("Does selecting tokens raise the signal?", lede, (table,), (_figure(found, uniform),), ())


def _figure(found: Sequence[Signal], uniform: Signal) -> Figure:
    """SNR against r: hard selection by each scorer, random tokens, and level lines for weights without a share."""
    lines = []
    names = dict.fromkeys((one.weights, one.scorer) for one in found if one.weights in ("hard", "random"))
    for weights, scorer in names:
        mine = sorted((one for one in found if (one.weights, one.scorer) == (weights, scorer)), key=lambda s: s.share)
        x, y = [one.share for one in mine], [_finite(one.snr.value) for one in mine]
        lines.append(Line(f"{weights} {scorer}".strip(), [*x, 1.0], [*y, _finite(uniform.snr.value)]))
    ends = [min(line.x[0] for line in lines), 1.0] if lines else [0.0, 1.0]
    for one in found:
        if one.weights in ("uniform", "soft", "shuffled"):
            lines.append(Line(f"{one.weights} {one.scorer}".strip(), ends, [_finite(one.snr.value)] * 2))
    return Figure(
        "SNR against the share kept", "of one record's gradient along d", "share of tokens kept", tuple(lines)
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
