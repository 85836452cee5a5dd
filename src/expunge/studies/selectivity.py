"""Does the score find the words that carry the knowledge? Any scorers, under any models, against any labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from expunge import runfolder, runs
from expunge.data import tagging
from expunge.data.chunks import chunk_all
from expunge.data.encode import Encoder
from expunge.data.load import iterate
from expunge.data.records import Record
from expunge.evals import proxies, selectivity
from expunge.evals.selectivity import MARKS, SCORED, Curves, Finding, Key, OverSeeds, Settings
from expunge.lm import LM
from expunge.progress import Progress
from expunge.recipe import Method, Recipe, Source, TermSpec
from expunge.runfolder import RunFolder
from expunge.sides import records_of
from expunge.studies import models, sheets
from expunge.studies.labels import readings
from expunge.studies.sheets import Figure, Line, Sheet, Table, shown

QUESTION = "selectivity"
_TOKENS, _MARKS, _PROXIES, _RESULTS, _SEEDS = (
    f"{sheets.FOLDER}/{name}"
    for name in ("tokens.parquet", "marks.parquet", "proxies.json", "findings.json", "seeds.json")
)


@dataclass(frozen=True)
class Asked:
    """What is compared: scorers, models (see `models.load`), labels ('gold', 'given', or an annotation file).

    `select` makes weights of scores. `corpus` is a file whose words are counted, beside the recipe's retain and general
    sets; `tagger` a spaCy pipeline whose parts of speech are a proxy too.
    """

    scorers: tuple[str, ...]
    models: tuple[str, ...] = ("target",)
    labels: tuple[str, ...] = ()
    select: str = "top:r=0.3"
    corpus: str | None = None
    tagger: str = ""


def run(recipe: Recipe, asked: Asked, out: Path, how: Settings, progress: Progress) -> RunFolder:
    """The folder with scores, marks, findings and page of a study; the models are read, not changed."""
    folder = sheets.create(out, recipe, QUESTION)
    with runfolder.recording(folder):
        tables, records = [], list[Record]()
        for name, which in models.numbered(asked.models):
            lm = models.load(recipe, which)
            records = forget_records(recipe, lm)
            with progress.stage(f"Score under {name}") as bar:
                for place, scorer in enumerate(asked.scorers):
                    bar(place, len(asked.scorers), scorer)
                    tables.append(scored(recipe, lm, records, name, scorer, asked.select))
                bar(len(asked.scorers), len(asked.scorers), "")
        folder.write_table(_TOKENS, pa.concat_tables(tables))
        folder.write_table(_MARKS, selectivity.marks_table(readings(records, asked.labels)))
        folder.write_json(_PROXIES, _proxies(recipe, records, asked))
        judge(folder, how)
    return folder


def judge(folder: RunFolder, how: Settings) -> list[Finding]:
    """The findings of a study's tables, written to its folder with the page; no model is needed."""
    table = folder.read_table(_TOKENS).cast(SCORED)
    readings_there = selectivity.readings_of(folder.read_table(_MARKS).cast(MARKS), table)
    known = folder.read_json(_PROXIES)
    found, curves = selectivity.measure(table, readings_there, known, how)
    seeds = selectivity.over_seeds(table, readings_there, known, how)
    folder.write_json(_RESULTS, [finding.as_json() for finding in found])
    folder.write_json(_SEEDS, [asdict(one) for one in seeds])
    sheets.write(folder, _sheet(found, seeds, curves, how))
    return found


def forget_records(recipe: Recipe, lm: LM) -> list[Record]:
    """The recipe's forget records with their annotation's spans, long texts in pieces that fit."""
    return chunk_all(records_of(recipe.data.forget, "forget"), Encoder.from_recipe(lm.tokenizer, recipe.data))


def with_score(recipe: Recipe, scorer: str, select: str) -> Recipe:
    """The recipe with one term: the scorer and the selector on the forget set."""
    term = TermSpec(objective="ga", score=scorer, select=select)
    return recipe.model_copy(update={"method": Method(terms=(term,))})


def scored(recipe: Recipe, lm: LM, records: Sequence[Record], model: str, scorer: str, select: str) -> pa.Table:
    """The score table of one scorer under one model, in the schema `SCORED`."""
    subjects = {record.id: record.subject for record in records}
    rows = runs.score_tokens(with_score(recipe, scorer, select), lm, records).to_pylist()
    named = [{**row, "model": model, "scorer": scorer, "subject": subjects[row["id"]]} for row in rows]
    return pa.Table.from_pylist([{name: row[name] for name in SCORED.names} for row in named], schema=SCORED)


def _proxies(recipe: Recipe, records: Sequence[Record], asked: Asked) -> dict[str, Mapping[str, float]]:
    """For each proxy the value of every word: how rare it is, and how often it is tagged as one with content."""
    others = [*records_of(recipe.data.retain, "retain"), *records_of(recipe.data.general, "general")]
    corpus = [text for record in others for text in (record.prompt, record.body)]
    if asked.corpus is not None:
        corpus += [r.prompt + " " + r.body for r in iterate(Source(path=asked.corpus), "general")]
    bodies = [record.body for record in records]
    found: dict[str, Mapping[str, float]] = {}
    if corpus:
        found["rarity"] = proxies.surprisal(corpus, bodies)
    if asked.tagger:
        found["content word"] = tagging.content_share(bodies, asked.tagger, selectivity.bare)
    return found


def _sheet(found: Sequence[Finding], seeds: Sequence[OverSeeds], curves: Mapping[Key, Curves], how: Settings) -> Sheet:
    """A table a label and level with a row a scorer and a column a model; ROC curves and histograms."""
    groups = list(dict.fromkeys((f.label, f.level) for f in found))
    several = len({f.model for f in found}) > 1
    tables = [_auc_table(found, label, level) for label, level in groups] if several else []
    tables += [_full_table(found, label, level, how) for label, level in groups]
    tables += [_proxy_table(found, label) for label in dict.fromkeys(f.label for f in found)]
    tables += [_seed_table(seeds)] if seeds else []
    lede = (
        f"{len({f.scorer for f in found})} scores against {len({f.label for f in found})} labels. "
        "An area under the ROC curve of .5 is chance; intervals are over subjects."
    )
    notes = () if not any(f.auc.optimistic for f in found) else ("† too few subjects: the interval should be wider",)
    return Sheet("Does the score find the cause?", lede, tuple(tables), tuple(_figures(found, curves)), notes)


def _auc_table(found: Sequence[Finding], label: str, level: str) -> Table:
    names = tuple(dict.fromkeys(f.model for f in found))
    by_place = {(f.scorer, f.model): f for f in found if (f.label, f.level) == (label, level)}
    rows = [
        (scorer, *(shown(one.auc) if (one := by_place.get((scorer, m))) else "n/a" for m in names))
        for scorer in dict.fromkeys(f.scorer for f in found)
    ]
    return Table(f"ROC-AUC, {label}, by {level}", "A column a model.", ("score", *names), tuple(rows))


def _full_table(found: Sequence[Finding], label: str, level: str, how: Settings) -> Table:
    mine = [f for f in found if (f.label, f.level) == (label, level)]
    note = (
        f"{mine[0].units} {level}s in {mine[0].auc.n} records, {mine[0].base:.1%} of them informative: what chance "
        "reaches in precision and weight. Calibration error: between a score's quantile and the share there."
    )
    columns = ["score", "model", "ROC-AUC", "within records", "average precision", "calibration error"]
    columns += ["weight on informative"] if level == "token" else []
    columns += [f"AUC less {how.baseline}"] if how.baseline else []
    rows = []
    for f in mine:
        cells = [f.scorer, f.model, *map(shown, (f.auc, f.auc_within, f.precision, f.calibration))]
        cells += [shown(f.weight)] if level == "token" else []
        cells += [shown(f.beyond)] if how.baseline else []
        rows.append(tuple(cells))
    return Table(f"{label}, by {level}", note, tuple(columns), tuple(rows))


def _seed_table(seeds: Sequence[OverSeeds]) -> Table:
    names = list(dict.fromkeys(name for one in seeds for name in one.proxies))
    columns = ("score", "model", "label", "level", "seeds", "ROC-AUC", *(f"{name}, ranks" for name in names))
    rows = []
    for one in seeds:
        ranks = [shown(one.proxies[name][1]) if name in one.proxies else "n/a" for name in names]
        rows.append((one.scorer, one.model, one.label, one.level, str(one.seeds), shown(one.auc), *ranks))
    note = "Means over models of one name; intervals are over subjects and seeds."
    return Table("Over seeds", note, columns, tuple(rows))


def _proxy_table(found: Sequence[Finding], label: str) -> Table:
    mine = [f for f in found if f.label == label and f.level == "word"]
    names = list(mine[0].proxies) if mine else []
    columns = ("score", "model", *(f"{name}, {kind}" for name in names for kind in ("Pearson", "ranks")))
    rows = [(f.scorer, f.model, *(shown(one) for name in names for one in f.proxies[name])) for f in mine]
    return Table(f"Correlations, {label}", "Of word scores with signs of content.", columns, tuple(rows))


def _figures(found: Sequence[Finding], curves: Mapping[Key, Curves]) -> list[Figure]:
    figures = []
    for model, label in dict.fromkeys((f.model, f.label) for f in found):
        mine = [f for f in found if (f.model, f.label, f.level) == (model, label, "token")]
        where = f"{label}, under {model}"
        rates = {f.scorer: curves[model, f.scorer, label, "token"].roc for f in mine}
        roc = tuple(Line(scorer, x, y) for scorer, (x, y) in rates.items())
        figures.append(
            Figure(f"ROC, {where}", "tokens found against tokens wrongly taken", "false positives", roc, (0.0, 1.0))
        )
        tenths = [Line(f.scorer, [5.0 + 10 * i for i in range(10)], [_finite(s.value) for s in f.shares]) for f in mine]
        figures.append(
            Figure(
                f"Reliability, {where}",
                "informative share by the score's quantile",
                "percentile",
                tuple(tenths),
                (0.0, 1.0),
            )
        )
        for f in mine:
            drawn = curves[model, f.scorer, label, "token"]
            for what, shares in (("score", drawn.score), ("weight", drawn.weight)):
                title = f"{what.capitalize()}s of {f.scorer}, {where}"
                figures.append(Figure(title, "share of tokens of each kind", what, _bars(*shares)))
    return figures


def _bars(edges: list[float], inside: list[float], outside: list[float]) -> tuple[Line, Line]:
    """Outlines of two histograms."""
    x = np.repeat(edges, 2)[1:-1].tolist()
    kinds = (("informative", inside), ("structural", outside))
    first, second = (Line(name, x, np.repeat(shares, 2).tolist()) for name, shares in kinds)
    return first, second


def _finite(value: float) -> float | None:
    return value if value == value else None
