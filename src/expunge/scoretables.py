"""Scores that are prepared: made from whole records and models, kept on disk by content, carried by every batch.

A table holds the scores of one side's records by one scorer. It is keyed by all that decides it (model, tokens, texts,
scorer, other models, corpus), so a resumed run finds it and a changed one does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from expunge import keyed
from expunge import lm as lms
from expunge.context import Passage, Prepared, Scores, prepared_in
from expunge.core import IGNORE, Forward, Needs, Side
from expunge.data.collate import budgeted, collate
from expunge.data.encode import Encoded, Encoder
from expunge.data.load import load
from expunge.data.records import Record
from expunge.data.words import cut
from expunge.decode import inference, modes_kept
from expunge.errors import MethodError, ModelError
from expunge.fused import disagreement
from expunge.lm import LM, Scored
from expunge.recipe import Model, Source
from expunge.runfolder import text_hash
from expunge.sampling import record_draw
from expunge.step import seeded
from expunge.terms import Term
from expunge.weighting.smoothing import WORD, Grouping

_FORMAT = "expunge-scores/1"
_TOKENS = 4096
"""Tokens of one batch, padding included."""
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
        for scorer in scorers:
            if (side, str(scorer)) not in self.made:
                self.made[side, str(scorer)] = self._table(side, scorer)
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
        due = [(side, s) for side in self.encoded for s in self._scorers(side) if _due(s, step)]
        for side, scorer in due:
            self.made[side, str(scorer)] = self._computed(side, scorer)
        return bool(due)

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

    def _scorers(self, side: Side) -> list[Prepared]:
        read = [t.score for t in self._terms(side) if t.tokens != "all"]
        read += [t.modulate for t in self._terms(side) if t.modulate is not None]
        return list({str(found): found for scorer in read for found in prepared_in(scorer)}.values())

    def _table(self, side: Side, scorer: Prepared) -> dict[str, Scores]:
        if self.folder is None:
            return self._computed(side, scorer)
        bench = self._bench(side, scorer)
        key = bench.key(scorer)
        path = self.folder / f"{side}-{hashlib.sha256(str(scorer).encode()).hexdigest()[:12]}.parquet"
        table = keyed.read(path, key)
        if table is not None:
            rows = zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True)
            return {name: np.array(row, np.float32) for name, row in rows}
        found = self._computed(side, scorer, bench)
        rows_of = [{"id": name, "score": row.tolist()} for name, row in found.items()]
        keyed.write(path, pa.Table.from_pylist(rows_of, schema=_SCHEMA), key)
        return found

    def _computed(self, side: Side, scorer: Prepared, bench: Bench | None = None) -> dict[str, Scores]:
        bench = bench or self._bench(side, scorer)
        found = scorer.prepare(bench)
        for passage, scores in zip(bench.passages, found, strict=True):
            if scores.shape != (len(passage.scored),) or not np.isfinite(scores).all():
                raise MethodError(
                    f"score '{scorer}' of record '{passage.id}' has shape {scores.shape} for {len(passage.scored)} "
                    "tokens, or values that are not finite"
                )
        return {p.id: np.asarray(s, np.float32) for p, s in zip(bench.passages, found, strict=True)}

    def _bench(self, side: Side, scorer: Prepared) -> Bench:
        retained = self._passages("retain") if scorer.preparation.retain and "retain" in self.encoded else []
        passages = self._passages(side)
        return Bench(self.lm, self.encoder, passages, self.seed, self.texts, self.others, self.bf16, retained)

    def _passages(self, side: Side) -> list[Passage]:
        by_id = {record.id: record for record in self.records[side]}
        return [passage_of(self.encoder, by_id[item.id], item) for item in self.encoded[side]]


@dataclass
class Bench:
    """The `Context` of one side's records: batches of like length, dropout off, the model's mode left as it was."""

    lm: LM
    encoder: Encoder
    passages: Sequence[Passage]
    seed: int
    own_texts: Callable[[], Iterable[str]]
    others: Model
    bf16: bool = False
    retain: Sequence[Passage] = ()
    loaded: dict[str, LM] = field(default_factory=dict)

    @property
    def retained(self) -> Sequence[Passage]:
        """The run's retain records; MethodError without any."""
        if not self.retain:
            raise MethodError(
                "this score compares with retain records, and there are none here. Set data.retain, and unlearn"
            )
        return self.retain

    def texts(self, corpus: str) -> Iterable[str]:
        """The texts of a file or folder; of the run's own records for ''."""
        if not corpus:
            return self.own_texts()
        return (text for record in load(Source(path=corpus), "general") for text in (record.prompt, record.body))

    def ids(self, text: str) -> list[int]:
        """The tokens of a bare text."""
        return [int(token) for token in self.encoder.tokens(text).ids]

    def read(
        self, passages: Sequence[Passage], needs: Needs, of: Callable[[Forward], Tensor], *, model: str = ""
    ) -> list[Scores]:
        """What `of` says of each passage's scored tokens, one pass a batch."""
        lm = self._model(model)
        module = Scored(lm.model, bf16=self.bf16)
        out = [np.zeros(0, np.float32) for _ in passages]
        todo = [index for index, passage in enumerate(passages) if len(passage.scored)]
        with inference(lm):
            for chosen in budgeted([len(passage) for passage in passages], todo, _TOKENS):
                forward = self._forward(module, [passages[index] for index in chosen], needs)
                values = of(forward).float().cpu().numpy()
                for row, index in enumerate(chosen):
                    out[index] = values[row, passages[index].scored].copy()
        return out

    def disagreement(self, passages: Sequence[Passage], samples: int) -> list[Scores]:
        """H(mean_s p_s) - mean_s H(p_s): the rows of a batch are one record, each with dropout of its own."""
        module = Scored(self.lm.model, bf16=self.bf16)
        return [self._disagreement(module, passage, samples) for passage in passages]

    def _disagreement(self, module: Scored, passage: Passage, samples: int) -> Scores:
        batch = collate([_row(passage)] * samples, self.lm.pad_id).to(self.lm.device)
        draw = record_draw(self.seed, f"dropout/{passage.id}")
        with modes_kept(self.lm.model), torch.no_grad(), seeded(draw, self.lm.device):
            self.lm.model.train()
            rows = module.reference_rows(batch, Needs())
        states = rows.hidden.chunk(samples)
        if len(states[0]) and torch.equal(states[0], states[1]):
            raise MethodError(
                f"mutual-information needs dropout, and '{self.lm.name}' has none: two passes give the same states. "
                "Use entropy, or a model whose configuration sets a dropout"
            )
        return disagreement(states, rows.head).float().cpu().numpy().clip(min=0)

    def key(self, scorer: Prepared) -> dict[str, str]:
        """All that decides the scores of these records."""
        plan = scorer.preparation
        key = {"format": _FORMAT, "score": str(scorer), "items": _digest(self.passages), "seed": str(self.seed)}
        if plan.passes:
            key |= {"model": self._hash, "bf16": str(self.bf16)}
        if plan.model:
            key["other"] = lms.content_hash(self._model(plan.model).model)
        if plan.corpus is not None:
            key["corpus"] = text_hash(self.texts(plan.corpus))
        if plan.retain:
            key["retain"] = _digest(self.retain)
        return key

    @cached_property
    def _hash(self) -> str:
        return lms.content_hash(self.lm.model)

    def _model(self, name: str) -> LM:
        if not name:
            return self.lm
        if name not in self.loaded:
            settings = self.others.model_copy(
                update={
                    "model_name_or_path": name,
                    "model_revision": None,
                    "tokenizer_name_or_path": None,
                    "fresh": None,
                }
            )
            other = lms.load(settings, device=str(self.lm.device))
            if other.tokenizer.get_vocab() != self.lm.tokenizer.get_vocab():
                raise ModelError(
                    f"'{name}' has another tokenizer than '{self.lm.name}', so their tokens do not compare"
                )
            self.loaded[name] = other
        return self.loaded[name]

    def _forward(self, module: Scored, passages: Sequence[Passage], needs: Needs) -> Forward:
        draws = [record_draw(self.seed, passage.id) for passage in passages]
        batch = collate([_row(passage) for passage in passages], self.lm.pad_id, draws)
        for row, passage in enumerate(passages):
            batch.attention_mask[row, : len(passage)] &= torch.from_numpy(~passage.hidden)
        batch = batch.to(self.lm.device)
        return Forward(batch, module(batch, needs))


def _digest(passages: Iterable[Passage]) -> str:
    """A hash of the texts and tokens."""
    digest = hashlib.sha256()
    for p in passages:
        digest.update("\x1f".join((p.id, p.prompt, p.body, p.subject)).encode("utf-8", "surrogatepass"))
        digest.update(p.input_ids.tobytes() + p.targets.tobytes())
    return digest.hexdigest()[:16]


def passage_of(encoder: Encoder, record: Record, item: Encoded) -> Passage:
    """The record as scorers see it that are prepared."""
    asked, own = encoder.places(record)
    return Passage(
        id=record.id,
        prompt=record.prompt,
        body=record.body,
        subject=record.subject,
        input_ids=item.input_ids,
        targets=item.targets,
        asked=asked,
        own=own,
        hidden=np.zeros(len(item), np.bool_),
    )


def word_numbers(item: Encoded, body: str) -> Scores:
    """(n,) the number, from 1, of the word that each scored token of a record stands in; 0 for none."""
    ranges = cut(body)
    out = np.zeros(item.scored, np.float32)
    for place, (start, end) in enumerate(item.offsets[item.targets != IGNORE].tolist()):
        hits = [number for number, (a, b) in enumerate(ranges, 1) if a < end and b > start]
        out[place] = hits[0] if hits else 0
    return out


def _due(scorer: Prepared, step: int) -> bool:
    every = scorer.preparation.refresh
    return every > 0 and step > 0 and step % every == 0


def _with_static(item: Encoded, name: str, scores: Scores) -> Encoded:
    values = np.zeros(len(item), np.float32)
    values[item.targets != IGNORE] = scores
    return replace(item, static={**item.static, name: values})


def _row(passage: Passage) -> Encoded:
    return Encoded(passage.id, passage.input_ids, passage.targets, np.zeros((len(passage), 2), np.int32), {})
