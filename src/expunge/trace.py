"""The token view: how the tokens of a few records are weighted and predicted, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerBase

from expunge.core import IGNORE, Batch, Forward, Needs
from expunge.data.collate import collate
from expunge.data.encode import Encoded
from expunge.data.records import Record
from expunge.lm import LM, Scored
from expunge.refcache import Reference
from expunge.runfolder import TOKENS, TOKENS_TABLE, RunFolder
from expunge.sampling import record_draw
from expunge.terms import Term

_ROWS = 16
SCHEMA = TOKENS.append(pa.field("prompt", pa.string())).append(pa.field("text", pa.string()))


@dataclass(frozen=True)
class TokenView:
    """Scores the tokens of `items` with the method's first forget term and appends them to the run's token table."""

    lm: LM
    items: Sequence[Encoded]
    records: Mapping[str, Record]
    term: Term
    seed: int
    run: RunFolder
    reference: Reference | None = None

    def __call__(self, epoch: int, module: Scored) -> None:
        """Writes tokens.parquet with this epoch's rows in place of any it had."""
        rows = [row for i in range(0, len(self.items), _ROWS) for row in self._rows(epoch, module, i)]
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        if self.run.has(TOKENS_TABLE):
            old = self.run.read_table(TOKENS_TABLE)
            kept = old.filter(pa.array([e != epoch for e in old["epoch"].to_pylist()]))
            table = pa.concat_tables([kept, table])
        self.run.write_table(TOKENS_TABLE, table)

    def _rows(self, epoch: int, module: Scored, first: int) -> list[dict[str, object]]:
        items = self.items[first : first + _ROWS]
        batch = collate(items, self.lm.pad_id, [record_draw(self.seed, item.id) for item in items]).to(self.lm.device)
        forward = observe(module, batch, self.term.needs | Needs(entropy=frozenset({1.0})), self.reference)
        weights = self.term.weights(forward).value
        gold = batch.static.get("gold", torch.zeros_like(weights))
        return [
            {
                "id": item.id,
                "epoch": float(epoch),
                "tokens": token_texts(self.lm.tokenizer, item.targets),
                "weight": weights[row, batch.mask[row]].tolist(),
                "gold": gold[row, batch.mask[row]].tolist(),
                "logp": forward.policy.logp[row, batch.mask[row]].tolist(),
                "entropy": forward.policy.entropy[1.0][row, batch.mask[row]].tolist(),
                "start": item.offsets[item.targets != IGNORE, 0].tolist(),
                "end": item.offsets[item.targets != IGNORE, 1].tolist(),
                "prompt": self.records[item.id].prompt,
                "text": self.records[item.id].answer or self.records[item.id].text,
            }
            for row, item in enumerate(items)
        ]


def observe(module: Scored, batch: Batch, needs: Needs, reference: Reference | None) -> Forward:
    """One batch through the model as it is: evaluation mode, no gradient, training mode restored."""
    training = module.training
    module.eval()
    with torch.no_grad():
        rows = None if reference is None else reference.rows(batch, needs)
        needs = replace(needs, vocab=needs.vocab if rows is not None else frozenset(m for m in needs.vocab if not m.reads_reference))
        stats = module(batch, needs, rows)
        other = reference.stats(batch) if reference is not None and needs.reference else None
    module.train(training)
    return Forward(batch, stats, other)


def token_texts(tokenizer: PreTrainedTokenizerBase, targets: np.ndarray) -> list[str]:
    """The text of each scored token by itself; bytes that are no text alone come out as the replacement character."""
    return [tokenizer.decode([int(t)], clean_up_tokenization_spaces=False) for t in targets if t != IGNORE]
