"""Tables on disk that say what made them: a key in the metadata of a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from expunge.runfolder import replacing

_METADATA = b"expunge"


def with_key(table: pa.Table, key: Mapping[str, str]) -> pa.Table:
    """The table with a key of what made it in its metadata; `key_of` reads it back from a file."""
    return table.replace_schema_metadata({_METADATA: json.dumps(dict(key), sort_keys=True)})


def key_of(path: Path) -> dict[str, str]:
    """The key a table was written with; empty if there is no such file, or it cannot be read, or it has no key."""
    if not path.is_file():
        return {}
    try:
        metadata = pq.read_schema(path).metadata or {}
        key = json.loads(metadata.get(_METADATA, b"{}"))
    except (pa.ArrowException, OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in key.items()} if isinstance(key, dict) else {}


def write(path: Path, table: pa.Table, key: Mapping[str, str]) -> None:
    """Writes the table with its key, whole or not at all."""
    with replacing(path) as stream:
        pq.write_table(with_key(table, key), stream)


def read(path: Path, key: Mapping[str, str]) -> pa.Table | None:
    """The table of a file that was written with just this key; None if there is none, or it is damaged."""
    if key_of(path) != dict(key):
        return None
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError):
        return None
