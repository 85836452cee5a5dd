"""Any identifier over any records into an annotation file: resumed where it stopped, no text twice, nothing unasked."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge import runfolder
from expunge.data import annotations as files
from expunge.data.records import Annotation, Record
from expunge.errors import DataError
from expunge.identifiers.finding import UNWANTED, Estimate, Finding, Identifier, IdentifierError, fingerprint
from expunge.identifiers.progress import Found, Journal, journal

Progress = Callable[[int, int], None]
"""Called with (texts done, texts in all) after every text."""
Confirm = Callable[[Estimate], bool]
"""Asked before anything is sent to a service; False stops the run before it spends."""


@dataclass(frozen=True)
class Summary:
    """What a run of `annotate` did.

    `texts` are different texts among the `records`; `new` of them were annotated now, `resumed` were found by an
    earlier run that stopped, `kept` stood in the finished file. `share` is the share of characters (white space left
    out) under an unwanted span, `without` the number of records without one. `counts` adds up what the identifier
    counted for all texts; `missing` are (record id, phrase) named now or by the run that was resumed, but not in the
    text.
    """

    path: Path
    records: int
    texts: int
    new: int
    resumed: int
    kept: int
    spans: int
    without: int
    share: float
    counts: Mapping[str, int]
    missing: tuple[tuple[str, str], ...]


def annotate(
    records: Iterable[Record],
    identifier: Identifier,
    out_path: str | Path,
    *,
    progress: Progress | None = None,
    confirm: Confirm | None = None,
    overwrite: bool = False,
) -> Summary:
    """The annotation file of these records by this identifier at `out_path`, and a summary of it.

    A run that was stopped or killed goes on where it was. Records that the finished file holds already, by this very
    identifier, stay as they are there (so edits by hand stay); only new texts are annotated. A file by another
    identifier, or about other records too, is refused unless `overwrite`. Where a service is paid or lies on another
    machine, `confirm` is asked with an estimate first; without `confirm` nothing is sent.
    """
    records, path = list(records), Path(out_path).expanduser()
    if not records:
        raise DataError("there are no records to annotate. Check the path, and what the split holds.")
    mark = fingerprint(identifier)
    texts = {_key(record, identifier): record for record in reversed(records)}
    kept = {} if overwrite else _finished(path, mark, identifier, texts)
    with journal(path.with_name(f"{path.name}.{mark[:8]}.progress")) as log:
        resumed = {key: found for key, found in log.known.items() if key in texts and key not in kept}
        todo = [record for key, record in reversed(texts.items()) if key not in kept and key not in resumed]
        _agree(identifier, todo, confirm)
        new = _identify(identifier, todo, log, (len(kept) + len(resumed), len(texts)), progress)
        found = {**kept, **resumed, **new}
        marked = [_annotation(record, found[_key(record, identifier)]) for record in records]
        counts = _counts(path, kept, [*resumed.values(), *new.values()])
        files.write(path, marked, _manifest(records, identifier, mark, counts))
        log.path.unlink()
    missing = tuple((texts[key].id, phrase) for key, one in {**resumed, **new}.items() for phrase in one.missing)
    return _summary(path, records, marked, (len(texts), len(new), len(resumed), len(kept)), counts, missing)


def _key(record: Record, identifier: Identifier) -> str:
    """What makes two records the same to this identifier: the text, and the spans if it reads them."""
    if not identifier.reads_spans:
        return record.text_hash
    return record.text_hash + hashlib.sha256(repr(record.spans).encode()).hexdigest()[:16]


def _finished(path: Path, mark: str, identifier: Identifier, texts: Mapping[str, Record]) -> dict[str, Found]:
    """What the finished file holds for these texts; nothing if there is no file."""
    if not path.exists():
        return {}
    manifest = files.read_manifest(path)
    if manifest is None or manifest.parameters.get("fingerprint") != mark:
        by = f"by '{manifest.identifier}', with other settings or another version" if manifest else "without a manifest"
        raise DataError(
            f"'{path}' holds annotations {by}; asked for '{identifier}'. Write to another file, or overwrite it."
        )
    if identifier.reads_spans:
        return {}
    old = {annotation.text_hash: annotation for annotation in files.read(path)}
    others = [annotation for key, annotation in old.items() if key not in texts]
    if others:
        raise DataError(
            f"'{path}' also holds annotations of {len(others)} texts that are not among these records (such as "
            f"'{others[0].record_id}'). Write to another file, or overwrite it."
        )
    return {key: Found(annotation.spans, {}) for key, annotation in old.items()}


def _agree(identifier: Identifier, todo: Sequence[Record], confirm: Confirm | None) -> None:
    """Returns if nothing is sent anywhere, or if whoever pays has agreed."""
    estimate = identifier.estimate(todo) if todo else None
    if estimate is None or estimate.requests == 0:
        return
    if confirm is None:
        raise IdentifierError(f"{estimate}. Nothing was sent: agree to it first (confirm).")
    if not confirm(estimate):
        raise IdentifierError(f"{estimate}. Not agreed to, so nothing was sent.")


def _identify(
    identifier: Identifier, todo: Sequence[Record], log: Journal, so_far: tuple[int, int], progress: Progress | None
) -> dict[str, Found]:
    """What the identifier says of each text, written down as it comes."""
    new: dict[str, Found] = {}
    wanted = {_key(record, identifier) for record in todo}
    if progress is not None:
        progress(*so_far)
    for finding in identifier.identify(todo) if todo else ():
        key = _key(finding.record, identifier)
        if key not in wanted or key in new:
            raise IdentifierError(f"identifier '{identifier}' spoke of record '{finding.record.id}' unasked, or twice.")
        new[key] = _checked(finding, identifier)
        log.append(key, new[key])
        if progress is not None:
            progress(so_far[0] + len(new), so_far[1])
    silent = [record.id for record in todo if _key(record, identifier) not in new]
    if silent:
        raise IdentifierError(
            f"identifier '{identifier}' said nothing of {len(silent)} records, such as '{silent[0]}'."
        )
    return new


def _checked(finding: Finding, identifier: Identifier) -> Found:
    record = finding.record
    texts = {"prompt": record.prompt, "answer": record.answer, "text": record.text}
    for span in finding.spans:
        if not 0 <= span.start < span.end <= len(texts[span.field]):
            raise IdentifierError(
                f"identifier '{identifier}' marked characters {span.start}:{span.end} of the {span.field} of record "
                f"'{record.id}', which has {len(texts[span.field])}."
            )
    return Found(tuple(dict.fromkeys(finding.spans)), finding.counts, finding.missing)


def _annotation(record: Record, found: Found) -> Annotation:
    return Annotation(record.id, record.text_hash, found.spans)


def _counts(path: Path, kept: Mapping[str, Found], found: Iterable[Found]) -> dict[str, int]:
    """What was counted for all texts: the finished file's counts for those it held, and the new ones."""
    counts: Counter[str] = Counter()
    manifest = files.read_manifest(path) if kept else None
    if manifest is not None:
        counts.update(manifest.parameters.get("counts", {}))
    for one in found:
        counts.update(one.counts)
    return dict(sorted(counts.items()))


def _manifest(
    records: Sequence[Record], identifier: Identifier, mark: str, counts: Mapping[str, int]
) -> files.Manifest:
    parameters: dict[str, Any] = {
        "fingerprint": mark,
        "facts": runfolder.plain(identifier.facts()),
        "counts": dict(counts),
        "environment": runfolder.environment(),
    }
    version = importlib.metadata.version("expunge")
    return files.Manifest.of(records, str(identifier), version, parameters)


def _summary(
    path: Path,
    records: Sequence[Record],
    marked: Sequence[Annotation],
    numbers: tuple[int, int, int, int],
    counts: Mapping[str, int],
    missing: tuple[tuple[str, str], ...],
) -> Summary:
    texts, new, resumed, kept = numbers
    covered = total = without = 0
    for record, annotation in zip(records, marked, strict=True):
        under, characters = _covered(record, annotation)
        covered, total, without = covered + under, total + characters, without + (under == 0)
    return Summary(
        path=path, records=len(records), texts=texts, new=new, resumed=resumed, kept=kept,
        spans=sum(len(annotation.spans) for annotation in marked), without=without,
        share=covered / total if total else 0.0, counts=counts, missing=missing,
    )  # fmt: skip


def _covered(record: Record, annotation: Annotation) -> tuple[int, int]:
    """(characters of the answer or text under an unwanted span, all of them), white space left out of both."""
    letters = {index for index, letter in enumerate(record.body) if not letter.isspace()}
    under: set[int] = set()
    for span in annotation.spans:
        if span.label == UNWANTED and span.field == record.body_field:
            under.update(range(span.start, span.end))
    return len(letters & under), len(letters)
