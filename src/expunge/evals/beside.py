"""Two models read the same answers: the tables of KL(other || model) at each scored token."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from expunge import collective, keyed, ranks
from expunge.core import Needs
from expunge.data.collate import budgeted, collate
from expunge.data.encode import MARKS, Encoder
from expunge.data.records import Record
from expunge.decode import Progress, inference
from expunge.evals import scoring
from expunge.evals.divergence import FOLDER, KL, names_of
from expunge.evals.scoring import Item
from expunge.evals.tofu import OnProgress, told
from expunge.lm import LM, Scored, content_hash, head_of
from expunge.objectives.retain import KLToReference
from expunge.runfolder import RunFolder

_KL = KLToReference("forward")
_NEEDS = Needs(vocab=frozenset({_KL}))
_FORMAT = "1"


@dataclass(frozen=True)
class Other:
    """A model to compare with: what it is called (oracle, target), and how it is loaded or why it cannot be."""

    name: str
    load: Callable[[], LM] | None
    why: str = ""


def make_tables(
    lm: LM,
    encoder: Encoder,
    sets: Mapping[str, Sequence[Record]],
    run: RunFolder,
    label: str,
    others: Sequence[Other],
    *,
    token_budget: int = 2048,
    progress: OnProgress | None = None,
) -> dict[str, str]:
    """Writes the KL tables that are not there yet, one for each other model and set, and removes any else.

    Returns why a number cannot be had, by metric. One other model at a time is in memory. A table is keyed by both
    models, the tokens and their marks, so that a second call computes nothing. Each process of a run makes its rows.
    """
    absent: dict[str, str] = {}
    wanted: set[str] = set()
    rows = {name: scoring.items(encoder, records, ("answer",)) for name, records in sets.items()} if others else {}
    for other in others:
        found = None if other.load is None else other.load()
        why = other.why if found is None else unlike(lm, found)
        if found is None or why:
            absent |= {metric: why for name in rows for metric in names_of(name, other.name)}
            continue
        models = {"format": _FORMAT, "model": content_hash(lm.model), "other": content_hash(found.model)}
        for name, items in rows.items():
            path = f"eval/{label}/{FOLDER}/{other.name}/{name}.parquet"
            wanted.add(path)
            key = {**models, "items": _content(items)}
            if keyed.key_of(run.file(path)) != key:
                own, listener = ranks.here().block(items), told(progress, f"{name}: beside the {other.name}")
                made = divergences(lm, found, own, token_budget=token_budget, progress=listener)
                run.write_table(path, keyed.with_key(pa.concat_tables(collective.gathered(made)), key))
    collective.wait()
    for file in run.file(f"eval/{label}/{FOLDER}").glob("*/*.parquet"):
        if file.relative_to(run.path).as_posix() not in wanted:
            file.unlink(missing_ok=True)
    return absent


def divergences(
    lm: LM, other: LM, items: Sequence[Item], *, token_budget: int = 2048, progress: Progress | None = None
) -> pa.Table:
    """The KL table of rows that are encoded already: one pass of both models, over the whole vocabulary, in chunks."""
    encoded = [item.encoded for item in items]
    found = [np.zeros(item.scored, np.float32) for item in encoded]
    todo = [index for index, item in enumerate(encoded) if item.scored]
    done = len(items) - len(todo)
    with inference(lm), inference(other):
        policy, reference = Scored(lm.model), Scored(other.model)
        for group in budgeted([len(item) for item in encoded], todo, token_budget):
            batch = collate([encoded[index] for index in group], lm.pad_id).to(lm.device)
            stats = policy(batch, _NEEDS, reference.reference_rows(batch, _NEEDS))
            flat = stats.vocab[_KL.key][batch.mask].float().cpu().numpy()
            ends = np.cumsum([encoded[index].scored for index in group])
            for index, part in zip(group, np.split(flat, ends[:-1]), strict=True):
                found[index] = part
            done += len(group)
            if progress is not None:
                progress(done, len(items))
    return _table(items, found)


def unlike(lm: LM, other: LM) -> str:
    """Why the distributions of two models cannot be compared token by token; empty if they can."""
    own, theirs = (head_of(one.model).weight.shape[0] for one in (lm, other))
    if own != theirs:
        return f"'{other.name}' predicts {theirs} tokens, '{lm.name}' {own}"
    if lm.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        return f"'{other.name}' has another tokenizer than '{lm.name}'"
    return ""


def _table(items: Sequence[Item], found: Sequence[npt.NDArray[np.float32]]) -> pa.Table:
    rows = []
    for item, kl in zip(items, found, strict=True):
        places = item.encoded.offsets[item.mask]
        start, end, marks = places[:, 0].tolist(), places[:, 1].tolist(), _marks(item)
        row = {"id": item.record.id, "subject": item.record.subject, "start": start, "end": end, "kl": kl.tolist()}
        rows.append({**row, "informative": marks})
    return pa.Table.from_pylist(rows, schema=KL)


def _marks(item: Item) -> list[bool] | None:
    """Which scored tokens stand in a span: gold if the record has such, else the annotation's. None without spans."""
    static = item.encoded.static
    name = next((name for name in MARKS if name in static), None)
    return None if name is None else [bool(mark) for mark in static[name][item.mask] > 0]


def _content(items: Sequence[Item]) -> str:
    """SHA-256 (16 hex digits) over tokens and marks."""
    digest = hashlib.sha256(scoring.content_hash(items).encode())
    digest.update(repr([_marks(item) for item in items]).encode())
    return digest.hexdigest()[:16]
