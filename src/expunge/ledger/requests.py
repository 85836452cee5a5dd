"""Requests as entries: what a run removed and how, in hashes and numbers; earlier requests tested again."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge import gate as gates
from expunge import lm as lms
from expunge import pipeline, runfolder, runs
from expunge import progress as progresses
from expunge.data import overlap
from expunge.data.records import Record
from expunge.evals import verdict
from expunge.evals.verdict import Finding, Outcome
from expunge.ledger import salted
from expunge.ledger.chain import Entry, Ledger, LedgerError
from expunge.ledger.privacy import leaks
from expunge.ledger.salted import Salt
from expunge.lm import LM
from expunge.progress import Progress
from expunge.recipe import Recipe
from expunge.runfolder import GATE, RunFolder
from expunge.sides import records_of

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RETESTS = "retests"
Body = dict[str, Any]


@dataclass(frozen=True)
class Added:
    """What was written: the entry, and the worst outcome among the request's own verdict and the earlier requests'."""

    entry: Entry
    outcome: Outcome


def add(
    ledger: Ledger, run: str | Path, request: str, gate: str | Path | None = None, progress: Progress | None = None
) -> Added:
    """The entry of a finished unlearning run, with every earlier request tested again on its model.

    All is measured first and one line is written at the end: a call that is stopped leaves the ledger as it was, and
    the same call goes on from the tables in the run folder. LedgerError if the name is taken or no plain reference, the
    run is not finished or was changed since, or an earlier request's data no longer have the hashes that were written.
    """
    show = progress or progresses.automatic()
    salt = salted.salt_of(ledger)
    if not ledger.exists:
        ledger.append("ledger", {"format": "expunge-ledger/1", "salt_check": salt.check})
    entries = ledger.entries()
    folder = _usable(run)
    _check_name(request, entries)
    own = verdict.of_run(folder.path, gate, resamples=folder.recipe.evaluation.resamples)
    records = forgotten(folder.recipe)
    lm = lms.load(_model_of(folder), device=lms.device_of(folder.recipe.device))
    after = {"weights": lms.content_hash(lm.model), "files": _files(folder)}
    body: Body = {
        "request": request,
        "run": os.path.relpath(folder.path, ledger.path),
        **_removed(salt.key(request), records),
        "before": {"weights": (folder.manifest.get("model") or {}).get("hash")},
        "after": after,
        "method": {"preset": folder.recipe.method.preset, "recipe": folder.manifest.get("recipe_hash")},
        "expunge": folder.manifest["environment"].get("expunge"),
        "verdict": _told(own.outcome, own.findings, own.claim, own.confidence)
        | {"gate": own.gate_hash, "registered": own.registered},
        "retests": judged_again(ledger, salt, entries, lm, folder.path / RETESTS, show, also=records),
    }
    if shown := leaks(repr(body), records):
        raise LedgerError(
            f"the entry would give away text of record '{shown[0]}'. Choose another name for the request."
        )
    entry = ledger.append("request", body)
    return Added(entry, _worst([own.outcome, *(again["outcome"] for again in body["retests"])]))


def retest(ledger: Ledger, model: str | Path, out: str | Path, progress: Progress | None = None) -> Added:
    """The entry of all requests tested on some model: folder, hub name or run folder. Tables are kept in `out`."""
    salt, entries = salted.salt_of(ledger), ledger.entries()
    latest = [entry for entry in entries if entry.kind == "request"]
    if not latest:
        raise LedgerError(f"the ledger '{ledger.path}' holds no request yet. Add one with: expunge ledger add RUN")
    place = str(runfolder.open(model).file("model")) if runfolder.is_run(model) else str(model)
    recipe = _run_of(ledger, latest[-1]).recipe
    settings = recipe.model.model_copy(update={"model_name_or_path": place, "model_revision": None, "fresh": None})
    lm = lms.load(settings, device=lms.device_of(recipe.device))
    found = judged_again(ledger, salt, entries, lm, Path(out), progress or progresses.automatic())
    entry = ledger.append("retest", {"model": lms.content_hash(lm.model), "retests": found})
    return Added(entry, _worst([again["outcome"] for again in found]))


def judged_again(
    ledger: Ledger,
    salt: Salt,
    entries: Sequence[Entry],
    lm: LM,
    out: Path,
    show: Progress,
    also: Sequence[Record] = (),
) -> list[Body]:
    """The outcome of every request among the entries for a model, by the gate it was first judged by.

    What later requests removed (and `also`) is taken out of an earlier one's other sets, in its target's and oracle's
    tables too: nobody expects a model to keep it. The gates' own commands are not run again.
    """
    requests = [entry for entry in entries if entry.kind == "request"]
    removed = [_records(ledger, salt, entry) for entry in requests] + [list(also)]
    found = []
    for place, entry in enumerate(requests):
        gone = {overlap.key(record) for records in removed[place + 1 :] for record in records}
        run = _run_of(ledger, entry)
        folder = _judged(run, lm, out / f"{entry.number:04d}", gone, show)
        gate = gates.load(folder.file(GATE))
        findings = verdict.decide(gate, verdict.evidence_of(folder, gate.confidence, run.recipe.evaluation.resamples))
        told = _told(verdict.overall(findings), findings, gate.claim, gate.confidence)
        found.append({"request": entry.body["request"], "entry": entry.number, **told})
    return found


def forgotten(recipe: Recipe) -> list[Record]:
    """The records that a run was to remove."""
    return records_of(recipe.data.forget, "forget")


def hashes_differ(ledger: Ledger, salt: Salt, entry: Entry) -> bool:
    """True if the records that the request's recipe names now are not those whose hashes were written."""
    again = _removed(salt.key(entry.body["request"]), records_of_entry(ledger, entry))
    return any(entry.body[name] != value for name, value in again.items())


def own_faults(run: RunFolder) -> list[str]:
    """What differs from the hashes of the run's manifest; tests of earlier requests, which it may hold, left out."""
    return [fault for fault in runfolder.verify(run.path) if not fault.startswith(f"{RETESTS}/")]


def find(entries: Sequence[Entry], request: str) -> Entry:
    """The entry of a request; LedgerError names those there are."""
    named = {entry.body["request"]: entry for entry in entries if entry.kind == "request"}
    if request not in named:
        raise LedgerError(f"there is no request '{request}'. There are: {', '.join(named) or 'none'}.")
    return named[request]


def records_of_entry(ledger: Ledger, entry: Entry) -> list[Record]:
    """The records that a request removed, as its run's recipe names them."""
    return forgotten(_run_of(ledger, entry).recipe)


def _judged(run: RunFolder, lm: LM, out: Path, gone: set[str], show: Progress) -> RunFolder:
    """A run folder in which the model is judged as the request's own model was, beside the same target and oracle."""
    evaluation = run.recipe.evaluation.model_copy(update={"gate": None})
    own = run.recipe.model_copy(update={"output_dir": str(out), "evaluation": evaluation, "overwrite": False})
    folder, _ = runs.begin(own, "evaluate")
    with runfolder.recording(folder):
        sets = pipeline.sets_of(own, run)
        dropped = {r.id for name, rs in sets.items() if name != "forget" for r in rs if overlap.key(r) in gone}
        kept = {name: [r for r in rs if name == "forget" or r.id not in dropped] for name, rs in sets.items()}
        gates.keep(folder, _gate_of(run).read_text(encoding="utf-8"))
        for label in (pipeline.TARGET, pipeline.ORACLE):
            tables = verdict.tables_of(run, label)
            if tables is not None:
                _copy_tables(tables, folder, label, dropped)
        sets_left = {name: records for name, records in kept.items() if records}
        pipeline.judge(own, folder, pipeline.MODEL, lm, sets_left, pipeline.oracle_tables(own, folder), show)
    return folder


def _copy_tables(source: Path, folder: RunFolder, label: str, dropped: set[str]) -> None:
    """Score and generation tables without the rows of the records that were dropped, and the metrics beside them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    other = RunFolder(source)
    for file in (*source.glob("scores/*.parquet"), *source.glob("generations/*.parquet")):
        table = other.read_table(file.relative_to(source))
        if file.stem != "forget" and dropped:
            ids = pc.list_element(pc.split_pattern(table["id"], "#"), 0)
            table = table.filter(pc.invert(pc.is_in(ids, pa.array(sorted(dropped)))))
        if table.num_rows:
            folder.write_table(f"eval/{label}/{file.relative_to(source)}", table)
    if (source / "metrics.json").is_file():
        folder.write_json(f"eval/{label}/metrics.json", other.read_json("metrics.json"))


def _gate_of(run: RunFolder) -> Path:
    """The gate that the run's verdict was made by: the one given afterwards, else the one it began with."""
    return next((run.file(name) for name in ("gate-given.yaml", GATE) if run.has(name)), run.file(GATE))


def _records(ledger: Ledger, salt: Salt, entry: Entry) -> list[Record]:
    if hashes_differ(ledger, salt, entry):
        raise LedgerError(
            f"the data of request '{entry.body['request']}' have changed since it was entered: their salted hashes "
            "differ. Restore the files that its recipe names."
        )
    return records_of_entry(ledger, entry)


def _removed(key: str, records: Sequence[Record]) -> Body:
    marks = [{"hash": salted.record_hash(key, record), "spans": len(record.spans)} for record in records]
    return {"records": marks, "spans_hash": salted.spans_hash(key, records)}


def _usable(run: str | Path) -> RunFolder:
    folder = runfolder.open(run)
    kind, status = folder.manifest["kind"], folder.manifest["status"]
    if kind != "unlearn" or status != "finished":
        raise LedgerError(
            f"'{run}' is a run of kind {kind}, {status}; a request is entered with a finished unlearning run."
        )
    if faults := own_faults(folder):
        raise LedgerError("\n  ".join([f"'{run}' was changed since it finished:", *faults[:5]]))
    return folder


def _check_name(request: str, entries: Sequence[Entry]) -> None:
    if NAME.fullmatch(request) is None:
        raise LedgerError(
            f"'{request}' cannot name a request: use up to 64 letters, digits, dots and dashes, such as case-0017. "
            "Names, addresses and the like do not belong into a record that is kept."
        )
    if any(entry.body.get("request") == request for entry in entries):
        raise LedgerError(
            f"request '{request}' is in the ledger already. Its entry is never changed; choose another name."
        )


def _run_of(ledger: Ledger, entry: Entry) -> RunFolder:
    return runfolder.open(ledger.path / entry.body["run"])


def _model_of(folder: RunFolder) -> Any:
    place = {"model_name_or_path": str(folder.file("model")), "model_revision": None, "fresh": None}
    return folder.recipe.model.model_copy(update=place)


def _files(folder: RunFolder) -> dict[str, str]:
    """SHA-256 of every file of the model but its card, from the manifest, which was just checked."""
    listed = folder.manifest["files"].items()
    return {name: facts["sha256"] for name, facts in listed if name.startswith("model/") and not name.endswith(".md")}


def _told(outcome: Outcome, findings: Sequence[Finding], claim: str, confidence: float) -> Body:
    conditions = [{"condition": f.condition, "outcome": f.outcome, "reason": f.reason} for f in findings]
    return {"outcome": outcome, "claim": claim, "confidence": confidence, "conditions": conditions}


def _worst(outcomes: Sequence[Outcome]) -> Outcome:
    order: Sequence[Outcome] = ("PASS", "INCONCLUSIVE", "FAIL")
    return max(outcomes, key=order.index)
