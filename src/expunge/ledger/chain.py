"""A file that only grows: JSON lines, each bound to the one before it by its hash, with the newest hash written aside.

    entries.jsonl   number, kind, time, previous, body, hash: SHA-256 over all of the line but the hash itself
    head.json       how many entries there are, and the hash of the last: a file cut off at its end does not match it
    salt            see `expunge.ledger.salted`

Who can rewrite the folder can rewrite all of it. The hash that `append` gives back, kept elsewhere, proves that.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from expunge.errors import ExpungeError
from expunge.runfolder import plain, replacing

FORMAT = "expunge-ledger/1"
ENTRIES, HEAD = "entries.jsonl", "head.json"
Kind = Literal["ledger", "request", "retest"]
_NOTHING = "0" * 64


class LedgerError(ExpungeError):
    """A ledger is damaged, was tampered with, or does not hold what was asked of it."""


@dataclass(frozen=True)
class Entry:
    """One line: `body` is what it says, `hash` is over everything else, `previous` is the hash of the line before."""

    number: int
    kind: Kind
    time: str
    previous: str
    body: Mapping[str, Any]
    hash: str = ""

    def digest(self) -> str:
        """SHA-256 (64 hex digits) over the entry without its hash, as JSON with sorted keys.

        >>> entry = Entry(0, "ledger", "2026-01-01T00:00:00+00:00", "0" * 64, {})
        >>> entry.digest()[:16]
        '1513b11793e4f973'
        """
        rest = {name: value for name, value in asdict(self).items() if name != "hash"}
        return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Ledger:
    """A ledger on disk. Holds nothing but its folder: every read sees what is there now."""

    path: Path

    @property
    def exists(self) -> bool:
        """True if the folder holds entries, or traces of some."""
        return any(self.read())

    def entries(self) -> list[Entry]:
        """All entries in order; LedgerError if there are none, or if any fault is found."""
        entries, faults = self.read()
        if faults:
            raise LedgerError("\n  ".join([f"the ledger '{self.path}' is not what was written:", *faults]))
        if not entries:
            raise LedgerError(f"there is no ledger in '{self.path}'. Begin one with: expunge ledger add RUN")
        return entries

    def read(self) -> tuple[list[Entry], list[str]]:
        """The entries as far as they can be read, and a line for each fault. A line that a crash tore is neither."""
        if not (self.path / ENTRIES).is_file():
            return self._read([])
        with _locked(self.path / ENTRIES, fcntl.LOCK_SH) as stream:
            return self._read(_whole_lines(stream))

    def append(self, kind: Kind, body: Mapping[str, Any]) -> Entry:
        """The new last entry, on disk when this returns; one process at a time. LedgerError if the ledger has faults.

        A crash on the way leaves the old ledger, or a torn line that the next append removes, or the new ledger with
        the old head, which is known by its being exactly one entry behind.
        """
        with _locked(self.path / ENTRIES, fcntl.LOCK_EX) as stream:
            lines = _whole_lines(stream)
            entries, faults = self._read(lines)
            if faults:
                raise LedgerError("\n  ".join(["nothing is added to a ledger with faults:", *faults]))
            os.ftruncate(stream.fileno(), sum(map(len, lines)))
            previous = entries[-1].hash if entries else _NOTHING
            now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            entry = Entry(len(entries), kind, now, previous, plain(body))
            entry = replace(entry, hash=entry.digest())
            stream.write(json.dumps(asdict(entry), sort_keys=True).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
            with replacing(self.path / HEAD) as head:
                head.write(json.dumps({"entries": entry.number + 1, "hash": entry.hash}).encode() + b"\n")
        return entry

    def _read(self, lines: list[bytes]) -> tuple[list[Entry], list[str]]:
        entries: list[Entry] = []
        previous = _NOTHING
        for number, line in enumerate(lines):
            try:
                entry = Entry(**json.loads(line))
                fault = _fault(entry, number, previous)
            except (ValueError, TypeError):
                return entries, [f"entry {number} cannot be read; all after it is unproven"]
            if fault:
                return entries, [f"entry {number} {fault}; all after it is unproven"]
            entries.append(entry)
            previous = entry.hash
        return entries, list(self._head_faults(entries))

    def _head_faults(self, entries: list[Entry]) -> Iterator[str]:
        try:
            head = json.loads((self.path / HEAD).read_text(encoding="utf-8"))
            count, digest = int(head["entries"]), str(head["hash"])
        except (OSError, ValueError, TypeError, KeyError):
            if len(entries) > 1:
                yield f"{HEAD} is missing or cannot be read: whether entries were cut off at the end is unknown"
            return
        if count > len(entries):
            yield f"{count - len(entries)} of {count} entries were cut off at the end"
        elif count < 1 or entries[count - 1].hash != digest:
            yield f"{HEAD} names another entry {count - 1} than there is"
        elif count + 1 < len(entries):
            yield f"{len(entries) - count} entries stand behind the one that {HEAD} names"


def _fault(entry: Entry, number: int, previous: str) -> str:
    if entry.number != number:
        return f"is numbered {entry.number}"
    if entry.previous != previous:
        return "does not follow from the one before it"
    return "" if entry.digest() == entry.hash else "was changed: its hash does not fit"


@contextmanager
def _locked(path: Path, how: int) -> Iterator[BinaryIO]:
    """The file, held by this process alone (or by readers alone) until the block ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+" if how == fcntl.LOCK_EX else "rb") as stream:
        fcntl.flock(stream, how)
        stream.seek(0)
        yield stream


def _whole_lines(stream: BinaryIO) -> list[bytes]:
    return [line for line in stream.read().splitlines(keepends=True) if line.endswith(b"\n")]
