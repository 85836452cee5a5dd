"""A token classifier that learns from some annotated texts which words are unwanted, and marks the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerBase

from expunge.data.records import Annotation, Record
from expunge.data.words import Segmentation, cut
from expunge.errors import DataError, ModelError
from expunge.identifiers.finding import GENERAL, UNWANTED
from expunge.identifiers.locate import Range
from expunge.identifiers.neural.batches import by_length, padded
from expunge.identifiers.neural.folder import identity, load_model, load_tokenizer, save
from expunge.lm import device_of

Floats = NDArray[np.float64]
IGNORED = -100
_WORDS = "expunge_words"
_CONFIGURED = {"num_labels": 2, "id2label": {0: GENERAL, 1: UNWANTED}, "label2id": {GENERAL: 0, UNWANTED: 1}}


@dataclass(frozen=True)
class Lessons:
    """How a classifier is trained. `held_out` is the share of the texts that are only used to say how well it does."""

    epochs: int = 5
    batch_size: int = 16
    rate: float = 5e-5
    weight_decay: float = 0.01
    held_out: float = 0.1
    max_tokens: int = 512
    device: str = "auto"


@dataclass(frozen=True)
class _Window:
    """Tokens of one text as the model reads them: the ids, and for each the token of the text that it is, or -1."""

    ids: list[int]
    place: NDArray[np.int64]


@dataclass(frozen=True)
class _Text:
    """A text in windows, and where each of its tokens is: (n, 2) character ranges of the answer (or text)."""

    windows: tuple[_Window, ...]
    offsets: NDArray[np.int64]


@dataclass(frozen=True)
class Tagger:
    """A token classifier and its tokenizer. `words` is what it was taught that a word is."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    words: Segmentation
    max_tokens: int

    @classmethod
    def load(cls, name: str, *, device: str = "auto", max_tokens: int = 512) -> Tagger:
        """The classifier of a folder that `train_classifier` made (or one like it); ModelError if it is none."""
        tokenizer = load_tokenizer(name)
        model = load_model(AutoModelForTokenClassification, name, device_of(device))
        if dict(model.config.id2label) != _CONFIGURED["id2label"]:
            found = ", ".join(map(str, model.config.id2label.values()))
            raise ModelError(
                f"'{name}' tells apart: {found}; a classifier of general and unwanted words was expected. "
                "Train one on an annotation file first."
            )
        words: Segmentation = getattr(model.config, _WORDS, "words")
        return cls(model, tokenizer, words, min(max_tokens, longest(model)))

    def unwanted(self, records: Iterable[Record], token_budget: int, words: Segmentation) -> Iterator[list[float]]:
        """For every record the probability that each of its words is unwanted: the mean over the word's tokens."""
        for record in records:
            text = encode(self.tokenizer, record, self.max_tokens)
            yield word_means(self._tokens(text, token_budget), text.offsets, cut(record.body, words))

    @torch.no_grad()
    def _tokens(self, text: _Text, token_budget: int) -> Floats:
        """(n,) the probability of each token of the text, the mean over the windows that hold it."""
        total, seen = np.zeros(len(text.offsets)), np.zeros(len(text.offsets))
        for batch in by_length([len(window.ids) for window in text.windows], token_budget):
            chosen = [text.windows[index] for index in batch]
            ids, mask = padded([window.ids for window in chosen], self.tokenizer.pad_token_id or 0)
            logits = self.model(input_ids=ids.to(self.model.device), attention_mask=mask.to(self.model.device)).logits
            chances = logits.double().softmax(-1)[..., 1].cpu().numpy()
            for row, window in enumerate(chosen):
                inside = window.place >= 0
                total[window.place[inside]] += chances[row, : len(inside)][inside]
                seen[window.place[inside]] += 1
        return np.divide(total, seen, out=np.zeros_like(total), where=seen > 0)


def train_classifier(
    records: Sequence[Record],
    annotations: Iterable[Annotation],
    out: str | Path,
    *,
    base: str,
    words: Segmentation = "words",
    lessons: Lessons | None = None,
    seed: int = 0,
    on_epoch: Callable[[int, float], None] | None = None,
) -> Path:
    """The folder `out`, which now holds a classifier of words taught by the annotations of some of the records.

    `base` is the model to begin with (a masked language model, by name or folder). A word is unwanted if an unwanted
    span touches it. `training.json` beside the weights says how well the held-out texts are marked. The same data,
    settings and seed give the same weights on the same machine. `on_epoch` is called with (epoch, mean loss in nats).
    """
    lessons = lessons or Lessons()
    taught = _taught(records, annotations)
    order = np.random.default_rng([seed, 0]).permutation(len(taught))
    held = min(round(lessons.held_out * len(taught)), len(taught) - 1)
    device = device_of(lessons.device)
    tokenizer = load_tokenizer(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = load_model(AutoModelForTokenClassification, base, device, **_CONFIGURED)
    setattr(model.config, _WORDS, words)
    limit = min(lessons.max_tokens, longest(model))
    examples = [
        example for i in order[held:] for example in _examples(encode(tokenizer, taught[i], limit), taught[i], words)
    ]
    started = time.monotonic()
    losses = _fit(model, tokenizer, examples, lessons, seed, on_epoch)
    tagger = Tagger(model.eval(), tokenizer, words, limit)
    notes = {
        "base": base, "base_identity": identity(base), "words": words, "seed": seed, "lessons": asdict(lessons),
        "texts": len(taught) - held, "losses": losses, "seconds": round(time.monotonic() - started, 1),
        "held_out": _score(tagger, [taught[i] for i in order[:held]], words),
    }  # fmt: skip
    return save(Path(out).expanduser(), model, tokenizer, notes)


def encode(tokenizer: PreTrainedTokenizerBase, record: Record, max_tokens: int) -> _Text:
    """The record's answer (or text) in windows that overlap by a quarter, the end of its prompt before each of them."""
    begin, end = ([token] if token is not None else [] for token in (tokenizer.cls_token_id, tokenizer.sep_token_id))
    before = record.prompt.rstrip() + " " if record.prompt.strip() else ""
    encoded = tokenizer(before + record.body, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = list(encoded["input_ids"])
    offsets = np.asarray(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2) - len(before)
    first = int(np.searchsorted(offsets[:, 1], 0, side="right"))
    room = max_tokens - len(begin) - len(end)
    prompt = ids[max(0, first - room // 2) : first]
    room -= len(prompt)
    windows, at, body = [], 0, ids[first:]
    while at < len(body):
        part = body[at : at + room]
        place = np.full(len(begin) + len(prompt) + len(part) + len(end), -1)
        place[len(begin) + len(prompt) :][: len(part)] = np.arange(at, at + len(part))
        windows.append(_Window([*begin, *prompt, *part, *end], place))
        at = len(body) if at + room >= len(body) else at + room - room // 4
    return _Text(tuple(windows), offsets[first:].clip(min=0))


def word_means(chances: Floats, offsets: NDArray[np.int64], words: Sequence[Range]) -> list[float]:
    """For every word the mean over the tokens that touch it; 0 where none does."""
    means = []
    for start, end in words:
        first = int(np.searchsorted(offsets[:, 1], start, side="right"))
        last = int(np.searchsorted(offsets[:, 0], end, side="left"))
        means.append(float(chances[first:last].mean()) if first < last else 0.0)
    return means


def marked_words(record: Record, words: Sequence[Range]) -> list[bool]:
    """For every word whether an unwanted span of the record's answer (or text) touches it."""
    spans = [span for span in record.spans if span.label == UNWANTED and span.field == record.body_field]
    return [any(span.start < end and span.end > start for span in spans) for start, end in words]


def longest(model: Any) -> int:
    """The longest input the model takes, in tokens; two places are left for models that count from two."""
    return int(getattr(model.config, "max_position_embeddings", 514)) - 2


def _taught(records: Sequence[Record], annotations: Iterable[Annotation]) -> list[Record]:
    """The records that are annotated, each text once, with the annotation's spans in place of their own."""
    spans = {annotation.text_hash: annotation.spans for annotation in annotations}
    taught = {
        record.text_hash: replace(record, spans=spans[record.text_hash])
        for record in records
        if record.text_hash in spans and record.body.strip()
    }
    if len(taught) < 2:
        raise DataError(
            f"{len(taught)} of the {len(records)} records are annotated; a classifier needs some dozens. "
            "Check that annotations and records belong together."
        )
    if not any(span.label == UNWANTED for record in taught.values() for span in record.spans):
        raise DataError("no annotation marks anything as unwanted, so there is nothing to learn.")
    return list(taught.values())


def _examples(text: _Text, record: Record, words: Segmentation) -> Iterator[tuple[list[int], list[int]]]:
    """(ids, labels) of every window: 1 for tokens of unwanted words, 0 for those of others, IGNORED elsewhere."""
    ranges = cut(record.body, words)
    labels = np.full(len(text.offsets) + 1, IGNORED)  # the last place is what -1 points to
    for (start, end), unwanted in zip(ranges, marked_words(record, ranges), strict=True):
        first = int(np.searchsorted(text.offsets[:, 1], start, side="right"))
        last = int(np.searchsorted(text.offsets[:, 0], end, side="left"))
        labels[first:last] = np.maximum(labels[first:last], int(unwanted))
    for window in text.windows:
        yield window.ids, labels[window.place].tolist()


def _fit(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[tuple[list[int], list[int]]],
    lessons: Lessons,
    seed: int,
    on_epoch: Callable[[int, float], None] | None,
) -> list[float]:
    """The mean loss of each epoch (nats a token); dropout is off, so nothing but the order is drawn."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=lessons.rate, weight_decay=lessons.weight_decay)
    size, losses, step = lessons.batch_size, [], 0
    steps = lessons.epochs * -(-len(examples) // size)
    for epoch in range(lessons.epochs):
        order, total, tokens = np.random.default_rng([seed, 1, epoch]).permutation(len(examples)), 0.0, 0
        for at in range(0, len(order), size):
            chosen = [examples[i] for i in order[at : at + size]]
            ids, mask = padded([example[0] for example in chosen], tokenizer.pad_token_id or 0)
            labels, _ = padded([example[1] for example in chosen], IGNORED)
            step += 1
            for group in optimiser.param_groups:
                group["lr"] = lessons.rate * min(step / (0.1 * steps), (1 + steps - step) / (0.9 * steps), 1.0)
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device)).logits
            target = labels.to(model.device).flatten()
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target, ignore_index=IGNORED)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            count = int((target != IGNORED).sum())
            total, tokens = total + float(loss.detach()) * count, tokens + count
        losses.append(round(total / max(tokens, 1), 5))
        if on_epoch is not None:
            on_epoch(epoch + 1, losses[-1])
    return losses


def _score(tagger: Tagger, records: Sequence[Record], words: Segmentation) -> dict[str, float]:
    """Precision, recall and F1 over the words of held-out texts at probability one half; empty without any."""
    if not records:
        return {}
    hit = named = real = 0
    for record, chances in zip(records, tagger.unwanted(records, 8192, words), strict=True):
        for chance, unwanted in zip(chances, marked_words(record, cut(record.body, words)), strict=True):
            hit, named, real = hit + (unwanted and chance >= 0.5), named + (chance >= 0.5), real + unwanted
    precision, recall = hit / named if named else 0.0, hit / real if real else 0.0
    f1 = 2 * hit / (named + real) if named + real else 0.0
    return {"texts": len(records), "precision": precision, "recall": recall, "f1": f1}
