"""The token view: how the tokens of a few records are weighted and predicted, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
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
SCHEMA = pa.schema([*TOKENS, ("score", pa.list_(pa.float32())), ("prompt", pa.string()), ("text", pa.string())])


@dataclass(frozen=True)
class Scoring:
    """How the tokens of records are scored: by one term of a method, under `module`, beside a reference."""

    lm: LM
    term: Term
    seed: int
    reference: Reference | None = None

    def rows(self, items: Sequence[Encoded], records: Mapping[str, Record], epoch: float, module: Scored) -> pa.Table:
        """A row a record, in the schema of tokens.parquet: its tokens with score, weight and statistics."""
        chunks = [items[first : first + _ROWS] for first in range(0, len(items), _ROWS)]
        rows = [row for chunk in chunks for row in self._rows(chunk, records, epoch, module)]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def _rows(
        self, items: Sequence[Encoded], records: Mapping[str, Record], epoch: float, module: Scored
    ) -> list[dict[str, object]]:
        batch = collate(items, self.lm.pad_id, [record_draw(self.seed, item.id) for item in items]).to(self.lm.device)
        forward = observe(module, batch, self.term.needs | Needs(entropy=frozenset({1.0})), self.reference)
        columns = {
            "score": self.term.scores(forward),
            "weight": self.term.weights(forward).value,
            "gold": batch.static.get("gold", torch.zeros_like(forward.policy.logp)),
            "logp": forward.policy.logp,
            "entropy": forward.policy.entropy[1.0],
        }
        return [
            {
                "id": item.id,
                "epoch": epoch,
                "tokens": token_texts(self.lm.tokenizer, item.targets),
                **{name: values[row, batch.mask[row]].tolist() for name, values in columns.items()},
                "start": item.offsets[item.targets != IGNORE, 0].tolist(),
                "end": item.offsets[item.targets != IGNORE, 1].tolist(),
                "prompt": records[item.id].prompt,
                "text": records[item.id].body,
            }
            for row, item in enumerate(items)
        ]


@dataclass(frozen=True)
class TokenView:
    """Keeps the token table of a run: the same records, scored again at every epoch."""

    scoring: Scoring
    items: Sequence[Encoded]
    records: Mapping[str, Record]
    run: RunFolder

    def __call__(self, epoch: int, module: Scored) -> None:
        """Writes tokens.parquet with this epoch's rows in place of any it had."""
        table = self.scoring.rows(self.items, self.records, float(epoch), module)
        if self.run.has(TOKENS_TABLE):
            old = self.run.read_table(TOKENS_TABLE)
            kept = old.filter(pa.array([e != epoch for e in old["epoch"].to_pylist()]))
            table = pa.concat_tables([kept, table])
        self.run.write_table(TOKENS_TABLE, table)


def observe(module: Scored, batch: Batch, needs: Needs, reference: Reference | None) -> Forward:
    """One batch through the model as it is: no dropout, no gradient, no vocabulary map that reads the reference.

    The model's mode is left as it was.
    """
    training = module.training
    module.eval()
    with torch.no_grad():
        own = frozenset(m for m in needs.vocab if not m.reads_reference)
        stats = module(batch, replace(needs, vocab=own, everywhere=False))
        read = reference is not None and needs.reference_stats
        other = reference.stats(batch, needs.reference_hidden) if reference is not None and read else None
    module.train(training)
    return Forward(batch, stats, other)


def token_texts(tokenizer: PreTrainedTokenizerBase, targets: NDArray[np.int64]) -> list[str]:
    """The text of each scored token by itself; bytes that are no text alone come out as the replacement character."""
    return [str(tokenizer.decode([int(t)], clean_up_tokenization_spaces=False)) for t in targets if t != IGNORE]
