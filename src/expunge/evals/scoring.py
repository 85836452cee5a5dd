"""The one pass of a model over an evaluation set that all teacher-forced metrics are computed from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from transformers import PreTrainedTokenizerBase

from expunge import trees
from expunge.core import IGNORE, Needs
from expunge.data.collate import budgeted, collate
from expunge.data.encode import Encoded, Encoder
from expunge.data.records import Record
from expunge.decode import Progress, inference
from expunge.errors import DataError
from expunge.evals.table import SCORES
from expunge.fused import Rows, token_stats
from expunge.lm import LM, head_of, states_of
from expunge.trees import Path, Tree

NEEDS = Needs(second_moment=True, entropy=frozenset({1.0}))
_NUMBERS = ("logp", "label_logit", "lse", "entropy", "second_moment")
VARIANTS = ("answer", "paraphrase", "perturbed")
Numbers = npt.NDArray[np.float32]
"""(statistics, scored tokens): the rows are `_NUMBERS` and then the arg max as 0 or 1."""


@dataclass(frozen=True, eq=False)
class Item:
    """One row to be scored: an answer of a record, in one variant, as tokens."""

    record: Record
    variant: str
    text: str
    encoded: Encoded

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """(T,) True where a token is scored."""
        mask: npt.NDArray[np.bool_] = self.encoded.targets != IGNORE
        return mask


def items(encoder: Encoder, records: Iterable[Record], variants: Sequence[str] = VARIANTS) -> list[Item]:
    """The rows of a score table: each record's answer, paraphrase and perturbed answers, as far as it has them."""
    rows = []
    for record in records:
        for variant, text in _texts(record, variants):
            encoded = encoder.encode(record, answer=None if variant == "answer" else text)
            rows.append(Item(record, variant, text, encoded))
    return rows


def content_hash(rows: Iterable[Item]) -> str:
    """SHA-256 (16 hex digits) over names and token ids of all rows: data, template and tokenizer in one."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.record.id}\x1f{row.variant}\x1f{row.record.subject}\x1f{row.text}\x1e".encode())
        digest.update(row.encoded.input_ids.tobytes() + row.encoded.targets.tobytes())
    return digest.hexdigest()[:16]


def score(
    lm: LM,
    encoder: Encoder,
    records: Iterable[Record],
    variants: Sequence[str] = VARIANTS,
    *,
    token_budget: int = 2048,
    share_prompts: bool | None = None,
    progress: Progress | None = None,
) -> pa.Table:
    """The score table of a model on the records: every (record, variant) passes through it once."""
    rows = items(encoder, records, variants)
    return score_items(lm, rows, token_budget=token_budget, share_prompts=share_prompts, progress=progress)


def score_items(
    lm: LM,
    rows: Sequence[Item],
    *,
    token_budget: int = 2048,
    share_prompts: bool | None = None,
    progress: Progress | None = None,
) -> pa.Table:
    """The score table of rows that are encoded already.

    Batches hold rows of like length and at most `token_budget` tokens, padding included (a longer row goes alone); the
    vocabulary head runs on scored positions only. `share_prompts`: answers to one prompt are read in one row, with the
    prompt once; by default where the model's attention allows it and a comparison on one of the rows confirms it.
    In float32 the result does not depend on any of this; in bfloat16 it does, within rounding. Dropout is off during
    the pass, and the training mode is as before afterwards.
    """
    encoded = [row.encoded for row in rows]
    paths = [Path.of(item).needed() for item in encoded]
    stats = [np.zeros((len(_NUMBERS) + 1, item.scored), np.float32) for item in encoded]
    todo = [index for index, item in enumerate(encoded) if item.scored]
    done = len(rows) - len(todo)
    with inference(lm):
        shared, alone = _divide(lm, rows, paths, todo, share_prompts)
        work: list[tuple[Sequence[int], Callable[[], Numbers]]] = []
        for batch in budgeted([tree.length for tree in shared], range(len(shared)), token_budget):
            group = [shared[place] for place in batch]
            members = [index for tree in group for index in tree.members]
            work.append((members, partial(_in_trees, lm, paths, group)))
        for batch in budgeted([len(item) for item in encoded], alone, token_budget):
            work.append((batch, partial(_padded, lm, encoded, batch)))
        for answered, numbers in work:
            ends = np.cumsum([encoded[index].scored for index in answered])
            for index, part in zip(answered, np.split(numbers(), ends[:-1], axis=1), strict=True):
                stats[index][:] = part
            done += len(answered)
            if progress is not None:
                progress(done, len(rows))
    return table_of(lm.tokenizer, rows, stats)


def _divide(
    lm: LM, rows: Sequence[Item], paths: Sequence[Path], todo: Sequence[int], share_prompts: bool | None
) -> tuple[list[Tree], list[int]]:
    """What is read in rows of several answers, and what is read by itself."""
    if share_prompts is False or (share_prompts is None and not trees.usable(lm)):
        return [], list(todo)
    planned = trees.plan(paths, [row.record.id for row in rows], todo)
    shared = [tree for tree in planned if len(tree.members) > 1]
    if shared and share_prompts is None:
        tree = min(shared, key=lambda tree: tree.length)
        numbers = _in_trees(lm, paths, [tree]), _padded(lm, [row.encoded for row in rows], tree.members)
        if not trees.agree(lm, *(torch.from_numpy(one[0]) for one in numbers)):
            return [], list(todo)
    return shared, [index for tree in planned if len(tree.members) == 1 for index in tree.members]


def _in_trees(lm: LM, paths: Sequence[Path], group: Sequence[Tree]) -> Numbers:
    states, rows, targets = trees.states_in(lm, paths, group)
    once, again = torch.unique(torch.stack([rows, targets]), dim=1, return_inverse=True)
    return _numbers(token_stats(states[once[0]], head_of(lm.model), once[1], NEEDS))[:, again.cpu().numpy()]


def _padded(lm: LM, encoded: Sequence[Encoded], batch: Sequence[int]) -> Numbers:
    packed = collate([encoded[index] for index in batch], lm.pad_id).to(lm.device)
    states = states_of(lm.model, packed.input_ids, packed.attention_mask.long())[-1]
    return _numbers(token_stats(states[packed.mask], head_of(lm.model), packed.targets[packed.mask], NEEDS))


def _texts(record: Record, variants: Sequence[str]) -> Iterator[tuple[str, str]]:
    for variant in variants:
        if variant == "answer":
            yield "answer", record.body
        elif variant == "paraphrase":
            if record.paraphrase:
                yield "paraphrase", record.paraphrase
        elif variant == "perturbed":
            for index, text in enumerate(record.perturbed):
                yield f"perturbed:{index}", text
        else:
            raise DataError(f"unknown variant '{variant}' of an answer. There are: {', '.join(VARIANTS)}.")


def _numbers(stats: Rows) -> Numbers:
    assert stats.second_moment is not None
    columns = (stats.logp, stats.label_logit, stats.lse, stats.entropy[1.0], stats.second_moment, stats.top1)
    flat: Numbers = torch.stack([column.float() for column in columns]).cpu().numpy()
    return flat


def table_of(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Item], stats: Sequence[Numbers]) -> pa.Table:
    """The score table of rows whose numbers, (statistics, scored tokens) each, are known; NaN where one is not."""
    bounds = pa.array(np.cumsum([0, *(part.shape[1] for part in stats)]).astype(np.int32))
    flat = np.concatenate([np.zeros((len(_NUMBERS) + 1, 0), np.float32), *stats], axis=1)
    ranges = [row.encoded.offsets[row.mask] for row in rows]
    spans = np.concatenate([np.zeros((0, 2), np.int32), *ranges])

    def lists(values: npt.NDArray[np.generic]) -> pa.Array:
        return pa.ListArray.from_arrays(bounds, pa.array(np.ascontiguousarray(values)))

    columns = {
        "id": [row.record.id for row in rows],
        "variant": [row.variant for row in rows],
        "subject": [row.record.subject for row in rows],
        "text": [row.text for row in rows],
        "truncated": [row.encoded.truncated for row in rows],
        "eos": [len(places) > 0 and int(places[-1, 0]) < 0 for places in ranges],
        "tokens": pa.array([_tokens(tokenizer, row) for row in rows], pa.list_(pa.string())),
        "start": lists(spans[:, 0]),
        "end": lists(spans[:, 1]),
        **{name: lists(flat[index]) for index, name in enumerate(_NUMBERS)},
        "top1": lists(flat[-1] > 0.5),
    }
    return pa.table({name: columns[name] for name in SCORES.names}, schema=SCORES)


def _tokens(tokenizer: PreTrainedTokenizerBase, row: Item) -> list[str]:
    """The characters of each scored token; outside the answer, what the tokenizer writes for it."""
    places, ids = row.encoded.offsets[row.mask].tolist(), row.encoded.targets[row.mask].tolist()
    return [
        row.text[start:end] if start >= 0 else str(tokenizer.decode([token]))
        for (start, end), token in zip(places, ids, strict=True)
    ]
