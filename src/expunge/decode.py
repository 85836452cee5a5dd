"""Text that a model writes by itself: greedy or sampled, in batches, equal to one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache

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

    Batches hold prompts of like length.
    """
    out: dict[int, Written] = {}
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    with inference(lm):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            picks = [_sampler(temperature, draws[index]) for index in batch] if temperature > 0 else []
            written = _batch(lm, [prompts[index] for index in batch], stops, max_new_tokens, picks)
            out.update(zip(batch, written, strict=True))
            if progress is not None:
                progress(len(out), len(prompts))
    return [out[index] for index in range(len(prompts))]


def _sampler(temperature: float, seed: int) -> Callable[[Tensor], int]:
    """Picks tokens of one text from rows of logits (V,), one after the other."""
    generator = torch.Generator().manual_seed(seed)

    def pick(logits: Tensor) -> int:
        share = torch.softmax(logits.double().cpu() / temperature, dim=-1)
        return int(torch.multinomial(share, 1, generator=generator))

    return pick


def _batch(
    lm: LM,
    prompts: Sequence[Sequence[int]],
    stops: frozenset[int],
    max_new_tokens: int,
    picks: Sequence[Callable[[Tensor], int]] = (),
) -> list[Written]:
    """Left-padded decoding, row k by `picks[k]` if given.

    A finished row leaves batch and cache once an eighth of the rows has finished.
    """
    written: list[list[int]] = [[] for _ in prompts]
    stopped = [False] * len(prompts)
    alive = list(range(len(prompts)))
    ids, mask = _left_padded(prompts, lm.pad_id, lm.device)
    cache = DynamicCache(config=lm.model.config)
    head, backbone = head_of(lm.model), backbone_of(lm.model)
    for _ in range(max_new_tokens):
        positions = mask.long().cumsum(1).sub_(1).clamp_(min=0)[:, -ids.shape[1] :]
        states = backbone(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        logits = head.logits(states[:, -1])
        drawn = [picks[row](own) for row, own in zip(alive, logits, strict=True)] if picks else []
        picked = torch.tensor(drawn, device=lm.device) if picks else logits.argmax(-1)
        for row, token in zip(alive, picked.tolist(), strict=True):
            if not stopped[row]:
                stopped[row] = token in stops
                if not stopped[row]:
                    written[row].append(token)
        keep = [place for place, row in enumerate(alive) if not stopped[row]]
        if not keep:
            break
        ids = picked[:, None]
        if len(alive) - len(keep) >= max(1, len(alive) // _COMPACT_SHARE):
            kept = torch.tensor(keep, device=lm.device)
            ids, mask, alive = ids[kept], mask[kept], [alive[place] for place in keep]
            cache.batch_select_indices(kept)
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
    return [Written(tuple(text), stop) for text, stop in zip(written, stopped, strict=True)]


def _left_padded(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(B, T) ids and their mask, the padding in front."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask[row, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
