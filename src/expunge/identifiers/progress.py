"""What an annotation run has found so far: a file that only grows, so a kill costs at most the line being written."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from expunge.data.records import Span
from expunge.identifiers.finding import IdentifierError


@dataclass(frozen=True)
class Found:
    """The spans of one text, what was counted, and the phrases that do not occur in it."""

    spans: tuple[Span, ...]
    counts: Mapping[str, int]
    missing: tuple[str, ...] = ()


@dataclass
class Journal:
    """An open progress file. `known` holds what earlier runs found, by text."""

    path: Path
    known: dict[str, Found]
    _stream: BinaryIO

    def append(self, key: str, found: Found) -> None:
        """One more text; it is in the hands of the system, and so survives a kill, when this returns."""
        line = {"text": key, "spans": [asdict(span) for span in found.spans], "counts": dict(found.counts),
                "missing": list(found.missing)}  # fmt: skip
        self._stream.write(json.dumps(line).encode() + b"\n")
        self._stream.flush()


@contextmanager
def journal(path: Path) -> Iterator[Journal]:
    """The progress file at `path`, new or taken up again; one process at a time. Removed by whoever is done with it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise IdentifierError(
                f"another process is writing '{path}'. Wait until it is done, or write to another file."
            ) from None
        stream.seek(0)
        lines = stream.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        if len(whole) < len(lines):
            os.truncate(stream.fileno(), len(whole))
        try:
            yield Journal(path, dict(_read(whole, path)), stream)
        finally:
            if path.exists() and path.stat().st_size == 0:
                path.unlink()


def _read(lines: bytes, path: Path) -> Iterator[tuple[str, Found]]:
    for number, line in enumerate(lines.splitlines(), start=1):
        try:
            yield _found(json.loads(line))
        except (ValueError, KeyError, TypeError):
            raise IdentifierError(
                f"line {number} of '{path}' is damaged. Delete it and run again; its text is then annotated anew."
            ) from None


def _found(row: Mapping[str, Any]) -> tuple[str, Found]:
    spans = tuple(Span(**span) for span in row["spans"])
    return str(row["text"]), Found(spans, dict(row["counts"]), tuple(row["missing"]))
