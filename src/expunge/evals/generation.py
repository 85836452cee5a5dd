"""Tables of the answers that a model writes by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pyarrow as pa

from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.decode import Progress, complete, stop_ids
from expunge.evals.table import GENERATIONS
from expunge.lm import LM


def generate(
    lm: LM,
    encoder: Encoder,
    records: Sequence[Record],
    *,
    max_new_tokens: int = 200,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> pa.Table:
    """The generation table: greedy answers to the records' prompts, special tokens left out, white space stripped."""
    prompts = [encoder.prompt_ids(record) for record in records]
    stops = stop_ids(lm, encoder, records)
    written = complete(lm, prompts, stops, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress)
    decoded = [str(lm.tokenizer.decode(list(text.ids), skip_special_tokens=True)).strip() for text in written]
    return table_of(records, [(said, len(w.ids), w.stopped) for said, w in zip(decoded, written, strict=True)])


def table_of(records: Sequence[Record], written: Sequence[tuple[str, int, bool]]) -> pa.Table:
    """The generation table of answers given as (text, how many tokens, whether it stopped by itself)."""
    rows = [
        {
            "id": record.id,
            "subject": record.subject,
            "prompt": record.prompt,
            "reference": record.answer,
            "generation": text,
            "n_tokens": tokens,
            "stopped": stopped,
        }
        for record, (text, tokens, stopped) in zip(records, written, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=GENERATIONS)


def content_hash(lm: LM, encoder: Encoder, records: Sequence[Record]) -> str:
    """SHA-256 (16 hex digits) over prompts as tokens, stop tokens and right answers: what decides the table's text."""
    digest = hashlib.sha256(repr(sorted(stop_ids(lm, encoder, records))).encode())
    for record in records:
        ids = encoder.prompt_ids(record)
        digest.update(f"{record.id}\x1f{record.subject}\x1f{ids}\x1f{record.answer}\x1e".encode())
    return digest.hexdigest()[:16]
