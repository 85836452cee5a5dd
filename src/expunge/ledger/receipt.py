"""What a requester is given: how their records were removed, in hashes and numbers, and what that does not prove."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge import runfolder
from expunge.data.records import Record
from expunge.ledger import salted
from expunge.ledger.chain import Entry, Ledger, LedgerError
from expunge.ledger.privacy import leaks
from expunge.ledger.requests import find, hashes_differ, own_faults
from expunge.report.card import LIMITS
from expunge.runfolder import replacing

FORMAT = "expunge-receipt/1"
_FROM_ENTRY = ("request", "records", "spans_hash", "before", "after", "method", "expunge", "verdict")
_HOW = (
    "A record's hash is HMAC-SHA256, under a key that belongs to this request alone, over its prompt, answer and text "
    "with the byte 1F between them. With the key: expunge ledger match RECEIPT --key KEY --data FILE."
)


def receipt(ledger: Ledger, request: str) -> dict[str, Any]:
    """The receipt of a request: its entry, every later test of it, where the ledger stands now. It quotes no text."""
    entries = ledger.entries()
    entry = find(entries, request)
    return {
        "format": FORMAT,
        **{name: entry.body[name] for name in _FROM_ENTRY},
        "entered": entry.time,
        "ledger": {"entry": entry.number, "entry_hash": entry.hash, "entries": len(entries), "head": entries[-1].hash},
        "tested_again": list(_later(entries, entry)),
        "hashes": _HOW,
        "limits": list(LIMITS),
    }


def write(ledger: Ledger, request: str, path: Path, records: Iterable[Record], key: Path | None = None) -> Path:
    """The file with the receipt; with `key`, the request's key goes into a file that its owner alone can read.

    LedgerError, and no file, if the receipt would give away text of one of the records.
    """
    text = json.dumps(receipt(ledger, request), indent=2, ensure_ascii=False) + "\n"
    if shown := leaks(text, records):
        raise LedgerError(f"the receipt would give away text of record '{shown[0]}', so it is not written.")
    if key is not None:
        salted.write_secret(key, salted.salt_of(ledger).key(request))
    with replacing(path) as stream:
        stream.write(text.encode())
    return path


def read(path: Path) -> dict[str, Any]:
    """The receipt in a file; LedgerError if it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise LedgerError(f"'{path}' is no receipt ({FORMAT}). Make one with: expunge ledger receipt REQUEST")
    return found


def match(given: Mapping[str, Any], key: str, records: Sequence[Record]) -> list[str]:
    """Ids of those of the records that the receipt does not name."""
    named = {mark["hash"] for mark in given["records"]}
    return [record.id for record in records if salted.record_hash(key, record) not in named]


def faults(given: Mapping[str, Any], entries: Sequence[Entry]) -> list[str]:
    """In what the receipt differs from the ledger: an entry that is gone or another, a value that was changed."""
    where = given.get("ledger") or {}
    number = where.get("entry")
    if not isinstance(number, int) or not 0 <= number < len(entries) or entries[number].hash != where.get("entry_hash"):
        return ["the receipt's entry is not in this ledger"]
    body = entries[number].body
    found = [f"the receipt's '{n}' is not what was entered" for n in _FROM_ENTRY if given.get(n) != body[n]]
    if where.get("head") not in {entry.hash for entry in entries}:
        found.append("the ledger has lost what was its newest entry when the receipt was made: it was cut or rewritten")
    return found


def _later(entries: Sequence[Entry], entry: Entry) -> Iterable[dict[str, Any]]:
    """When the request was tested again, and how that came out."""
    for later in entries[entry.number + 1 :]:
        for again in later.body["retests"]:
            if again["entry"] == entry.number:
                model = later.body["after"]["weights"] if later.kind == "request" else later.body["model"]
                yield {"entry": later.number, "time": later.time, "model": model, "outcome": again["outcome"]}


def checked(ledger: Ledger) -> list[str]:
    """What differs between the ledger and the files it speaks of: runs, weights, records; a line each."""
    requests = [entry for entry in ledger.entries() if entry.kind == "request"]
    return [f"{entry.body['request']}: {fault}" for entry in requests for fault in _file_faults(ledger, entry)]


def _file_faults(ledger: Ledger, entry: Entry) -> Iterable[str]:
    folder = ledger.path / entry.body["run"]
    if not runfolder.is_run(folder):
        yield f"the run folder '{entry.body['run']}' is gone"
        return
    run = runfolder.open(folder)
    yield from own_faults(run)
    for name, digest in entry.body["after"]["files"].items():
        if (run.manifest["files"].get(name) or {}).get("sha256") != digest:
            yield f"{name} is not the file that was entered"
    if hashes_differ(ledger, salted.salt_of(ledger), entry):
        yield "the records that the recipe names are not those that were entered"
