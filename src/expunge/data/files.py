"""Rows of files: JSON, JSON lines, CSV, Parquet and plain text, each row with the place it came from."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.errors import DataError

LINES = (".jsonl", ".ndjson")
TABLES = (".csv", ".tsv")
SUFFIXES = (".json", *LINES, *TABLES, ".parquet")
"""Suffixes of files that hold many records; a file with another suffix is one text."""


@dataclass(frozen=True)
class Row:
    """One row: `where` it stands, for messages; its `index` from 0; its `values` by column."""

    where: str
    index: int
    values: dict[str, Any]


def rows(path: Path) -> Iterator[Row]:
    """The rows of a file, read as they are asked for (a JSON array is read at once); DataError names file and line."""
    suffix = path.suffix.lower()
    try:
        if suffix in LINES:
            yield from _json_lines(path)
        elif suffix == ".json":
            yield from _json(path)
        elif suffix in TABLES:
            yield from _table(path)
        elif suffix == ".parquet":
            yield from _parquet(path)
        else:
            yield document(path, path.name, 0)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start} of a block). Convert it to UTF-8.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def document(path: Path, name: str, index: int) -> Row:
    """A text file as one row with the columns id and text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(
            f"{path} is neither UTF-8 text nor one of {', '.join(SUFFIXES)}. Convert it, or take it out of the folder."
        ) from None
    return Row(str(path), index, {"id": name, "text": text})


def _json(path: Path) -> Iterator[Row]:
    """An array of rows; or lines; or an object that holds one array of rows, or columns."""
    with path.open(encoding="utf-8-sig") as file:
        first = next((line for line in file if line.strip()), "")
    if first.lstrip().startswith("["):
        yield from _items(path, _parse(path, path.read_text(encoding="utf-8-sig")))
        return
    try:
        json.loads(first)
    except ValueError:
        whole = _parse(path, path.read_text(encoding="utf-8-sig"))
        yield from _items(path, _rows_inside(path, whole))
        return
    yield from _json_lines(path)


def _json_lines(path: Path) -> Iterator[Row]:
    index = 0
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                value = json.loads(line)
            except ValueError as error:
                raise DataError(f"{where}: not valid JSON: {error}. Every line must be one object.") from None
            yield Row(where, index, _as_columns(value, where))
            index += 1


def _items(path: Path, items: list[Any]) -> Iterator[Row]:
    for index, item in enumerate(items):
        where = f"{path}, item {index + 1}"
        yield Row(where, index, _as_columns(item, where))


def _parse(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON: {error}") from None


def _rows_inside(path: Path, value: Any) -> list[Any]:
    lists = {key: item for key, item in value.items() if isinstance(item, list)} if isinstance(value, dict) else {}
    if len(lists) == 1:
        return next(iter(lists.values()))
    if lists and len(lists) == len(value) and len(set(map(len, lists.values()))) == 1:
        return [dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True)]
    if isinstance(value, dict) and not lists:
        return [value]
    raise DataError(f"{path}: expected an array of objects, or one object a line; found {_kind(value)}.")


def _as_columns(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"text": value}
    raise DataError(f"{where}: expected an object with columns, or a text; found {_kind(value)}.")


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return "nothing (null)" if value is None else names.get(type(value), type(value).__name__)


def _table(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        file.seek(0)
        delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            for index, cells in enumerate(reader):
                where = f"{path}, line {reader.line_num}"
                if None in cells:
                    width = len(cells) - 1
                    raise DataError(f"{where}: {width + len(cells[None])} cells, but the header has {width}.")
                yield Row(where, index, {key: cell or None for key, cell in cells.items()})
        except csv.Error as error:
            hint = ""
            if "field larger" in str(error):
                hint = " Texts that long fit into JSON lines or Parquet."
            raise DataError(f"{path}, line {reader.line_num}: not valid CSV: {error}.{hint}") from None


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            index = 0
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    yield Row(f"{path}, row {index + 1}", index, values)
                    index += 1
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a whole Parquet file: {error}") from None
