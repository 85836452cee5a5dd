"""Scores that are prepared: made from whole records and models, kept on disk by content, carried by every batch.

A table holds the scores of one side's records by one scorer. It is keyed by all that decides it (model, tokens, texts,
scorer, other models, corpus), so a resumed run finds it and a changed one does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from expunge import keyed
from expunge.bench import Bench, passage_of
from expunge.context import Passage, Prepared, Scores, together
from expunge.core import IGNORE, Side
from expunge.data.encode import Encoded, Encoder
from expunge.data.records import Record
from expunge.data.words import cut
from expunge.errors import MethodError
from expunge.lm import LM
from expunge.recipe import Model
from expunge.terms import Term, prepared_on
from expunge.weighting.smoothing import WORD, Grouping

_SCHEMA = pa.schema([("id", pa.string()), ("score", pa.list_(pa.float32()))])


@dataclass
class ScoreTables:
    """The prepared scores of a run's records. `fill` puts them into encoded records; `refresh` makes them anew.

    `records` and `encoded` by side; `others` says how further models are loaded; `texts` are the run's own, read if a
    scorer asks; tables are kept in `folder`, or not at all.
    """

    lm: LM
    encoder: Encoder
    terms: tuple[Term, ...]
    records: Mapping[Side, Sequence[Record]]
    encoded: Mapping[Side, Sequence[Encoded]]
    seed: int
    texts: Callable[[], Iterable[str]]
    others: Model = field(default_factory=Model)
    folder: Path | None = None
    bf16: bool = False
    made: dict[tuple[Side, str], dict[str, Scores]] = field(default_factory=dict)

    def fill(self, side: Side, items: Sequence[Encoded] | None = None) -> list[Encoded]:
        """Records of a side (all of them, if not given) with every score that the side's terms need prepared."""
        scorers = self._scorers(side)
        self._make(side, [scorer for scorer in scorers if (side, str(scorer)) not in self.made])
        out = list(self.encoded[side] if items is None else items)
        for scorer in scorers:
            found = self.made[side, str(scorer)]
            out = [_with_static(item, str(scorer), found[item.id]) for item in out]
        if any(WORD in t.select.reads for t in self._terms(side) if isinstance(t.select, Grouping)):
            bodies = {record.id: record.body for record in self.records[side]}
            out = [_with_static(item, WORD, word_numbers(item, bodies[item.id])) for item in out]
        return out

    def refresh(self, step: int) -> bool:
        """Makes the tables anew that are due before step `step` (from 0), from the model as it is; True if any was."""
        due = {side: [s for s in self._scorers(side) if _due(s, step)] for side in self.encoded}
        for side, scorers in due.items():
            bench = self._bench(side, scorers)
            for scorer in scorers:
                self.made[side, str(scorer)] = _computed(scorer, bench)
        return any(due.values())

    def state(self) -> dict[str, Tensor]:
        """The scores that cannot be made again from the starting model: what a checkpoint must hold."""
        return {
            f"{side}/{scorer}": torch.from_numpy(
                np.concatenate([self.made[side, str(scorer)][item.id] for item in self.encoded[side]])
            )
            for side in self.encoded
            for scorer in self._scorers(side)
            if scorer.preparation.refresh
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The tables as `state` had them."""
        for name, values in state.items():
            side = next(s for s in self.encoded if name.startswith(f"{s}/"))
            ends = np.cumsum([item.scored for item in self.encoded[side]])
            parts = np.split(values.numpy(), ends[:-1])
            ids = [item.id for item in self.encoded[side]]
            self.made[side, name.removeprefix(f"{side}/")] = dict(zip(ids, parts, strict=True))

    def _terms(self, side: Side) -> list[Term]:
        return [term for term in self.terms if term.on == side]

    def _scorers(self, side: Side) -> tuple[Prepared, ...]:
        return prepared_on(self.terms, side)

    def _make(self, side: Side, scorers: Sequence[Prepared]) -> None:
        """The tables of these scorers: from disk if all are there, else all anew.

        They share passes of the model, so that one by itself would differ from the same in company by its last bits.
        """
        bench = self._bench(side, scorers)
        kept = [self._kept(side, scorer, bench) for scorer in scorers]
        for scorer, table in zip(scorers, kept, strict=True):
            if table is not None and None not in kept:
                self.made[side, str(scorer)] = table
                continue
            self.made[side, str(scorer)] = found = _computed(scorer, bench)
            if self.folder is not None:
                rows = [{"id": name, "score": row.tolist()} for name, row in found.items()]
                table_of = pa.Table.from_pylist(rows, schema=_SCHEMA)
                keyed.write(_file(self.folder, side, scorer), table_of, bench.key(scorer))

    def _kept(self, side: Side, scorer: Prepared, bench: Bench) -> dict[str, Scores] | None:
        """The table on disk; None if there is none of just these scores."""
        if self.folder is None:
            return None
        table = keyed.read(_file(self.folder, side, scorer), bench.key(scorer))
        if table is None:
            return None
        rows = zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True)
        return {name: np.array(row, np.float32) for name, row in rows}

    def _bench(self, side: Side, scorers: Sequence[Prepared]) -> Bench:
        """What these scorers read, which is prepared together."""
        compares = any(scorer.preparation.retain for scorer in scorers) and "retain" in self.encoded
        retained = self._passages("retain") if compares else []
        passages = self._passages(side) if scorers else []
        needs = together(scorer.preparation for scorer in scorers)
        return Bench(
            self.lm, self.encoder, passages, self.seed, self.texts, self.others, self.bf16, retained, needs.reads
        )

    def _passages(self, side: Side) -> list[Passage]:
        by_id = {record.id: record for record in self.records[side]}
        return [passage_of(self.encoder, by_id[item.id], item) for item in self.encoded[side]]


def _computed(scorer: Prepared, bench: Bench) -> dict[str, Scores]:
    """The scores by record; MethodError names one that does not fit its record."""
    found = scorer.prepare(bench)
    for passage, scores in zip(bench.passages, found, strict=True):
        if scores.shape != (len(passage.scored),) or not np.isfinite(scores).all():
            raise MethodError(
                f"score '{scorer}' of record '{passage.id}' has shape {scores.shape} for {len(passage.scored)} "
                "tokens, or values that are not finite"
            )
    return {p.id: np.asarray(s, np.float32) for p, s in zip(bench.passages, found, strict=True)}


def word_numbers(item: Encoded, body: str) -> Scores:
    """(n,) the number, from 1, of the word that each scored token of a record stands in; 0 for none."""
    ranges = cut(body)
    out = np.zeros(item.scored, np.float32)
    for place, (start, end) in enumerate(item.offsets[item.targets != IGNORE].tolist()):
        hits = [number for number, (a, b) in enumerate(ranges, 1) if a < end and b > start]
        out[place] = hits[0] if hits else 0
    return out


def _file(folder: Path, side: Side, scorer: Prepared) -> Path:
    return folder / f"{side}-{hashlib.sha256(str(scorer).encode()).hexdigest()[:12]}.parquet"


def _due(scorer: Prepared, step: int) -> bool:
    every = scorer.preparation.refresh
    return every > 0 and step > 0 and step % every == 0


def _with_static(item: Encoded, name: str, scores: Scores) -> Encoded:
    values = np.zeros(len(item), np.float32)
    values[item.targets != IGNORE] = scores
    return replace(item, static={**item.static, name: values})
