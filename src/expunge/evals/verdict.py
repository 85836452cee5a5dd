"""PASS, FAIL or INCONCLUSIVE: a gate applied to the numbers of a run, with the reason for each condition.

A condition passes if the one-sided confidence bound lies on the right side of it, fails if the opposite bound lies on
the wrong side, and is undecided between. All must pass: each is tested at the gate's confidence, so the probability
that a model which misses one of them passes is at most 1 - confidence, however many there are.
"""

from __future__ import annotations

import math
import os
import shlex
import subprocess  # nosec B404 - runs the commands that the user's own gate names
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq

from expunge import gate as gates
from expunge import runfolder
from expunge.errors import RunFolderError
from expunge.evals import attacked, measure, stats
from expunge.evals.judge import judge_folder
from expunge.evals.numbers import Bootstrap
from expunge.evals.stats import FloatArray
from expunge.gate import Condition, Equivalence, Gate
from expunge.runfolder import GATE, VERDICT, RunFolder

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
EXIT_CODES: Mapping[Outcome, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2}  # nosec B105 - no password
Entries = Mapping[str, Mapping[str, Any]]
_STORED = 0.975
"""One-sided confidence of the intervals in metrics.json."""


@dataclass(frozen=True)
class Finding:
    """One condition: its outcome and why."""

    condition: str
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What the gate says of a model. `registered`: the run's manifest has held the gate's hash since it began.

    `attacks`: those made on the model, by name, and what each said: leaks, holds, or undecided.
    """

    outcome: Outcome
    claim: str
    confidence: float
    findings: tuple[Finding, ...]
    gate_hash: str = ""
    registered: bool = False
    attacks: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 for PASS, 1 for FAIL, 2 for INCONCLUSIVE."""
        return EXIT_CODES[self.outcome]


@dataclass(frozen=True)
class Evidence:
    """The numbers of a model and of those it is compared with, each with intervals at 2 * confidence - 1.

    `items[metric]`: the values by record that a mean is the mean of; `subjects` groups the records.
    """

    own: Entries
    target: Entries
    oracle: Entries
    items: Mapping[str, Mapping[str, float]]
    subjects: Mapping[str, str]


def of_run(
    path: str | Path, gate_file: str | Path | None = None, *, resamples: int = 2000, ours: bool = False
) -> Verdict:
    """The verdict on a run by a gate file, or by the gate that it was begun with; written to verdict.json there.

    The commands that a gate names are run if the file was given, or the run is `ours`: not if they came with a folder.
    """
    run = runfolder.open(path)
    file = Path(gate_file) if gate_file is not None else run.file(GATE)
    if gate_file is None and not file.is_file():
        raise RunFolderError(f"run '{path}' was begun without a gate. Give one with --gate, or set evaluation.gate")
    gate = gates.load(file)
    seen = evidence_of(run, gate.confidence, resamples)
    commands = _commands(gate, run) if ours or gate_file is not None else _not_run(gate, file)
    found = [*decide(gate, seen), *_removable(gate, run), *commands]
    digest = gates.file_hash(file)
    registered = (run.manifest.get("gate") or {}).get("hash") == digest
    attacks = attacked.outcomes(run)
    verdict = Verdict(overall(found), gate.claim, gate.confidence, tuple(found), digest, registered, attacks)
    if not registered:
        run.write_text("gate-given.yaml", file.read_text(encoding="utf-8"))
    run.write_json(VERDICT, {**asdict(verdict), "exit_code": verdict.exit_code})
    if run.manifest.get("status") == "finished":
        run.seal()
    return verdict


def _removable(gate: Gate, run: RunFolder) -> Iterator[Finding]:
    """What an adapter that stands beside its base means for the claim: taken off, it leaves the model before."""
    if run.manifest.get("removable_adapter"):
        why = "the adapter can be taken off, and the base beneath it knows all that it knew: merge it into the weights"
        yield Finding("adapter not removable", "PASS" if gate.claim == "suppression" else "FAIL", why)


def overall(found: Sequence[Finding]) -> Outcome:
    """FAIL if a condition fails, else INCONCLUSIVE if one is undecided, else PASS."""
    outcomes = {finding.outcome for finding in found}
    return "FAIL" if "FAIL" in outcomes else "INCONCLUSIVE" if "INCONCLUSIVE" in outcomes else "PASS"


def decide(gate: Gate, seen: Evidence) -> list[Finding]:
    """The outcome of each condition, and of the equivalence test for each of its metrics."""
    found = [_condition(condition, gate, seen) for condition in gate.conditions]
    if gate.claim == "indistinguishable" and gate.equivalence is not None:
        others = [_item_table(Path(path)) for path in gate.equivalence.oracles]
        found += [equivalent(name, gate, gate.equivalence, seen, others) for name in gate.equivalence.metrics]
    return found


def evidence_of(run: RunFolder, confidence: float, resamples: int = 2000) -> Evidence:
    """The evidence in a run folder: its own model beside target and oracle, as far as they were judged."""
    label = next((name for name in ("unlearned", "model") if name in run.labels), None)
    if label is None:
        raise RunFolderError(
            f"run '{run.path}' holds no judged model (eval/unlearned or eval/model). Evaluate it first"
        )
    folder, target, oracle = run.file(f"eval/{label}"), tables_of(run, "target"), tables_of(run, "oracle")
    how = Bootstrap(resamples, int(run.manifest.get("seed") or 0), 2 * confidence - 1)
    tried = attacked.entries(run, how)
    return Evidence(
        {**_entries(folder, oracle, how, confidence), **tried["own"]},
        {**({} if target is None else _entries(target, oracle, how, confidence)), **tried["target"]},
        {**({} if oracle is None else _entries(oracle, None, how, confidence)), **tried["oracle"]},
        _item_table(folder),
        _subjects(folder),
    )


def tables_of(run: RunFolder, label: str) -> Path | None:
    """Where the tables of target or oracle are: in the run, or in the run that the manifest names."""
    elsewhere = (run.manifest.get("compared_with") or {}).get(label)
    folder = (run.path if elsewhere is None else run.path / elsewhere) / "eval" / label
    return folder if folder.is_dir() else None


def equivalent(
    metric: str, gate: Gate, asked: Equivalence, seen: Evidence, others: Sequence[Mapping[str, Mapping[str, float]]]
) -> Finding:
    """Two one-sided tests: the mean difference to the oracles, over items and seeds, lies within the margin."""
    name = f"|{metric} - oracles'| <= {asked.margin:g}"
    own = seen.items.get(metric, {})
    tables = [other.get(metric, {}) for other in others]
    ids = sorted(set(own).intersection(*tables)) if tables else []
    if len(tables) < 2:
        return Finding(name, "INCONCLUSIVE", "fewer than two oracles: how far retrained models differ is not known")
    if len(ids) < gate.min_items:
        return Finding(name, "INCONCLUSIVE", f"{len(ids)} items in common with all oracles, of {gate.min_items} needed")
    rows: FloatArray = np.array([[table[key] for key in ids] for table in tables])
    apart = float(np.ptp(rows.mean(1)))
    if apart > asked.margin:
        return Finding(name, "INCONCLUSIVE", f"the oracles differ by {apart:.3g} from each other, more than the margin")
    gaps = np.array([own[key] for key in ids])[None, :] - rows
    names = [seen.subjects.get(key, "") for key in ids]
    if stats.Sample.of(names).optimistic and not gate.few_subjects:
        return Finding(name, "INCONCLUSIVE", "items about fewer than 8 subjects: the interval would be too narrow")
    low, high = stats.t_interval(float(gaps.mean()), stats.difference_parts(gaps, names), 2 * gate.confidence - 1)
    reason = f"{gaps.mean():.3g} [{low:.3g}, {high:.3g}] over {len(ids)} items and {len(tables)} oracles"
    if -asked.margin <= low and high <= asked.margin:
        return Finding(name, "PASS", reason)
    return Finding(name, "FAIL" if low > asked.margin or high < -asked.margin else "INCONCLUSIVE", reason)


def _condition(condition: Condition, gate: Gate, seen: Evidence) -> Finding:
    own = seen.own.get(condition.metric)
    base = {"target": seen.target, "oracle": seen.oracle}.get(condition.of, {}).get(condition.metric)
    why = next(_unusable(condition, gate, own, base), "")
    if why or own is None:
        return Finding(str(condition), "INCONCLUSIVE", why)
    bound = condition.at_most if condition.at_most is not None else condition.at_least
    assert bound is not None
    value, low, high = (float(own[key]) for key in ("agg_value", "ci_low", "ci_high"))
    text = f"{value:.3g} [{low:.3g}, {high:.3g}], n = {own['n']}"
    if base is not None:
        value, low, high = _difference((value, low, high), _triple(base), bound)
        text += f"; less {bound:g} times {float(base['agg_value']):.3g}: {value:.3g} [{low:.3g}, {high:.3g}]"
        bound = 0.0
    passes, fails = (high <= bound, low > bound) if condition.at_most is not None else (low >= bound, high < bound)
    return Finding(str(condition), "PASS" if passes else "FAIL" if fails else "INCONCLUSIVE", text)


def _unusable(
    condition: Condition, gate: Gate, own: Mapping[str, Any] | None, base: Mapping[str, Any] | None
) -> Iterator[str]:
    """Why a condition cannot be decided."""
    if own is None:
        yield f"{condition.metric} was not measured; absent.json says why, or the name is wrong"
        return
    if condition.of != "value" and base is None:
        yield f"the {condition.of} was not judged, or has no {condition.metric}"
    for entry, whose in ((own, ""), (base, f"the {condition.of}'s ")):
        if entry is None:
            continue
        if int(entry.get("n") or 0) < gate.min_items:
            yield f"{whose}{entry.get('n')} items, of {gate.min_items} needed"
        if entry.get("optimistic") and not gate.few_subjects:
            yield f"{whose}items about fewer than 8 subjects: the interval is too narrow to sign"
        if entry.get("void"):
            yield f"{whose}{condition.metric} is void: {entry.get('why')}"
        if any(entry.get(key) is None or not math.isfinite(entry[key]) for key in ("agg_value", "ci_low", "ci_high")):
            yield f"{whose}{condition.metric} has no interval"


def _difference(
    own: tuple[float, float, float], base: tuple[float, float, float], factor: float
) -> tuple[float, float, float]:
    """(value, low, high) of own - factor * base, from their intervals (MOVER); taken as independent, so rather wide."""
    value = own[0] - factor * base[0]
    low = value - math.hypot(own[0] - own[1], factor * (base[2] - base[0]))
    high = value + math.hypot(own[2] - own[0], factor * (base[0] - base[1]))
    return value, low, high


def _triple(entry: Mapping[str, Any]) -> tuple[float, float, float]:
    return float(entry["agg_value"]), float(entry["ci_low"]), float(entry["ci_high"])


def _commands(gate: Gate, run: RunFolder) -> Iterator[Finding]:
    """The user's own tests, one after the other."""
    extra = {"EXPUNGE_RUN": str(run.path), "EXPUNGE_MODEL": str(run.file("model"))}
    for command in gate.commands:
        name = f"command {command.name}"
        try:
            done = subprocess.run(  # nosec B603 - no shell; the gate's author and its user are one
                shlex.split(command.run), env={**os.environ, **extra}, timeout=command.timeout, check=False,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            yield Finding(name, "INCONCLUSIVE", f"cannot be run: {error}")
        except subprocess.TimeoutExpired:
            yield Finding(name, "INCONCLUSIVE", f"not finished after {command.timeout:g} seconds")
        else:
            yield Finding(name, "FAIL" if done.returncode else "PASS", f"exit code {done.returncode}")


def _not_run(gate: Gate, file: Path) -> Iterator[Finding]:
    """The tests of a gate that stands in a folder which somebody may have sent."""
    for command in gate.commands:
        why = f"not run, because it came with the run folder. Read {file}, then give it: --gate {file}"
        yield Finding(f"command {command.name}", "INCONCLUSIVE", why)


def _entries(folder: Path, oracle: Path | None, how: Bootstrap, confidence: float) -> Entries:
    """The numbers of an evaluation folder at the confidence asked for; what only metrics.json has, if that suffices."""
    made = judge_folder(folder, oracle, bootstrap=how).entries()
    file = folder / "metrics.json"
    written = RunFolder(folder).read_json("metrics.json") if file.is_file() and confidence <= _STORED else {}
    return {**written, **made}


def _item_table(folder: Path) -> dict[str, dict[str, float]]:
    """The values by metric and record; of a run folder, those of its oracle or its one judged model."""
    if runfolder.is_run(folder):
        run = runfolder.open(folder)
        label = next((name for name in ("oracle", "model", "unlearned", "target") if name in run.labels), None)
        folder = run.file(f"eval/{label}") if label else folder
    file = folder / runfolder.ITEMS_TABLE
    if not file.is_file():
        raise RunFolderError(f"'{folder}' holds no {runfolder.ITEMS_TABLE}: it is not the evaluation of a model")
    found: dict[str, dict[str, float]] = {}
    for row in pq.read_table(file).to_pylist():
        found.setdefault(row["metric"], {})[row["id"]] = row["value"]
    return found


def _subjects(folder: Path) -> dict[str, str]:
    pairs = (zip(m.answers.ids, m.answers.subjects, strict=True) for m in measure.read_sets(folder).values())
    return {key: subject for pair in pairs for key, subject in pair}
