"""Hashes that name a text without letting anybody guess it: HMAC-SHA256 under keys that follow from a secret salt.

A name, a date or a telephone number can be guessed in seconds from its plain SHA-256, by hashing all there are. So
every ledger has 32 secret random bytes, in a file that its owner alone can read, or in the environment. Each request
has a key of its own that follows from the salt: given to the requester, it lets them check their own texts and nobody
else's.
"""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from expunge.data.records import Record
from expunge.ledger.chain import Ledger, LedgerError

FILE, VARIABLE = "salt", "EXPUNGE_LEDGER_SALT"
_SHORTEST = 16


@dataclass(frozen=True)
class Salt:
    """The secret of a ledger. It is in no repr, no entry and no message."""

    secret: bytes = field(repr=False)

    @property
    def check(self) -> str:
        """What the ledger's first entry holds, so that another salt is noticed (64 hex digits)."""
        return _mac(self.secret, b"expunge-ledger")

    def key(self, request: str) -> str:
        """The key of one request (64 hex digits): tells nothing of the salt, nor of other requests' keys."""
        return _mac(self.secret, b"request/" + request.encode())


def record_hash(key: str, record: Record) -> str:
    """HMAC-SHA256 (64 hex digits) over prompt, answer and text.

    >>> one, other = Record("a", "Who?", "Ada"), Record("b", "Who?", "Ada")
    >>> record_hash("00", one) == record_hash("00", other), record_hash("00", one) == record_hash("01", one)
    (True, False)
    """
    return _mac(bytes.fromhex(key), record.content)


def spans_hash(key: str, records: Iterable[Record]) -> str:
    """HMAC-SHA256 (64 hex digits) over places, weights and labels of all spans, record by record."""
    marks = [[(s.field, s.start, s.end, s.weight, s.label) for s in record.spans] for record in records]
    return _mac(bytes.fromhex(key), repr(marks).encode())


def salt_of(ledger: Ledger) -> Salt:
    """The salt of a ledger: from EXPUNGE_LEDGER_SALT (hex), else from its file, which a new ledger is given.

    LedgerError if it is missing, too short, not the one the ledger was begun with, or readable by others.
    """
    given = os.environ.get(VARIABLE)
    salt = Salt(_decoded(given, VARIABLE)) if given is not None else _from_file(ledger)
    if ledger.exists and ledger.entries()[0].body.get("salt_check") != salt.check:
        raise LedgerError(f"the salt is not the one that the ledger '{ledger.path}' was begun with. Restore that one.")
    return salt


def _from_file(ledger: Ledger) -> Salt:
    path = ledger.path / FILE
    if not path.exists():
        if ledger.exists:
            raise LedgerError(f"the ledger '{ledger.path}' has no file '{FILE}'. Restore it, or set {VARIABLE}.")
        ledger.path.mkdir(parents=True, exist_ok=True)
        write_secret(path, secrets.token_hex(32))
    others = stat.S_IMODE(path.stat().st_mode) & 0o077
    if others:
        raise LedgerError(f"'{path}' can be read by others, so its hashes can be undone. Do: chmod 600 {path}")
    return Salt(_decoded(path.read_text(encoding="utf-8"), str(path)))


def write_secret(path: Path, text: str) -> None:
    """A new file that its owner alone can read, on disk when this returns; LedgerError if there is one already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise LedgerError(f"'{path}' cannot be written: {error.strerror}. Choose another file.") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def read_key(path: Path) -> str:
    """The key in a file that `write_secret` made (64 hex digits); LedgerError if it is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise LedgerError(f"'{path}' cannot be read. Give the file with the request's key.") from None
    return _decoded(text, str(path)).hex()


def _decoded(text: str, where: str) -> bytes:
    """The bytes that hex digits stand for; what they were is told to nobody."""
    try:
        found = bytes.fromhex(text.strip())
    except ValueError:
        found = b""
    if len(found) < _SHORTEST:
        raise LedgerError(f"{where} must hold at least {2 * _SHORTEST} hex digits. Make them: openssl rand -hex 32")
    return found


def _mac(key: bytes, content: bytes) -> str:
    return hmac.new(key, content, "sha256").hexdigest()
