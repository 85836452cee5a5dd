"""What prepared scores read, as models give it: the `Context` of one side's records.

The records themselves are read once for all scorers that look at them, and their variants in the same rows: what comes
before the first hidden token is shared, and a hidden token that predicts nothing is not read at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from expunge import lm as lms
from expunge import trees
from expunge.attention import smoothed
from expunge.context import Passage, Prepared, Scores
from expunge.core import IGNORE, Batch, Forward, Needs, Smoothing, TokenStats
from expunge.data.collate import budgeted, collate
from expunge.data.encode import Encoded, Encoder
from expunge.data.load import load
from expunge.data.records import Record
from expunge.decode import inference, modes_kept
from expunge.errors import MethodError, ModelError
from expunge.factors import factors
from expunge.fused import disagreement, placed, token_stats
from expunge.lm import LM, Scored, head_of
from expunge.recipe import Model, Source
from expunge.runfolder import text_hash
from expunge.sampling import record_draw
from expunge.step import seeded
from expunge.trees import Path, Tree

_FORMAT = "expunge-scores/1"
_TOKENS = 4096
"""Tokens of one batch, padding included."""


@dataclass
class Bench:
    """The `Context` of one side's records: batches of like length, dropout off, the model's mode left as it was.

    `needs` is what all scorers together read of the records as they are: it is computed in the first pass over them
    and kept. The model may not change meanwhile.
    """

    lm: LM
    encoder: Encoder
    passages: Sequence[Passage]
    seed: int
    own_texts: Callable[[], Iterable[str]]
    others: Model
    bf16: bool = False
    retain: Sequence[Passage] = ()
    needs: Needs = field(default_factory=lambda: Needs(policy=False))
    loaded: dict[str, LM] = field(default_factory=dict)
    known: dict[str, Forward] = field(default_factory=dict, repr=False)
    shares: dict[str, bool] = field(default_factory=dict)

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
        self,
        passages: Sequence[Passage],
        needs: Needs,
        of: Callable[[Forward], Tensor],
        *,
        model: str = "",
        attention: Smoothing | None = None,
    ) -> list[Scores]:
        """What `of` says of each passage's scored tokens. Passages of one id that stand together share a row."""
        plain = not model and attention is None and needs | self.needs == self.needs
        own = {p.id: p for p in self.passages} if plain else {}
        as_they_are = [own.get(passage.id) is passage for passage in passages]
        wanted = needs | self.needs if any(as_they_are) else needs
        out = [np.zeros(0, np.float32) for _ in passages]
        todo = []
        for index, passage in enumerate(passages):
            if as_they_are[index] and passage.id in self.known:
                out[index] = _values(of, self.known[passage.id], passage)
            elif len(passage.scored):
                todo.append(index)
        with inference(self._model(model)), smoothed(self._model(model).model, attention):
            for index, forward in self._forwards(self._model(model), passages, todo, wanted):
                out[index] = _values(of, forward, passages[index])
                if as_they_are[index]:
                    self.known[passages[index].id] = forward
        return out

    def factors(self, passages: Sequence[Passage]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The two factors of the gradient of each scored token's loss, passage by passage, on the CPU."""
        module = Scored(self.lm.model, bf16=self.bf16)
        todo = [index for index, passage in enumerate(passages) if len(passage.scored)]
        for chosen in budgeted([len(passage) for passage in passages], todo, _TOKENS):
            with modes_kept(self.lm.model):
                self.lm.model.eval()
                found = factors(module, self._batch(passages, chosen).to(self.lm.device))
            for row, index in enumerate(chosen):
                deltas, inputs = (values[row, passages[index].scored].cpu() for values in found)
                yield index, deltas, inputs

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
        if plan.passes or plan.reads is not None:
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

    def _forwards(
        self, lm: LM, passages: Sequence[Passage], todo: Sequence[int], needs: Needs
    ) -> Iterator[tuple[int, Forward]]:
        """Each passage of `todo` with what the model says of it: a batch of one row, on the CPU."""
        paths = [_path(passage) for passage in passages]
        shared, alone = self._divide(lm, passages, paths, todo, needs)
        for batch in budgeted([tree.length for tree in shared], range(len(shared)), _TOKENS):
            group = [shared[place] for place in batch]
            members = [index for tree in group for index in tree.members]
            stats = self._in_rows(lm, passages, paths, group, needs)
            yield from self._apart(passages, members, stats)
        for batch in budgeted([len(passage) for passage in passages], alone, _TOKENS):
            yield from self._apart(passages, batch, self._padded(lm, passages, batch, needs))

    def _divide(
        self, lm: LM, passages: Sequence[Passage], paths: Sequence[Path], todo: Sequence[int], needs: Needs
    ) -> tuple[list[Tree], list[int]]:
        """What is read in rows of several or with hidden tokens left out, and what is read as it is."""
        if needs.hidden or needs.everywhere or not trees.usable(lm):
            return [], list(todo)
        planned = trees.plan(paths, [passage.id for passage in passages], todo)
        shared = [t for t in planned if len(t.members) > 1 or len(paths[t.members[0]]) < len(passages[t.members[0]])]
        if shared and lm.name not in self.shares:
            tree = min(shared, key=lambda tree: tree.length)
            together = self._in_rows(lm, passages, paths, [tree], Needs()).logp
            self.shares[lm.name] = trees.agree(lm, together, self._padded(lm, passages, tree.members, Needs()).logp)
        if not shared or not self.shares[lm.name]:
            return [], list(todo)
        taken = {index for tree in shared for index in tree.members}
        return shared, [index for index in todo if index not in taken]

    def _in_rows(
        self, lm: LM, passages: Sequence[Passage], paths: Sequence[Path], group: Sequence[Tree], needs: Needs
    ) -> TokenStats:
        states, targets = trees.hidden(lm, paths, group, bf16=self.bf16)
        mask = self._batch(passages, [index for tree in group for index in tree.members]).mask.to(lm.device)
        return placed(token_stats(states, head_of(lm.model), targets, needs), mask, mask, {})

    def _padded(self, lm: LM, passages: Sequence[Passage], indices: Sequence[int], needs: Needs) -> TokenStats:
        batch = self._batch(passages, indices)
        for row, index in enumerate(indices):
            batch.attention_mask[row, : len(passages[index])] &= torch.from_numpy(~passages[index].hidden)
        stats: TokenStats = Scored(lm.model, bf16=self.bf16, packs=False)(batch.to(lm.device), needs)
        return stats

    def _apart(
        self, passages: Sequence[Passage], indices: Sequence[int], stats: TokenStats
    ) -> Iterator[tuple[int, Forward]]:
        for row, index in enumerate(indices):
            yield index, Forward(self._batch(passages, [index]), _of_row(stats, row, len(passages[index])))

    def _batch(self, passages: Sequence[Passage], indices: Sequence[int]) -> Batch:
        draws = [record_draw(self.seed, passages[index].id) for index in indices]
        return collate([_row(passages[index]) for index in indices], self.lm.pad_id, draws)


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


def _values(of: Callable[[Forward], Tensor], forward: Forward, passage: Passage) -> Scores:
    return np.array(of(forward).float().numpy()[0, passage.scored], np.float32)


def _of_row(stats: TokenStats, row: int, length: int) -> TokenStats:
    """(1, length) the statistics of one row of a batch, on the CPU."""
    return stats.mapped(lambda values: values[row : row + 1, :length].cpu())


def _path(passage: Passage) -> Path:
    """The passage without hidden tokens, but for those that predict a scored one; the others stay where they are."""
    kept = np.flatnonzero(~passage.hidden | (passage.targets != IGNORE))
    return Path(passage.input_ids[kept], passage.targets[kept], kept, ~passage.hidden[kept])


def _digest(passages: Iterable[Passage]) -> str:
    """A hash of the texts and tokens."""
    digest = hashlib.sha256()
    for p in passages:
        digest.update("\x1f".join((p.id, p.prompt, p.body, p.subject)).encode("utf-8", "surrogatepass"))
        digest.update(p.input_ids.tobytes() + p.targets.tobytes())
    return digest.hexdigest()[:16]


def _row(passage: Passage) -> Encoded:
    return Encoded(passage.id, passage.input_ids, passage.targets, np.zeros((len(passage), 2), np.int32), {})
