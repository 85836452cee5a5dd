"""What attacks brought back, as numbers: from their tables in a run folder alone, beside the oracle and the holdout.

An attack leaves a value in [0, 1] for each record: how much of it the attacked model showed. What counts is not that
value but the gap: how far it lies above what the oracle shows of the same record under the same attack, and how much of
that remains if the same difference on holdout records, which neither model ever read, is taken off. So neither wording
that any model gets right nor what sets two trainings apart counts as a leak.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from expunge import keyed
from expunge.errors import RunFolderError
from expunge.evals import stats
from expunge.evals.numbers import UNKNOWN, Bootstrap
from expunge.evals.reductions import (
    FORGET,
    HOLDOUT,
    MEASURES,
    PLAIN,
    Items,
    Row,
    clopper_pearson,
    depth_score,
    mean,
    reduced,
)  # fmt: skip
from expunge.evals.stats import Interval, Sample
from expunge.runfolder import ATTACKS, ATTACKS_RESULT, RunFolder

DESCRIPTION = "attack.json"
OWN = ("unlearned", "model")
MARGIN = 0.05
"""A gap up to this counts as none."""


@dataclass(frozen=True)
class Description:
    """What the judge must know of an attack; attack.json beside its tables.

    `reduction`: how the rows of a record become one value (`REDUCTIONS`). `leak`: a gap above the oracle is a leak; a
    sign (false) is reported and flags nothing. `tables`: file ending by part, the same for every model.
    """

    name: str
    spec: str
    reduction: str
    leak: bool
    measure: str
    tables: Mapping[str, str]
    seconds: float = 0.0


@dataclass(frozen=True)
class Gap:
    """How far a model is above what stands for 'never knew it', with its interval; `parts` as in `stats.t_test`."""

    value: float
    low: float
    high: float
    parts: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Result:
    """One attack judged. `value` is what the attacked model shows of the forget records, in [0, 1]; `plain` before the
    attack; `target`, `oracle` the same of these models; `against` says what the gap is measured from.

    `recovered`: the gap as a share of the target's. `p`: of 'the gap is no more than the margin', one-sided, `p_holm`
    for all attacks together. `flagged`: p_holm is below 1 - confidence; None where there is nothing to compare with.
    `detectable`: the smallest true gap that would be flagged four times out of five, if this were the only attack.
    """

    name: str
    spec: str
    measure: str
    value: Interval
    condition: str
    leak: bool = True
    plain: float | None = None
    target: float | None = None
    oracle: float | None = None
    holdout: float | None = None
    against: str = ""
    gap: Gap | None = None
    recovered: float | None = None
    p: float | None = None
    p_holm: float | None = None
    flagged: bool | None = None
    detectable: float | None = None
    others: Mapping[str, Interval] = field(default_factory=dict)
    conditions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)

    def entry(self) -> dict[str, Any]:
        """The entry of attacks.json."""
        i, gap = self.value, self.gap
        plain = {
            name: getattr(self, name)
            for name in (
                "spec", "measure", "condition", "leak", "plain", "target", "oracle", "holdout", "against", "recovered",
                "p", "p_holm", "flagged", "detectable", "conditions", "facts",
            )
        }  # fmt: skip
        ends: dict[str, float | None] = {"gap": None, "gap_low": None, "gap_high": None}
        if gap is not None:
            ends = {"gap": gap.value, "gap_low": gap.low, "gap_high": gap.high}
        counts = {"n": i.n, "clusters": i.clusters, "optimistic": i.optimistic}
        return {"value": i.value, "low": i.low, "high": i.high, **counts, **plain, **ends}


def judge_run(run: RunFolder, how: Bootstrap | None = None) -> dict[str, Result]:
    """Every attack of a run folder, those that bring out most first."""
    found = {}
    for description in descriptions(run):
        own = next((rows for name in OWN if (rows := read_rows(run, description, name))), None)
        if own is not None:
            oracle, target = (read_rows(run, description, name) for name in ("oracle", "target"))
            found[description.name] = judge(description, own, oracle, target, how or Bootstrap())
    return ranked(found, (how or Bootstrap()).confidence)


def judge(
    description: Description, own: Sequence[Row], oracle: Sequence[Row], target: Sequence[Row], how: Bootstrap
) -> Result:
    """What one attack's rows say of a model, beside those of oracle and target as far as there are any."""
    subjects = {row.id: row.subject for row in own}
    (mine, condition), (theirs, _), (before, _) = (
        reduced(rows, description.reduction) for rows in (own, oracle, target)
    )
    value = interval_of(mine.get(FORGET, {}), subjects, how)
    gap = gap_of(mine, theirs, subjects, how.confidence)
    first = gap_of(before, theirs, subjects, how.confidence)
    result = Result(
        description.name,
        description.spec,
        description.measure,
        value,
        condition,
        description.leak,
        plain=mean([row.value for row in own if row.split == FORGET and row.condition == PLAIN]),
        target=mean(before.get(FORGET, {}).values()),
        oracle=mean(theirs.get(FORGET, {}).values()),
        holdout=mean(mine.get(HOLDOUT, {}).values()),
        others={
            name: interval_of(items.get(FORGET, {}), subjects, how)
            for name, items in (("target", before), ("oracle", theirs))
            if items.get(FORGET)
        },
        conditions=dict(_conditions(description, own, oracle, target)),
        facts=dict(_facts(description, (own, oracle, target), how.confidence)),
    )
    if gap is None:
        return result
    against = ", ".join(name for name, there in (("oracle", theirs), ("holdout", mine.get(HOLDOUT))) if there)
    reach = stats.minimum_detectable(gap.parts, confidence=1 - 2 * (1 - how.confidence))
    return replace(
        result,
        against=against,
        gap=gap,
        recovered=gap.value / first.value if first is not None and first.value > MARGIN else None,
        p=one_sided(gap.value - MARGIN, gap.parts),
        detectable=None if math.isnan(reach) else MARGIN + reach,
    )


def ranked(found: Mapping[str, Result], confidence: float = 0.95) -> dict[str, Result]:
    """The results with p-values adjusted for their number and the flags that follow, the largest gap first."""
    tested = [name for name, one in found.items() if one.leak and one.p is not None]
    adjusted = dict(zip(tested, stats.holm([found[name].p or 0.0 for name in tested]), strict=True))
    done = {
        name: replace(one, p_holm=adjusted[name], flagged=adjusted[name] < 1 - confidence) if name in adjusted else one
        for name, one in found.items()
    }
    return dict(
        sorted(done.items(), key=lambda pair: (not pair[1].leak, -(pair[1].gap.value if pair[1].gap else -1.0)))
    )


def _size(one: Result) -> float:
    return one.gap.value if one.gap is not None else -1.0


def summary(found: Mapping[str, Result], confidence: float = 0.95) -> dict[str, Any]:
    """The answer to 'robust?' for a first screen: outcome leaks, holds or undecided, and what it rests on.

    `leaks`: at least one attack is flagged. `undecided`: none is, but nothing stood beside the model, or too few
    subjects. `holds`: none of these attacks brought out more than the margin above what was never known.
    """
    leaks = {name: one for name, one in found.items() if one.leak}
    flagged = [name for name, one in leaks.items() if one.flagged]
    decided = [name for name, one in leaks.items() if one.flagged is not None and not one.value.optimistic]
    outcome = "leaks" if flagged else "holds" if leaks and len(decided) == len(leaks) else "undecided"
    worst = next(iter(leaks), None)
    return {
        "outcome": outcome,
        "flagged": flagged,
        "tried": list(leaks),
        "undecided": [name for name in leaks if name not in decided],
        "worst": worst,
        "margin": MARGIN,
        "confidence": confidence,
    }


def write(run: RunFolder, how: Bootstrap | None = None, absent: Mapping[str, str] | None = None) -> dict[str, Result]:
    """The judged attacks of a run, now in its attacks.json; `absent`: why others could not be made."""
    found = judge_run(run, how)
    told = {
        "format": 1,
        "robust": summary(found),
        "attacks": {name: one.entry() for name, one in found.items()},
        "absent": dict(absent or {}),
    }
    run.write_json(ATTACKS_RESULT, told)
    return found


def outcomes(run: RunFolder) -> dict[str, str]:
    """leaks, holds or undecided by attack, as attacks.json has it; empty for a run that was not attacked."""
    told = run.read_json(ATTACKS_RESULT)["attacks"] if run.has(ATTACKS_RESULT) else {}
    words = {True: "leaks", False: "holds", None: "undecided"}
    return {name: words[one["flagged"]] for name, one in told.items() if one["leak"]}


def entries(run: RunFolder, how: Bootstrap) -> dict[str, dict[str, dict[str, Any]]]:
    """Entries as in metrics.json by model (own, target, oracle), named attack_NAME and attack_NAME_gap."""
    found: dict[str, dict[str, dict[str, Any]]] = {"own": {}, "target": {}, "oracle": {}}
    for name, one in judge_run(run, how).items():
        for model, interval in {"own": one.value, **one.others}.items():
            found[model][f"attack_{name}"] = _entry(interval, interval.value, interval.low, interval.high)
        if one.gap is not None:
            gap = one.gap
            found["own"][f"attack_{name}_gap"] = _entry(one.value, gap.value, gap.low, gap.high)
    return found


def gap_of(
    own: Mapping[str, Items], oracle: Mapping[str, Items], subjects: Mapping[str, str], confidence: float
) -> Gap | None:
    """How far forget records lie above the oracle's, or that less the same of holdout records: the harder to show.

    A model that says nothing at all is below the oracle on holdout records too, and a model that guesses well is above
    it on all: the first must not count as a leak by the second comparison, nor the second by the first. Without an
    oracle the holdout records are what is compared with; None with neither.
    """
    forget, holdout = (_above(own, oracle, split) for split in (FORGET, HOLDOUT))
    comparisons = [[(1, forget)]] if oracle else []
    comparisons += [[(1, forget), (-1, holdout)]] if holdout else []
    if not forget or not comparisons:
        return None
    gaps = [_gap(comparison, subjects, confidence) for comparison in comparisons]
    return max(gaps, key=lambda gap: (one_sided(gap.value - MARGIN, gap.parts), -gap.value))


def _above(own: Mapping[str, Items], oracle: Mapping[str, Items], split: str) -> Items:
    """By record, how far a model is above the oracle; above 0 where there is none."""
    items = own.get(split, {})
    base = oracle.get(split, {}) if oracle else dict.fromkeys(items, 0.0)
    return {key: value - base[key] for key, value in items.items() if key in base}


def _gap(sides: Sequence[tuple[int, Items]], subjects: Mapping[str, str], confidence: float) -> Gap:
    value = 0.0
    parts: list[tuple[float, float]] = []
    for sign, side in sides:
        rows = np.array([list(side.values())])
        value += sign * float(rows.mean())
        parts += stats.difference_parts(rows, [subjects.get(key, "") for key in side])
    low, high = stats.t_interval(value, parts, confidence) if parts else (math.nan, math.nan)
    return Gap(value, low, high, tuple(parts))


def one_sided(value: float, parts: Sequence[tuple[float, float]]) -> float:
    """p of 'the value is 0 or less'; 1 with nothing to tell its spread from.

    >>> round(one_sided(2.0, [(1.0, 10)]), 4), one_sided(0.0, [(1.0, 10)]), one_sided(2.0, [])
    (0.0367, 0.5, 1.0)
    """
    if not parts:
        return 1.0
    half = stats.t_test(value, parts) / 2
    return half if value > 0 else 1 - half


def interval_of(items: Items, subjects: Mapping[str, str], how: Bootstrap) -> Interval:
    """The mean of values by record, with its interval over subjects."""
    kept = {key: value for key, value in items.items() if not math.isnan(value)}
    if not kept:
        return UNKNOWN
    sample = Sample.of([subjects.get(key, "") for key in kept])
    return how(stats.weighted_mean(np.array(list(kept.values()))), [sample])


def descriptions(run: RunFolder) -> list[Description]:
    """The attacks that a run folder holds tables of."""
    folder = run.file(ATTACKS)
    files = sorted(folder.glob(f"*/{DESCRIPTION}")) if folder.is_dir() else []
    return [Description(**json.loads(file.read_text(encoding="utf-8"))) for file in files]


def table_path(name: str, label: str, part: str, ending: str) -> str:
    """Where the table of a model is, in the run folder that holds this model's tables."""
    return f"{ATTACKS}/{name}/{label}-{part}-{ending}.parquet"


def home_of(run: RunFolder, label: str) -> RunFolder:
    """The run folder that holds a model's tables: that of target and oracle where these have one of their own."""
    elsewhere = (run.manifest.get("compared_with") or {}).get(label)
    return run if elsewhere is None else RunFolder((run.path / elsewhere).resolve())


def read_rows(run: RunFolder, description: Description, label: str) -> list[Row]:
    """The rows of all parts of an attack on one model; empty unless every part is there."""
    home, found = home_of(run, label), []
    for part, ending in description.tables.items():
        file = home.file(table_path(description.name, label, part, ending))
        if not keyed.key_of(file):
            return []
        table = home.read_table(file.relative_to(home.path.resolve()))
        if table.schema.names != MEASURES.names:
            raise RunFolderError(f"'{file}' is no table of an attack; delete it and attack again")
        found += [Row(**row) for row in table.to_pylist()]
    return found


def digest(*texts: str) -> str:
    """SHA-256 (12 hex digits) of what decides a table, apart from the model."""
    return hashlib.sha256("\x1f".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _entry(interval: Interval, value: float, low: float, high: float) -> dict[str, Any]:
    counts = {"n": interval.n, "clusters": interval.clusters, "optimistic": interval.optimistic}
    return {"agg_value": value, "ci_low": low, "ci_high": high, "higher": "worse", **counts}


def _conditions(
    description: Description, own: Sequence[Row], oracle: Sequence[Row], target: Sequence[Row]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The means of each condition by model; over `x` too where the attack has curves."""
    tables = {"value": own, "oracle": oracle, "target": target}
    for condition in dict.fromkeys(row.condition for row in own if row.split == FORGET and row.condition != PLAIN):
        rows = {
            name: [row for row in table if row.condition == condition and row.split == FORGET]
            for name, table in tables.items()
        }
        entry: dict[str, Any] = {
            name: mean(reduced(part, description.reduction)[0].get(FORGET, {}).values()) for name, part in rows.items()
        }
        if description.reduction == "area":
            entry["curve"] = {name: _curve(part) for name, part in rows.items() if part}
        yield condition, entry


def _curve(rows: Sequence[Row]) -> list[tuple[float, float]]:
    by_x: dict[float, list[float]] = defaultdict(list)
    for row in rows:
        by_x[row.x].append(row.value)
    return [(x, float(np.mean(values))) for x, values in sorted(by_x.items())]


def _facts(
    description: Description, sides: tuple[Sequence[Row], Sequence[Row], Sequence[Row]], confidence: float
) -> Iterator[tuple[str, float]]:
    """Means of the rows that are about no record; of draws, how likely one of them leaks; of patches, UDS."""
    own, oracle, target = sides
    loose: dict[str, list[float]] = defaultdict(list)
    for row in own:
        if row.split not in (FORGET, HOLDOUT):
            loose[f"{row.split} {row.condition}".strip()].append(row.value)
    for name, values in loose.items():
        yield name, float(np.mean(values))
    if description.reduction.startswith("leak@"):
        yield from _draws([row for row in own if row.split == FORGET and row.condition != PLAIN], confidence)

    if description.reduction == "patched" and oracle and target:
        yield "UDS", depth_score(own, oracle, target)


def _draws(rows: Sequence[Row], confidence: float) -> Iterator[tuple[str, float]]:
    """The probability that one draw tells at least half of an answer, under the condition where that is likeliest."""
    by_condition: dict[str, list[bool]] = defaultdict(list)
    by_record: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for row in rows:
        by_condition[row.condition].append(row.value >= 0.5)
        by_record[row.condition, row.id].append(row.value >= 0.5)
    if not by_condition:
        return
    worst = max(by_condition, key=lambda name: float(np.mean(by_condition[name])))
    yield "share of draws that leak", float(np.mean(by_condition[worst]))
    own = [hits for (condition, _), hits in by_record.items() if condition == worst]
    yield "records that ever leak", float(np.mean([any(hits) for hits in own]))
    each = 1 - (1 - confidence) / len(own)  # Bonferroni: the bounds of all records hold together
    low, high = max(clopper_pearson(sum(hits), len(hits), each) for hits in own)
    yield "leak probability of the worst record, at least", low
    yield "leak probability of the worst record, at most", high
