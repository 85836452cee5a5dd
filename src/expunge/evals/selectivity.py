"""Does a score find the words that carry the knowledge? Numbers from tables of token scores and of marked characters.

No model, no torch: whatever is here can be computed again from a run folder.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from expunge.data.agreement import Bools, Reading, touched, words
from expunge.data.records import Record
from expunge.evals import ranking
from expunge.evals.ranking import Counts, Reliability, Units
from expunge.evals.stats import FloatArray, IntArray, Interval, Sample, Statistic, bootstrap, weighted_mean

Level = Literal["token", "word"]
Key = tuple[str, str, str, Level]
"""Model, scorer, label and level of a finding."""
LEVELS: tuple[Level, ...] = ("token", "word")
_SEED = re.compile(r" \(\d+\)$")
SCORED = pa.schema(
    [
        ("model", pa.string()),
        ("scorer", pa.string()),
        ("id", pa.string()),
        ("subject", pa.string()),
        ("text", pa.string()),
        ("start", pa.list_(pa.int32())),
        ("end", pa.list_(pa.int32())),
        ("score", pa.list_(pa.float32())),
        ("weight", pa.list_(pa.float32())),
    ]
)
"""A row a record, scorer and model; lists have an entry a scored token: its characters of `text` (-1 for the end
token), its score, and the weight that the selector made of the scores."""
MARKS = pa.schema(
    [("label", pa.string()), ("id", pa.string()), ("start", pa.list_(pa.int32())), ("end", pa.list_(pa.int32()))]
)
"""A row a label and record: the runs of characters of the text that the label calls informative."""


@dataclass(frozen=True)
class Settings:
    """How intervals are made, and the scorer that the others are held against ('' for none)."""

    resamples: int = 2000
    seed: int = 0
    baseline: str = ""


@dataclass(frozen=True)
class Finding:
    """One scorer under one model against one label, on tokens or words.

    `auc` and `precision` over all units together, `auc_within` the mean over records of their own, `calibration` the
    distance between a score's quantile and the share of informative units there, `weight` the share of all weight that
    lies on informative tokens (words have no weights), `base` the share of informative units, which is what a score
    that knows nothing reaches in `precision` and `weight`. `beyond`: `auc` less that of the baseline, on the same
    resamples. `shares`: of informative units in each tenth of the score. `proxies`: (Pearson, rank) correlations.
    """

    model: str
    scorer: str
    label: str
    level: Level
    units: int
    base: float
    auc: Interval
    auc_within: Interval
    precision: Interval
    calibration: Interval
    weight: Interval | None
    beyond: Interval | None
    shares: tuple[Interval, ...]
    proxies: Mapping[str, tuple[Interval, Interval]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class OverSeeds:
    """A scorer under several models that differ in their seed alone: means, with intervals over subjects and seeds."""

    model: str
    scorer: str
    label: str
    level: Level
    seeds: int
    auc: Interval
    proxies: Mapping[str, tuple[Interval, Interval]]


@dataclass(frozen=True)
class Curves:
    """What is drawn of a finding: the ROC curve, histograms (edges, informative, structural) of score and weight."""

    roc: tuple[list[float], list[float]]
    score: tuple[list[float], list[float], list[float]]
    weight: tuple[list[float], list[float], list[float]]


def marks_table(readings: Sequence[Reading]) -> pa.Table:
    """The table of what readings mark, in the schema `MARKS`."""
    rows = []
    for reading in readings:
        for key, marked in reading.marked.items():
            edges = np.flatnonzero(np.diff(np.concatenate([[0], marked.astype(np.int8), [0]])))
            rows.append({"label": reading.name, "id": key, "start": edges[::2], "end": edges[1::2]})
    return pa.Table.from_pylist(rows, schema=MARKS)


def readings_of(marks: pa.Table, scored: pa.Table) -> list[Reading]:
    """The readings that `marks_table` wrote down, for the texts of the score table."""
    lengths = {row["id"]: len(row["text"]) for row in scored.select(["id", "text"]).to_pylist()}
    found: dict[str, dict[str, Bools]] = {}
    for row in marks.to_pylist():
        if row["id"] in lengths:
            marked = np.zeros(lengths[row["id"]], np.bool_)
            for start, end in zip(row["start"], row["end"], strict=True):
                marked[start:end] = True
            found.setdefault(row["label"], {})[row["id"]] = marked
    return [Reading(name, marked) for name, marked in found.items()]


def units(rows: Iterable[Mapping[str, Any]], reading: Reading, level: Level) -> Units:
    """The units of the records that the reading covers. A unit is informative if a character of it is marked.

    Tokens lose their leading white space; one without characters of the text (the end token) is no unit. A word's score
    and weight are the means of its tokens' (by their greatest, random scores would find long and so rare words); a word
    without a token, beyond `max_length`, is no unit.
    """
    parts: list[list[FloatArray]] = []
    subjects: list[str] = []
    for row in rows:
        marked = reading.marked.get(row["id"])
        if marked is None:
            continue
        ranges, score, weight = _cut(row) if level == "token" else _words(row)
        parts.append([np.full(len(score), float(len(subjects))), touched(marked, ranges).astype(float), score, weight])
        subjects.append(row["subject"])
    record, informative, score, weight = (np.concatenate([p[k] for p in parts] or [np.zeros(0)]) for k in range(4))
    return Units(record.astype(np.int64), informative > 0, score, weight, tuple(subjects))


def measure(
    scored: pa.Table, readings: Sequence[Reading], proxies: Mapping[str, Mapping[str, float]], how: Settings
) -> tuple[list[Finding], dict[Key, Curves]]:
    """Every scorer under every model against every reading, on tokens and on words; and what is drawn of each.

    `proxies`: for each name the value of a word (without the punctuation around it), for correlations on words.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in scored.to_pylist():
        groups.setdefault((row["model"], row["scorer"]), []).append(row)
    findings: list[Finding] = []
    curves: dict[Key, Curves] = {}
    for (model, scorer), rows in groups.items():
        for reading in readings:
            for level in LEVELS:
                found = units(rows, reading, level)
                other = groups.get((model, how.baseline)) if scorer != how.baseline else None
                against = None if other is None else Counts.of(units(other, reading, level))
                values = _proxy_values(rows, reading, proxies) if level == "word" else {}
                findings.append(_finding((model, scorer, reading.name), level, found, against, values, how))
                curves[model, scorer, reading.name, level] = Curves(
                    ranking.roc(Counts.of(found)),
                    ranking.histogram(found, found.score),
                    ranking.histogram(found, found.weight),
                )
    return findings, curves


def over_seeds(
    scored: pa.Table, readings: Sequence[Reading], proxies: Mapping[str, Mapping[str, float]], how: Settings
) -> list[OverSeeds]:
    """Scorers under models of one name, `NAME (1)`, `NAME (2)` and so on: AUC and correlations, mean over the models.

    Subjects and models are resampled together. Empty if no name has several models.
    """
    families: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for row in scored.to_pylist():
        name = _SEED.sub("", row["model"])
        families.setdefault((name, row["scorer"]), {}).setdefault(row["model"], []).append(row)
    out = []
    for (name, scorer), members in families.items():
        if len(members) < 2:
            continue
        for reading in readings:
            for level in LEVELS:
                found = [units(rows, reading, level) for rows in members.values()]
                rows = next(iter(members.values()))
                values = _proxy_values(rows, reading, proxies) if level == "word" else {}
                sampled = [Sample.of(found[0].subjects), Sample.of([""] * len(found))]
                out.append(_over_seeds((name, scorer, reading.name), level, found, values, sampled, how))
    return out


def _over_seeds(
    names: tuple[str, str, str],
    level: Level,
    found: Sequence[Units],
    proxies: Mapping[str, FloatArray],
    samples: Sequence[Sample],
    how: Settings,
) -> OverSeeds:
    def interval(each: Sequence[Statistic], bounds: tuple[float, float]) -> Interval:
        def statistic(items: FloatArray, seeds: FloatArray) -> FloatArray:
            values = np.stack([one(items) for one in each], axis=1)
            return np.asarray((values * seeds).sum(1) / seeds.sum(1))

        return bootstrap(statistic, samples, resamples=how.resamples, seed=how.seed, bounds=bounds)

    def correlated(values: Sequence[FloatArray]) -> tuple[Interval, Interval]:
        plain, ranked = (
            [
                ranking.correlation(one.score, v, one.record, len(one.subjects), ranks=ranks)
                for one, v in zip(found, values, strict=True)
            ]
            for ranks in (False, True)
        )
        return interval(plain, (-1.0, 1.0)), interval(ranked, (-1.0, 1.0))

    columns = {"informative": [one.informative.astype(np.float64) for one in found]}
    columns |= {name: [values] * len(found) for name, values in proxies.items()}
    auc = interval([ranking.auc(Counts.of(one)) for one in found], (0.0, 1.0))
    return OverSeeds(*names, level, len(found), auc, {name: correlated(values) for name, values in columns.items()})


def bare(word: str) -> str:
    """A word without the punctuation around it, in one case: what frequencies are counted of.

    >>> bare("“Kuwait,")
    'kuwait'
    """
    kept = [i for i, character in enumerate(word) if character.isalnum()]
    return word[kept[0] : kept[-1] + 1].casefold() if kept else ""


def _finding(
    names: tuple[str, str, str],
    level: Level,
    found: Units,
    against: Counts | None,
    proxies: Mapping[str, FloatArray],
    how: Settings,
) -> Finding:
    sample, counts, tenths = Sample.of(found.subjects), Counts.of(found), Reliability.of(found)

    def interval(statistic: Statistic, bounds: tuple[float, float] = (0.0, 1.0)) -> Interval:
        return bootstrap(statistic, [sample], resamples=how.resamples, seed=how.seed, bounds=bounds)

    def correlated(values: FloatArray) -> tuple[Interval, Interval]:
        args = (found.score, values, found.record, len(found.subjects))
        plain, ranked = (ranking.correlation(*args, ranks=ranks) for ranks in (False, True))
        return interval(plain, (-1.0, 1.0)), interval(ranked, (-1.0, 1.0))

    auc = ranking.auc(counts)
    gold = {"informative": found.informative.astype(np.float64)}
    return Finding(
        *names,
        level,
        len(found),
        found.base,
        interval(auc),
        interval(weighted_mean(ranking.auc_by_record(found))),
        interval(ranking.average_precision(counts)),
        interval(tenths.error),
        interval(ranking.weight_share(found)) if level == "token" else None,
        None if against is None else interval(_difference(auc, ranking.auc(against)), (-1.0, 1.0)),
        tuple(interval(tenths.share(place)) for place in range(len(tenths.middle))),
        {name: correlated(values) for name, values in {**gold, **proxies}.items()},
    )


def _difference(one: Statistic, other: Statistic) -> Statistic:
    return lambda weights: one(weights) - other(weights)


def _cut(row: Mapping[str, Any]) -> tuple[IntArray, FloatArray, FloatArray]:
    """(tokens, 2) characters without leading white space, scores, weights; tokens without characters left out."""
    text, kept = row["text"], []
    for start, end, score, weight in zip(row["start"], row["end"], row["score"], row["weight"], strict=True):
        piece = text[start:end] if start >= 0 else ""
        if piece.strip():
            kept.append((end - len(piece.lstrip()), end, score, weight))
    table = np.array(kept, np.float64).reshape(-1, 4)
    return table[:, :2].astype(np.int64), table[:, 2], table[:, 3]


def _words(row: Mapping[str, Any]) -> tuple[IntArray, FloatArray, FloatArray]:
    ranges, score, weight = _cut(row)
    kept = []
    for start, end in words(Record(row["id"], answer=row["text"])):
        mine = (ranges[:, 0] < end) & (ranges[:, 1] > start)
        if mine.any():
            kept.append((start, end, score[mine].mean(), weight[mine].mean()))
    table = np.array(kept, np.float64).reshape(-1, 4)
    return table[:, :2].astype(np.int64), table[:, 2], table[:, 3]


def _proxy_values(
    rows: Iterable[Mapping[str, Any]], reading: Reading, proxies: Mapping[str, Mapping[str, float]]
) -> dict[str, FloatArray]:
    """For each proxy its value at each word, in the order of `units`; NaN for a word it does not know."""
    found = [
        bare(row["text"][start:end])
        for row in rows
        if row["id"] in reading.marked
        for start, end in _words(row)[0].tolist()
    ]
    return {name: np.array([values.get(w, math.nan) for w in found]) for name, values in proxies.items()}
