"""Which words a masked language model predicts when they are hidden from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForMaskedLM, PreTrainedTokenizerBase

from expunge.errors import ModelError
from expunge.identifiers.locate import Range
from expunge.identifiers.neural.batches import by_length, padded, window
from expunge.identifiers.neural.folder import load_model, load_tokenizer
from expunge.lm import device_of

_HEADS: Mapping[str, str] = {
    "bert": "cls", "roberta": "lm_head", "xlm-roberta": "lm_head", "camembert": "lm_head",
}  # fmt: skip
"""Model types whose head can be put on chosen positions alone, and its name; others compute all positions."""
_AT_ONCE = 2048
"""Masked texts that are put into batches together."""


@dataclass(frozen=True)
class Question:
    """A text, what stands before it, and the ranges of its words."""

    before: str
    text: str
    words: tuple[Range, ...]


@dataclass(frozen=True)
class Verdict:
    """For every word whether it is general, and how many words have several pieces."""

    general: tuple[bool, ...]
    several: int


@dataclass
class _Open:
    """A text some of whose words are still to be judged."""

    general: list[bool]
    several: int = 0

    def verdict(self) -> Verdict:
        return Verdict(tuple(self.general), self.several)


@dataclass(frozen=True)
class _Row:
    """One masked text: its tokens, the masked positions, and for each the tokens that would be right."""

    text: _Open
    word: int
    ids: list[int]
    positions: list[int]
    right: list[tuple[int, ...]]


@dataclass(frozen=True)
class Filler:
    """A masked language model and the rule by which a word counts as predicted."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    top_k: int = 1
    threshold: float = 0.0
    case: Literal["ignore", "match"] = "ignore"
    pieces: Literal["all", "joint", "single"] = "all"
    max_tokens: int = 512
    token_budget: int = 8192

    @classmethod
    def load(cls, name: str, *, device: str = "auto", max_tokens: int = 512, **rule: Any) -> Filler:
        """The model of a hub name or folder. ModelError if it is none that fills masks."""
        tokenizer = load_tokenizer(name)
        if tokenizer.mask_token_id is None:
            raise ModelError(f"'{name}' has no mask token, so it is no masked language model. Name one that is.")
        model = load_model(AutoModelForMaskedLM, name, device_of(device))
        longest = int(getattr(model.config, "max_position_embeddings", max_tokens + 2)) - 2
        return cls(model, tokenizer, max_tokens=min(max_tokens, longest), **rule)

    def judge(self, questions: Iterable[Question]) -> Iterator[Verdict]:
        """A verdict on each text, in order."""
        waiting: list[_Open] = []
        rows: list[_Row] = []
        for question in questions:
            waiting.append(_Open([False] * len(question.words)))
            for row in self._rows(question, waiting[-1]):
                rows.append(row)
                if len(rows) == _AT_ONCE:
                    self._settle(rows)
                    rows = []
                    yield from map(_Open.verdict, waiting[:-1])
                    waiting = waiting[-1:]
        self._settle(rows)
        yield from map(_Open.verdict, waiting)

    def _settle(self, rows: Sequence[_Row]) -> None:
        for row, predicted in self._predicted(rows):
            row.text.general[row.word] = predicted

    def _rows(self, question: Question, text: _Open) -> Iterator[_Row]:
        """A row for every word that could be predicted at all."""
        before = question.before.rstrip() + " " if question.before.strip() else ""
        encoded = self.tokenizer(
            before + question.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids = encoded["input_ids"]
        starts, ends = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2).T
        for number, (start, end) in enumerate(question.words):
            first = int(np.searchsorted(ends, start + len(before), side="right"))
            last = int(np.searchsorted(starts, end + len(before), side="left"))
            text.several += last - first > 1
            right = self._right(question.text[start:end], ids[first:last])
            row = self._row(text, number, ids, (first, last), right) if right and first < last else None
            if row is not None:
                yield row

    def _row(self, text: _Open, word: int, ids: Sequence[int], at: Range, right: list[tuple[int, ...]]) -> _Row | None:
        """The text with as many masks in the word's place as there are tokens to predict; None if it has no room."""
        begin, end = ([token] if token is not None else [] for token in self._ends)
        room = self.max_tokens - len(begin) - len(end)
        masks, stop = len(right), at[0] + len(right)
        if masks > room:
            return None
        first, last = window(len(ids) - (at[1] - at[0]) + masks, at[0], stop, room)
        left, rest = ids[first : at[0]], ids[at[1] : at[1] + last - stop]
        positions = [len(begin) + len(left) + place for place in range(masks)]
        return _Row(text, word, [*begin, *left, *[self._mask] * masks, *rest, *end], positions, right)

    def _right(self, word: str, pieces: Sequence[int]) -> list[tuple[int, ...]]:
        """For every mask the tokens that count as the word (or its piece); empty if no prediction could be right."""
        if self.pieces == "single":
            whole = self._alike.get((True, self._folded(word)), ())
            return [whole] if whole else []
        if self.tokenizer.unk_token_id in pieces:
            return []
        right = []
        for place, token in enumerate(pieces):
            key = self._key(token, place == 0)
            right.append(self._alike.get(key, (token,)) if key else (token,))
        return right

    @cached_property
    def _alike(self) -> Mapping[tuple[bool, str], tuple[int, ...]]:
        """Tokens by (at the beginning of a word?, what they say); white space does not count at the beginning."""
        alike: dict[tuple[bool, str], list[int]] = {}
        special = set(self.tokenizer.all_special_ids)
        for token in range(len(self.tokenizer)):
            for first in (True, False) if token not in special else ():
                key = self._key(token, first)
                if key is not None:
                    alike.setdefault(key, []).append(token)
        return {key: tuple(tokens) for key, tokens in alike.items()}

    def _key(self, token: int, first: bool) -> tuple[bool, str] | None:
        """What a token says; None if it is but a part of a letter."""
        said = self._said[token]
        if "\ufffd" in said:
            return None
        return first, self._folded(said.strip() if first else said)

    @cached_property
    def _said(self) -> list[str]:
        one_by_one = [[token] for token in range(len(self.tokenizer))]
        return list(self.tokenizer.batch_decode(one_by_one, clean_up_tokenization_spaces=False))

    def _folded(self, text: str) -> str:
        return text.casefold() if self.case == "ignore" else text

    @cached_property
    def _ends(self) -> tuple[int | None, int | None]:
        """The tokens that this tokenizer puts around a text."""
        t = self.tokenizer
        return (t.cls_token_id if t.cls_token_id is not None else t.bos_token_id,
                t.sep_token_id if t.sep_token_id is not None else t.eos_token_id)  # fmt: skip

    @cached_property
    def _mask(self) -> int:
        return int(self.tokenizer.mask_token_id)

    def _predicted(self, rows: Sequence[_Row]) -> Iterator[tuple[_Row, bool]]:
        """Every row with the answer whether its word was predicted."""
        for batch in by_length([len(row.ids) for row in rows], self.token_budget):
            chosen = [rows[index] for index in batch]
            logits = self._logits(chosen)
            inside, chance = self._rank_and_chance(logits, [right for row in chosen for right in row.right])
            at = 0
            for row in chosen:
                part = slice(at, at + len(row.right))
                at += len(row.right)
                probability = chance[part].prod() if self.pieces == "joint" else chance[part].min()
                yield row, bool(inside[part].all()) and float(probability) >= self.threshold

    @torch.no_grad()
    def _logits(self, rows: Sequence[_Row]) -> Tensor:
        """(N, V) float32 logits at all masked positions, row by row."""
        pad = self.tokenizer.pad_token_id or 0
        ids, attention = (tensor.to(self.model.device) for tensor in padded([row.ids for row in rows], pad))
        places = [(number, position) for number, row in enumerate(rows) for position in row.positions]
        at = torch.tensor(places, device=ids.device)
        head = _HEADS.get(self.model.config.model_type)
        if head is None:
            logits: Tensor = self.model(input_ids=ids, attention_mask=attention).logits[at[:, 0], at[:, 1]]
            return logits.float()
        states = self.model.base_model(input_ids=ids, attention_mask=attention).last_hidden_state
        chosen: Tensor = self.model.get_submodule(head)(states[at[:, 0], at[:, 1]])
        return chosen.float()

    def _rank_and_chance(self, logits: Tensor, right: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """For every position: is a right token among the top_k (N,) bool, and its probability (N,) float64."""
        tokens, known = padded([list(t) for t in right], 0)
        found = logits.gather(1, tokens.to(logits.device)).masked_fill(known.to(logits.device) == 0, -torch.inf)
        best = found.max(dim=1).values
        above = (logits > best[:, None]).sum(dim=1)
        chance = (best.double() - logits.double().logsumexp(dim=1)).exp()
        return (above < self.top_k).cpu(), chance.cpu()
