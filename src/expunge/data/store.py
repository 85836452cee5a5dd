"""Encoded records in a file instead of in memory: a sequence like any other, with a few blocks held at a time."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from expunge.data.encode import Encoded

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 64
"""Records that are read together: one costs no more than all of them, and they are some tens of kilobytes."""
_HELD = 32
_STATIC = "static/"


class Stored(Sequence[Encoded]):
    """Encoded records in an Arrow file of their own, which is removed with the object; equal to what was put in.

    Read block by block and not mapped into memory, so that the process never holds more than a few blocks, whatever
    order the records are asked for in. The file is in the system's folder for such files, for its owner alone.

    >>> import numpy as np
    >>> one = Encoded("a", np.array([1, 2]), np.array([2, -100]), np.array([[0, 3], [-1, -1]], np.int32), {})
    >>> stored = Stored([one])
    >>> len(stored), stored[0].id, stored[0].offsets.tolist()
    (1, 'a', [[0, 3], [-1, -1]])
    """

    def __init__(self, items: Iterable[Encoded]) -> None:
        descriptor, self._path = tempfile.mkstemp(prefix="expunge-", suffix=".arrow")
        os.close(descriptor)
        self._finalizer = weakref.finalize(self, os.unlink, self._path)
        self._blocks: OrderedDict[int, pa.RecordBatch] = OrderedDict()
        self._size = _write(self._path, iter(items))

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> Encoded: ...
    @overload
    def __getitem__(self, place: slice) -> list[Encoded]: ...
    def __getitem__(self, place: int | slice) -> Encoded | list[Encoded]:
        """The record at a place, or those of a slice as a list."""
        if isinstance(place, slice):
            return [self[index] for index in range(*place.indices(self._size))]
        index = place + self._size if place < 0 else place
        if not 0 <= index < self._size:
            raise IndexError(place)
        return _item(self._block(index // _BLOCK), index % _BLOCK)

    def _block(self, number: int) -> pa.RecordBatch:
        if number not in self._blocks:
            self._blocks[number] = self._reader.get_batch(number)
            if len(self._blocks) > _HELD:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    @cached_property
    def _reader(self) -> Any:
        import pyarrow as pa

        return pa.ipc.open_file(pa.OSFile(self._path))


def _write(path: str, items: Iterator[Encoded]) -> int:
    """Writes the items block by block; how many there were."""
    import pyarrow as pa

    count = 0
    first = list(islice(items, _BLOCK))
    names = sorted(first[0].static) if first else []
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, _schema(names)) as writer:
        block = first
        while block:
            writer.write_batch(pa.RecordBatch.from_pydict(_columns(block, names), _schema(names)))
            count += len(block)
            block = list(islice(items, _BLOCK))
    return count


def _schema(names: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    whole, part = pa.list_(pa.int64()), pa.list_(pa.float32())
    return pa.schema(
        [("id", pa.string()), ("input_ids", whole), ("targets", whole), ("offsets", pa.list_(pa.int32())),
         ("truncated", pa.bool_()), ("shares_token", pa.bool_()), *((_STATIC + name, part) for name in names)]
    )  # fmt: skip


def _columns(block: Sequence[Encoded], names: Sequence[str]) -> dict[str, list[Any]]:
    return {
        "id": [item.id for item in block],
        "input_ids": [item.input_ids for item in block],
        "targets": [item.targets for item in block],
        "offsets": [item.offsets.reshape(-1) for item in block],
        "truncated": [item.truncated for item in block],
        "shares_token": [item.shares_token for item in block],
        **{_STATIC + name: [item.static[name] for item in block] for name in names},
    }


def _item(batch: pa.RecordBatch, row: int) -> Encoded:
    names = [name for name in batch.schema.names if name.startswith(_STATIC)]
    return Encoded(
        id=batch.column("id")[row].as_py(),
        input_ids=_array(batch, "input_ids", row),
        targets=_array(batch, "targets", row),
        offsets=_array(batch, "offsets", row).reshape(-1, 2),
        static={name.removeprefix(_STATIC): _array(batch, name, row) for name in names},
        truncated=batch.column("truncated")[row].as_py(),
        shares_token=batch.column("shares_token")[row].as_py(),
    )


def _array(batch: pa.RecordBatch, name: str, row: int) -> np.ndarray[Any, Any]:
    """One list of a column as an array that can be written to."""
    found: np.ndarray[Any, Any] = batch.column(name)[row].values.to_numpy(zero_copy_only=False).copy()
    return found
