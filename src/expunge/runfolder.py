"""The run folder: all that a run leaves on disk, and the only thing that evaluation and report read of it.

    manifest.json   what ran, on what, with which versions; at the end the SHA-256 of every file below
    recipe.yaml     every setting, as resolved
    log.jsonl       one line a step
    diagnostics.jsonl  how far the model drifts on what it should keep, one line an epoch
    spans.jsonl     the annotation that was used
    gate.yaml       what the model must show, as it was when the run began;  verdict.json  whether it does
    tokens.parquet  tokens of some records with their weights, epoch by epoch (TOKENS)
    eval/LABEL/     scores/NAME.parquet, generations/NAME.parquet, kl/OTHER/NAME.parquet, items.parquet (ITEMS),
                    metrics.json, absent.json;
                    LABEL is target, oracle, unlearned, or model for one that was only evaluated
    attacks/NAME/   what an attack saw, record by record, and what it was;  attacks.json  what all attacks together say
    measured/       tables and sheet.json of a measurement, such as selectivity (kind measure)
    scores/         scores that were prepared before training, a table for each scorer and side
    checkpoints/  model/  report.html

Files are written beside their place and renamed, so a reader sees the old file or the new one, never half of one.
Of several processes of a run only the main one writes; what the others write goes nowhere.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import io
import json
import math
import os
import platform
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from expunge import ranks
from expunge import recipe as recipes
from expunge.errors import Interrupted, RunFolderError

Kind = Literal["unlearn", "finetune", "evaluate", "study", "measure"]
Status = Literal["running", "finished", "interrupted", "failed"]
FORMAT = "expunge-run/1"
MANIFEST, RECIPE, LOG, DIAGNOSTICS, SPANS, RETAIN, TOKENS_TABLE, REPORT = (
    "manifest.json", "recipe.yaml", "log.jsonl", "diagnostics.jsonl", "spans.jsonl", "retain.jsonl", "tokens.parquet",
    "report.html",
)  # fmt: skip
EPOCHS = "epochs.jsonl"
GATE, VERDICT = "gate.yaml", "verdict.json"
MEASURED = "measured"
ATTACKS, ATTACKS_RESULT = "attacks", "attacks.json"
SCORES = "scores"
ARTEFACTS = "artefacts"
_FOLDERS = ("checkpoints", "model", "eval", MEASURED, SCORES, ATTACKS, ARTEFACTS)
_UNSEALED = {MANIFEST, REPORT}
_PACKAGES = (
    "torch", "transformers", "accelerate", "tokenizers", "safetensors", "datasets", "peft", "numpy", "scipy", "pyarrow",
)  # fmt: skip
_NO_NUMBER = frozenset({"name", "output_dir", "overwrite"})

TOKENS = pa.schema(
    [
        ("id", pa.string()),
        ("epoch", pa.float32()),
        ("tokens", pa.list_(pa.string())),
        ("weight", pa.list_(pa.float32())),
        ("gold", pa.list_(pa.float32())),
        ("logp", pa.list_(pa.float32())),
        ("entropy", pa.list_(pa.float32())),
        ("start", pa.list_(pa.int32())),
        ("end", pa.list_(pa.int32())),
    ]
)
"""Columns of tokens.parquet: a row per record and epoch (epoch 0 is before training), lists per scored token.

Columns `prompt` (string) and `text` (string, the whole answer) may follow; the report shows them where they are.
"""

ITEMS_TABLE = "items.parquet"
ITEMS = pa.schema([("metric", pa.string()), ("id", pa.string()), ("value", pa.float64())])
"""Columns of eval/LABEL/items.parquet: the values by record that a metric is the mean of, for paired comparisons."""


@dataclass(frozen=True)
class RunFolder:
    """One run on disk. Holds nothing but its path: every read sees what is there now."""

    path: Path

    @property
    def manifest(self) -> dict[str, Any]:
        """The facts of the run; RunFolderError if the file is not a manifest."""
        return _read_manifest(self.path)

    @property
    def recipe(self) -> recipes.Recipe:
        """The recipe as it was resolved; RunFolderError if the run recorded none."""
        if not self.has(RECIPE):
            raise RunFolderError(f"run '{self.path}' has no {RECIPE}. It was written without a recipe.")
        return recipes.load(self.file(RECIPE))

    @property
    def labels(self) -> list[str]:
        """The models that were evaluated here: names of the folders under eval/, sorted."""
        return self._children("eval", lambda child: child.is_dir())

    def tables(self, label: str, what: Literal["scores", "generations"]) -> list[str]:
        """Names of the data sets with a table under eval/LABEL/scores or eval/LABEL/generations, sorted."""
        names = self._children(f"eval/{label}/{what}", lambda child: child.suffix == ".parquet")
        return [name.removesuffix(".parquet") for name in names]

    def _children(self, relative: str, keep: Callable[[Path], bool]) -> list[str]:
        folder = self.file(relative)
        return sorted(child.name for child in folder.iterdir() if keep(child)) if folder.is_dir() else []

    def file(self, relative: str | Path) -> Path:
        """The path of a file of the run; RunFolderError if it would lie outside the folder."""
        root = self.path.resolve()
        path = (root / relative).resolve()
        if path != root and not path.is_relative_to(root):
            raise RunFolderError(f"'{relative}' lies outside the run folder '{self.path}'. Give a path inside it.")
        return path

    def has(self, relative: str | Path) -> bool:
        """True if the run holds this file or folder."""
        return self.file(relative).exists()

    def update(self, **facts: object) -> None:
        """Manifest with these facts set; mappings are merged one level deep, so data={...} adds a split."""
        manifest = self.manifest
        for key, value in facts.items():
            old = manifest.get(key)
            both = isinstance(value, Mapping) and isinstance(old, dict)
            manifest[key] = {**old, **value} if both else value  # type: ignore[dict-item]
        self.write_json(MANIFEST, manifest)

    def append_log(self, entry: Mapping[str, object]) -> None:
        """One more line of log.jsonl. Not a rename: a crash costs at most the line that was being written."""
        if not ranks.here().main:
            return
        line = json.dumps(plain(entry), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with self.file(LOG).open("ab+") as stream:
            if stream.tell() and not _ends_a_line(stream):
                line = b"\n" + line
            stream.write(line)

    def read_log(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl in order, without any that a crash tore; empty if nothing was logged."""
        return self.read_lines(LOG) if self.has(LOG) else []

    def trim_log(self, last_step: int) -> None:
        """log.jsonl without the lines after `last_step`: what a resumed run does before it goes on."""
        self.write_lines(LOG, (line for line in self.read_log() if line.get("step", 0) <= last_step))

    def write_table(self, relative: str | Path, table: pa.Table) -> Path:
        """Path of the Parquet file that now holds `table`."""
        with replacing(self.file(relative)) as stream:
            pq.write_table(table, stream, compression="zstd")
        return self.file(relative)

    def read_table(self, relative: str | Path, columns: list[str] | None = None) -> pa.Table:
        """The table of a Parquet file of the run; RunFolderError if there is none or it is damaged."""
        path = self._existing(relative)
        try:
            return pq.read_table(path, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise RunFolderError(
                f"table '{path}' cannot be read: {_one_line(error)}. Evaluate the run again."
            ) from None

    def write_json(self, relative: str | Path, value: object) -> Path:
        """Path of the JSON file that now holds `value`; numbers that are not finite become null."""
        return self.write_text(relative, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")

    def read_json(self, relative: str | Path) -> Any:
        """The value of a JSON file of the run; RunFolderError if there is none or it is damaged."""
        path = self._existing(relative)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunFolderError(f"'{path}' is not JSON: {_one_line(error)}. Restore it or run again.") from None

    def write_lines(self, relative: str | Path, rows: Iterable[Mapping[str, object]]) -> Path:
        """Path of the JSONL file that now holds `rows`, one a line."""
        lines = (json.dumps(plain(row), ensure_ascii=False) + "\n" for row in rows)
        return self.write_text(relative, "".join(lines))

    def read_lines(self, relative: str | Path) -> list[dict[str, Any]]:
        """The rows of a JSONL file, without lines that are not whole."""
        rows = []
        for line in self._existing(relative).read_text(encoding="utf-8", errors="replace").split("\n"):
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                rows.append(row)
        return rows

    def write_text(self, relative: str | Path, text: str) -> Path:
        """Path of the UTF-8 file that now holds `text`."""
        path = self.file(relative)
        with replacing(path) as stream:
            stream.write(text.encode("utf-8", "replace"))
        return path

    def finish(self, status: Status = "finished", **facts: object) -> None:
        """Manifest with the end of the run, and the SHA-256 and size of every file it made."""
        self.update(status=status, finished=_now(), **facts)
        self.seal()

    def seal(self) -> None:
        """Manifest with fresh hashes: for whoever adds tables to a run that has finished."""
        if not ranks.here().main:
            return
        for leftover in self.path.rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        manifest = self.manifest
        manifest["files"] = {name: _fingerprint(path) for name, path in _sealed(self.path)}
        self.write_json(MANIFEST, manifest)

    def _existing(self, relative: str | Path) -> Path:
        path = self.file(relative)
        if not path.is_file():
            beside = sorted(child.name for child in path.parent.iterdir()) if path.parent.is_dir() else []
            found = ", ".join(beside[:20]) or "nothing"
            raise RunFolderError(f"run '{self.path}' has no '{relative}'. Found beside it: {found}.")
        return path


def create(
    path: str | Path, kind: Kind, recipe: recipes.Recipe | None = None, overwrite: bool = False, name: str | None = None
) -> RunFolder:
    """A new run folder with manifest and recipe, status 'running'.

    Refuses a folder that holds another run unless `overwrite`, and any other folder that is not empty, always.
    Overwriting removes the files of the old run (and of runs inside it, as in a demo) and leaves all others.
    """
    root = Path(path).expanduser().resolve()
    if root.exists() and not root.is_dir():
        raise RunFolderError(f"output folder '{path}' is a file. Choose another output_dir.")
    if root.is_dir() and any(root.iterdir()):
        _make_room(root, path, overwrite)
    root.mkdir(parents=True, exist_ok=True)
    run = RunFolder(root)
    manifest: dict[str, object] = {
        "format": FORMAT,
        "kind": kind,
        "name": name or (recipe.name if recipe else kind),
        "status": "running",
        "created": _now(),
        "finished": None,
        "environment": environment(),
        "recipe_hash": recipe_hash(recipe) if recipe else None,
        "seed": recipe.seed if recipe else None,
        "data": {},
        "model": {},
        "files": {},
    }
    run.write_json(MANIFEST, manifest)
    if recipe is not None:
        run.write_text(RECIPE, recipes.dump(recipe))
    return run


def open(path: str | Path) -> RunFolder:
    """The run in a folder; RunFolderError if there is none."""
    root = Path(path).expanduser().resolve()
    _read_manifest(root)
    return RunFolder(root)


def is_run(path: str | Path) -> bool:
    """True if the folder holds a run."""
    try:
        _read_manifest(Path(path))
    except RunFolderError:
        return False
    return True


@contextmanager
def recording(run: RunFolder) -> Iterator[RunFolder]:
    """The run, whose manifest says at the end whether it finished, was interrupted, or failed and why."""
    try:
        yield run
    except (KeyboardInterrupt, Interrupted) as stop:
        run.finish("interrupted", error=_one_line(stop) or "interrupted from the keyboard")
        raise
    except BaseException as error:
        run.finish("failed", error=f"{type(error).__name__}: {_one_line(error)}")
        raise
    run.finish("finished")


def verify(path: str | Path) -> list[str]:
    """What differs from the hashes of the manifest, one line each, runs inside it included; empty if nothing does.

    Finds damage and careless edits. Who can rewrite a file can rewrite the manifest too: it is no signature.
    """
    run = open(path)
    listed = run.manifest.get("files") or {}
    faults = []
    if not listed:
        faults.append("no hashes: the run has not finished")
    present = dict(_sealed(run.path))
    for name in sorted({*listed, *present} if listed else ()):
        if name not in present:
            faults.append(f"missing: {name}")
        elif name not in listed:
            faults.append(f"added: {name}")
        elif _fingerprint(present[name]) != listed[name]:
            faults.append(f"changed: {name}")
    for inner in _runs_inside(run.path):
        faults += [f"{inner.relative_to(run.path).as_posix()}: {fault}" for fault in verify(inner)]
    return faults


def environment() -> dict[str, Any]:
    """Versions of expunge, Python and the packages that make the numbers; platform and processors. Loads none."""
    return {
        "expunge": _version("expunge"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def recipe_hash(recipe: recipes.Recipe) -> str:
    """SHA-256 (16 hex digits) of the settings that can change a number: all but name, output_dir and overwrite.

    Defaults are left out, so that a run can be continued by a later version that has more settings.
    """
    settings = recipe.model_dump(mode="json", exclude=set(_NO_NUMBER), exclude_defaults=True)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def text_hash(texts: Iterable[str]) -> str:
    """SHA-256 (16 hex digits) over texts in their order: how a manifest names a data set without quoting it."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\x1f")
    return digest.hexdigest()[:16]


def plain(value: object) -> Any:
    """`value` as JSON can say it: NumPy scalars and arrays unpacked, paths as text, NaN and infinities as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def _read_manifest(root: Path) -> dict[str, Any]:
    file = root / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        what = "has no manifest.json" if root.is_dir() else "does not exist"
        raise RunFolderError(f"'{root}' is not a run folder: it {what}. Give the output_dir of a run.") from None
    except ValueError as error:
        raise RunFolderError(f"manifest '{file}' is damaged: {_one_line(error)}. Run again.") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise RunFolderError(f"manifest '{file}' has format {found!r}; this expunge reads '{FORMAT}'.")
    return manifest


def _make_room(root: Path, asked: str | Path, overwrite: bool) -> None:
    if not is_run(root):
        some = ", ".join(sorted(child.name for child in root.iterdir())[:5])
        raise RunFolderError(
            f"output folder '{asked}' is not empty and holds no run (found: {some}). "
            "Choose another output_dir; expunge never deletes files it did not write."
        )
    manifest = _read_manifest(root)
    if not overwrite:
        raise RunFolderError(
            f"output folder '{asked}' holds another run: '{manifest.get('name')}' ({manifest.get('kind')}, "
            f"{manifest.get('status')}, {manifest.get('created')}). Choose another output_dir, or set overwrite=true."
        )
    _clear(root)


def _clear(root: Path) -> None:
    for inner in _runs_inside(root):
        _clear(inner)
        if not any(inner.iterdir()):
            inner.rmdir()
    for name in _FOLDERS:
        folder = root / name
        if folder.is_symlink():
            folder.unlink()
        elif folder.is_dir():
            shutil.rmtree(folder)
    for name in (RECIPE, LOG, DIAGNOSTICS, EPOCHS, SPANS, RETAIN, TOKENS_TABLE, ATTACKS_RESULT, REPORT, MANIFEST):
        (root / name).unlink(missing_ok=True)


def _runs_inside(root: Path) -> list[Path]:
    """The runs in a folder's folders, and in theirs (a demo keeps its models one level deeper)."""
    found = []
    for child in sorted(root.iterdir()):
        if not child.is_dir() or child.is_symlink() or child.name in _FOLDERS:
            continue
        found += [child] if is_run(child) else [c for c in sorted(child.iterdir()) if c.is_dir() and is_run(c)]
    return found


def _sealed(root: Path) -> Iterator[tuple[str, Path]]:
    """The files whose hashes the manifest lists: those of the layout but the manifest, the report, checkpoints."""
    for name in (RECIPE, LOG, DIAGNOSTICS, EPOCHS, SPANS, RETAIN, TOKENS_TABLE, ATTACKS_RESULT):
        if (root / name).is_file():
            yield name, root / name
    for folder in ("eval", ATTACKS, ARTEFACTS, MEASURED, "model", SCORES):
        for file in sorted((root / folder).rglob("*")):
            if file.is_file() and not (file.name.startswith(".") and file.suffix == ".tmp"):
                yield file.relative_to(root).as_posix(), file


def _fingerprint(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return {"sha256": digest.hexdigest(), "bytes": path.stat().st_size}


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream to a new file beside `path` that takes its place when the block ends well, and vanishes otherwise.

    In a process that is not the main one, a stream to nowhere.
    """
    if not ranks.here().main:
        yield io.BytesIO()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """The rename itself is on disk afterwards, where the system can promise that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _ends_a_line(stream: BinaryIO) -> bool:
    stream.seek(-1, os.SEEK_END)
    return stream.read(1) == b"\n"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:300]
