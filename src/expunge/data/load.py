"""Records from wherever the user has them: files, folders of documents, data sets of the hub."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.data import files
from expunge.data.columns import Columns, resolve, to_row
from expunge.data.files import Row
from expunge.data.records import Record, Split
from expunge.errors import DataError

if TYPE_CHECKING:
    from expunge.recipe import Source

_SHOWN = 5
_TOFU = re.compile(r"retain_perturbed|(forget|retain|holdout)\d\d(_perturbed|_annotated)?")
_TOFU_FIRST = {"forget01": 198, "forget05": 190, "forget10": 180}
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")


def load(source: Source, split: Split, *, name_prefix: str | None = None) -> list[Record]:
    """All records of a source, with ids that no two of them share.

    A record keeps the id of its row, or is called SPLIT-00000 by its place in the source (before `skip`);
    `name_prefix` replaces SPLIT. In TOFU's files the subject is author-N, N the author's number in the full set.
    DataError names file and line of up to five faulty rows, or that there are no records.
    """
    faults: list[str] = []
    records = list(_records(source, split, name_prefix or split, faults))
    if faults:
        more = "" if len(faults) <= _SHOWN else f"\n  and {len(faults) - _SHOWN} more"
        raise DataError("\n  ".join([f"{len(faults)} rows cannot be used:", *faults[:_SHOWN]]) + more)
    if not records:
        skipped = f" after the {source.skip} that are skipped" if source.skip else ""
        raise DataError(f"{_name(source)} has no records{skipped}.")
    _refuse_repeated_ids(records, _name(source))
    return records


def iterate(source: Source, split: Split, *, name_prefix: str | None = None) -> Iterator[Record]:
    """The records of a source one after the other, for what does not fit into memory.

    Files are read as records are asked for (a JSON array is read at once), hub data sets are streamed. The first
    faulty row is an error. Repeated ids are not found.
    """
    return _records(source, split, name_prefix or split, None)


def save(path: str | Path, records: Sequence[Record]) -> None:
    """Writes the records as JSON lines that `load` reads back to equal records (but for their split)."""
    lines = (json.dumps(to_row(record), ensure_ascii=False) + "\n" for record in records)
    Path(path).write_text("".join(lines), encoding="utf-8")


def _records(source: Source, split: Split, prefix: str, faults: list[str] | None) -> Iterator[Record]:
    stem, rows = _rows(source, split, stream=faults is None)
    layouts: dict[frozenset[str], Columns] = {}
    stop = None if source.limit is None else source.skip + source.limit
    for row in rows:
        if stop is not None and row.index >= stop:
            return
        if row.index < source.skip:
            continue
        try:
            found = frozenset(row.values)
            if found not in layouts:
                layouts[found] = resolve(row.values, source.columns, row.where)
            subject = _tofu_subject(stem, row)
            yield layouts[found].record(row, split, id=f"{prefix}-{row.index:05d}", subject=subject)
        except DataError as error:
            if faults is None or not layouts:
                raise
            faults.append(str(error))


def _rows(source: Source, split: Split, *, stream: bool) -> tuple[str, Iterator[Row]]:
    """The name that tells TOFU's files, and the rows."""
    if source.dataset_name is not None and source.path is not None:
        raise DataError(f"both a path ({source.path}) and a data set ({source.dataset_name}) are given; give one.")
    if source.dataset_name is not None:
        stem = source.dataset_config or "" if source.dataset_name.lower().endswith("/tofu") else ""
        return stem, _hub_rows(source, stream)
    if source.path is None:
        raise DataError(f"the {split} set names neither a path nor a dataset_name; give one of them.")
    path = Path(source.path).expanduser()
    if path.is_file():
        return path.stem, files.rows(path)
    if path.is_dir():
        return _folder_rows(path, source, split)
    near = difflib.get_close_matches(path.name, sorted(p.name for p in path.parent.glob("*")), n=1)
    hint = f" Did you mean {path.parent / near[0]}?" if near else ""
    raise DataError(f"there is no file or folder {path}.{hint}")


def _folder_rows(folder: Path, source: Source, split: Split) -> tuple[str, Iterator[Row]]:
    """The rows of the one data file of a folder, of the file named as the split, of its shards, or its documents."""
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return "", _saved_rows(folder, source.dataset_split)
    found = sorted(p for p in folder.rglob("*") if p.is_file() and not _hidden(p.relative_to(folder)))
    tables = [p for p in found if p.suffix.lower() in files.SUFFIXES]
    if not tables:
        if not found:
            raise DataError(f"the folder {folder} has no files.")
        return "", (files.document(p, p.relative_to(folder).as_posix(), i) for i, p in enumerate(found))
    named = [p for p in tables if p.stem == split and p.parent == folder]
    if len(named) == 1 or len(tables) == 1:
        table = (named or tables)[0]
        return table.stem, files.rows(table)
    stems = {_SHARD.sub("", p.stem) for p in tables}
    if len(stems) == 1 and all(_SHARD.search(p.stem) for p in tables):
        return stems.pop(), _joined(tables)
    names = ", ".join(p.relative_to(folder).as_posix() for p in tables[:12]) + (", ..." if len(tables) > 12 else "")
    raise DataError(f"the folder {folder} has several data files: {names}. Give the path of one of them.")


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _joined(paths: Sequence[Path]) -> Iterator[Row]:
    index = 0
    for path in paths:
        for row in files.rows(path):
            yield replace(row, index=index)
            index += 1


def _hub_rows(source: Source, stream: bool) -> Iterator[Row]:
    """The rows of a data set of the hub; everything that can go wrong on the way is said in our words."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    name = _name(source)
    try:
        data = load_dataset(source.dataset_name, source.dataset_config, split=source.dataset_split, streaming=stream)
        for index, values in enumerate(data):
            yield Row(f"{name}, row {index + 1}", index, dict(values))
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise DataError(_hub_message(name, source, error)) from None


def _hub_message(name: str, source: Source, error: Exception) -> str:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    text = " ".join(str(error).split())
    asked = f"the data set {name} was asked for (split '{source.dataset_split}')"
    if "Config name is missing" in text or "BuilderConfig" in text or "Unknown split" in text:
        return f"{asked}: {text[:300]} Set dataset_config and dataset_split to what there is."
    if "gated" in text.lower() or "401" in text or "403" in text:
        return f"{asked}, but the hub wants you to log in and accept its terms. Run `hf auth login`, or give a path."
    if HF_HUB_OFFLINE or isinstance(error, OSError):
        state = "HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else "the hub cannot be reached"
        return f"{asked}, but {state} and it is not in the cache. Download it where there is a network, or give a path."
    return f"{asked}, but it cannot be read: {text[:300]}"


def _saved_rows(folder: Path, split: str) -> Iterator[Row]:
    """The rows of a folder that `datasets` saved."""
    from datasets import DatasetDict, load_from_disk

    try:
        data: Any = load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise DataError(f"the folder {folder} looks like a saved data set, but cannot be read: {error}") from None
    if isinstance(data, DatasetDict):
        if split not in data:
            raise DataError(f"the data set {folder} has no split '{split}'. There are: {', '.join(map(str, data))}.")
        data = data[split]
    for index, values in enumerate(data):
        yield Row(f"{folder}, row {index + 1}", index, dict(values))


def _name(source: Source) -> str:
    return " ".join(filter(None, (source.path, source.dataset_name, source.dataset_config)))


def _tofu_subject(stem: str, row: Row) -> str:
    """TOFU's files list twenty questions an author, in the order of the full set; '' for other files."""
    if _TOFU.fullmatch(stem) is None or not {"question", "answer"} <= set(row.values):
        return ""
    first = _TOFU_FIRST.get(stem[:8], 0)
    name = "holdout-author" if stem.startswith("holdout") else "author"
    return f"{name}-{first + row.index // 20}"


def _refuse_repeated_ids(records: Sequence[Record], name: str) -> None:
    seen: dict[str, int] = {}
    for place, record in enumerate(records, 1):
        if record.id in seen:
            raise DataError(
                f"{name}: the records {seen[record.id]} and {place} have the same id '{record.id}'. "
                'Make ids unique, or set columns to {id: ""} and they are numbered.'
            )
        seen[record.id] = place
