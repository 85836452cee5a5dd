"""Text that a model writes by itself: greedy or sampled, in batches, equal to one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.cache_utils import DynamicCache, DynamicLayer

from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.lm import LM, backbone_of, head_of

_COMPACT_SHARE = 8
Progress = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


@dataclass(frozen=True)
class Written:
    """What the model wrote after one prompt, without the token that stopped it; `stopped` by itself or by the limit."""

    ids: tuple[int, ...]
    stopped: bool


def stop_ids(lm: LM, encoder: Encoder, records: Sequence[Record]) -> frozenset[int]:
    """The tokens that end an answer: by generation configuration, by tokenizer, and the one that the encoder scores."""
    config = lm.model.generation_config
    listed = config.eos_token_id if config is not None else None
    found = {int(token) for token in ([listed] if isinstance(listed, int) else listed or [])}
    if isinstance(lm.tokenizer.eos_token_id, int):
        found.add(lm.tokenizer.eos_token_id)
    for record in records[:1]:
        encoded = encoder.encode(record)
        last = (encoded.targets >= 0).nonzero()[0][-1:]
        found.update(int(encoded.targets[t]) for t in last if encoded.offsets[t, 0] < 0)
    return frozenset(found)


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Every module's training mode is afterwards what it was before."""
    before = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def inference(lm: LM) -> Iterator[None]:
    """No autograd and no dropout inside; the model's training mode as before afterwards."""
    with modes_kept(lm.model), torch.inference_mode():
        lm.model.train(False)
        yield


def complete(
    lm: LM,
    prompts: Sequence[Sequence[int]],
    stops: frozenset[int],
    *,
    max_new_tokens: int = 200,
    batch_size: int = 32,
    temperature: float = 0.0,
    draws: Sequence[int] = (),
    progress: Progress | None = None,
) -> list[Written]:
    """What the model writes after each prompt: greedily, or sampled at a `temperature` above 0 with a seed a prompt.

    `batch_size` rows are written side by side, the longest prompts first; one that has finished makes room for another.
    """
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    texts = [_Text(max_new_tokens) for _ in prompts]
    picks = [_sampler(temperature, draws[index]) if temperature > 0 else None for index in range(len(prompts))]
    done = 0
    with inference(lm):
        slots = _Slots(lm)
        while order or slots.rows:
            free = batch_size - len(slots.rows)
            if order and slots.takes(free, batch_size):
                new, order = order[:free], order[free:]
                slots.add(new, [prompts[index] for index in new])
            picked = slots.picked(picks)
            for row, token in zip(slots.rows, picked.tolist(), strict=True):
                texts[row].read(token, stops)
            keep = [place for place, row in enumerate(slots.rows) if not texts[row].finished]
            finished = len(slots.rows) - len(keep)
            if finished >= max(1, len(slots.rows) // _COMPACT_SHARE) or not keep:
                picked = picked[keep]
                slots.keep(keep)
                done += finished
                if progress is not None:
                    progress(done, len(prompts))
            if slots.rows:
                slots.advance(picked)
    return [Written(tuple(text.ids), text.stopped) for text in texts]


@dataclass
class _Text:
    """What has been written after one prompt, and how many tokens there may yet be."""

    left: int
    ids: list[int] = field(default_factory=list)
    stopped: bool = False

    @property
    def finished(self) -> bool:
        return self.stopped or self.left <= 0

    def read(self, token: int, stops: frozenset[int]) -> None:
        """Appends the token, or stops at it; nothing once it has finished."""
        if self.finished:
            return
        self.left -= 1
        self.stopped = token in stops
        if not self.stopped:
            self.ids.append(token)


def _sampler(temperature: float, seed: int) -> Callable[[Tensor], int]:
    """Picks tokens of one text from rows of logits (V,), one after the other."""
    generator = torch.Generator().manual_seed(seed)

    def pick(logits: Tensor) -> int:
        share = torch.softmax(logits.double().cpu() / temperature, dim=-1)
        return int(torch.multinomial(share, 1, generator=generator))

    return pick


class _Slots:
    """Rows that are being written side by side, each text at the right end of its row, padding in front.

    `rows` says which prompt each one belongs to. A row that has finished is taken out, and one that has not begun put
    in its place with what it has in front made up to the length of the others; columns that are padding in every row
    are cut away, so that rows are never longer than the longest text. Where layers keep something else than the keys
    and values of all tokens, rows are only put in when there are no others.
    """

    def __init__(self, lm: LM) -> None:
        self._lm, self._head, self._backbone = lm, head_of(lm.model), backbone_of(lm.model)
        self.rows: list[int] = []
        self._cache = DynamicCache(config=lm.model.config)
        self._mask = self._logits = torch.empty(0)

    def takes(self, free: int, size: int) -> bool:
        """True if new rows are worth a pass of their own now: an eighth of them, or there are none."""
        if not self.rows:
            return True
        whole = all(type(layer) is DynamicLayer for layer in self._cache.layers)
        return whole and free >= max(1, size // _COMPACT_SHARE)

    def add(self, rows: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Reads the prompts and puts them beside the rows that are there."""
        ids, mask = _left_padded(prompts, self._lm.pad_id, self._lm.device)
        cache = DynamicCache(config=self._lm.model.config)
        logits = self._read(ids, mask, cache)
        if self.rows:
            width = max(mask.shape[1], self._mask.shape[1])
            for old, new in zip(self._cache.layers, cache.layers, strict=True):
                if old.is_initialized:  # one that shares another's keys and values keeps none
                    old.keys = torch.cat([_fronted(old.keys, width), _fronted(new.keys, width)])
                    old.values = torch.cat([_fronted(old.values, width), _fronted(new.values, width)])
            mask = torch.cat([F.pad(one, (width - one.shape[1], 0)) for one in (self._mask, mask)])
            logits = torch.cat([self._logits, logits])
            cache = self._cache
        self._cache, self._mask, self._logits = cache, mask, logits
        self.rows = [*self.rows, *rows]

    def picked(self, picks: Sequence[Callable[[Tensor], int] | None]) -> Tensor:
        """(rows,) the next token of each: the likeliest, or what the prompt's own sampler says."""
        likeliest = self._logits.argmax(-1)
        for place, row in enumerate(self.rows):
            sampler = picks[row]
            if sampler is not None:
                likeliest[place] = sampler(self._logits[place])
        return likeliest

    def keep(self, places: Sequence[int]) -> None:
        """Takes the other rows out, and the columns that are now padding in all rows."""
        self.rows = [self.rows[place] for place in places]
        if not places:  # the next rows come with a cache of their own
            return
        kept = torch.tensor(places, device=self._mask.device)
        self._mask = self._mask[kept]
        self._cache.batch_select_indices(kept)
        if all(type(layer) is DynamicLayer for layer in self._cache.layers):
            first = int(self._mask.any(0).int().argmax())
            self._mask = self._mask[:, first:]
            for layer in self._cache.layers:
                if first and layer.is_initialized:
                    layer.keys, layer.values = layer.keys[..., first:, :], layer.values[..., first:, :]

    def advance(self, picked: Tensor) -> None:
        """Reads one token a row."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(picked), 1)], dim=1)
        self._logits = self._read(picked[:, None], self._mask, self._cache)

    def _read(self, ids: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
        """(rows, V) logits after the last of `ids`, which the cache has not yet read."""
        positions = mask.cumsum(1).sub_(1).clamp_(min=0)[:, -ids.shape[1] :]
        states = self._backbone(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        return self._head.logits(states[:, -1])


def _fronted(states: Tensor, length: int) -> Tensor:
    """(B, H, length, D) the states of B rows with zeros in front, which the mask hides."""
    return F.pad(states, (0, 0, length - states.shape[2], 0))


def _left_padded(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T) ids and their mask, the padding in front."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask[row, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
