"""The slow, plain way to every teacher-forced metric: one padded pass a metric with whole logits, then Python loops.

The twin of `evals.scoring` with `evals.metrics`: written from the definitions, sharing no code with them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from expunge.data.encode import Encoder
from expunge.data.records import Record

BATCH_SIZE = 32


@dataclass
class Counter:
    """How many sequences and padded tokens went through the model."""

    sequences: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Pair:
    """One answer as ids and labels of equal length (labels -100 on the prompt), and its text."""

    ids: list[int]
    labels: list[int]
    text: str


def pairs(encoder: Encoder, records: Sequence[Record], answer: Callable[[Record], str] | None = None) -> list[Pair]:
    """The records' answers (or `answer` of them) as ids and unshifted labels."""
    out = []
    for record in records:
        text = record.answer if answer is None else answer(record)
        encoded = encoder.encode(record, answer=text)
        out.append(Pair(encoded.input_ids.tolist(), [-100, *encoded.targets.tolist()[:-1]], text))
    return out


def passes(model: PreTrainedModel, data: Sequence[Pair], count: Counter) -> Iterator[tuple[Pair, Tensor, Tensor]]:
    """(pair, logits (T-1, V), labels (T-1,)) of every pair, from padded batches in the order of the data."""
    for start in range(0, len(data), BATCH_SIZE):
        batch = data[start : start + BATCH_SIZE]
        width = max(len(pair.ids) for pair in batch)
        ids = torch.tensor([pair.ids + [0] * (width - len(pair.ids)) for pair in batch])
        labels = torch.tensor([pair.labels + [-100] * (width - len(pair.ids)) for pair in batch])
        mask = torch.tensor([[1] * len(pair.ids) + [0] * (width - len(pair.ids)) for pair in batch])
        count.sequences += len(batch)
        count.tokens += ids.numel()
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, labels=labels).logits
        for row, pair in enumerate(batch):
            yield pair, logits[row, :-1].float(), labels[row, 1:]


def losses(model: PreTrainedModel, data: Sequence[Pair], count: Counter) -> list[float]:
    """Mean negative log-likelihood of the label tokens of each pair, the end token included."""
    out = []
    for _, logits, labels in passes(model, data, count):
        loss = F.cross_entropy(logits, labels, reduction="none", ignore_index=-100)
        out.append(float(loss.sum() / (labels != -100).sum()))
    return out


def _label_rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    places = (labels != -100).nonzero()[:-1, 0]
    return torch.log_softmax(logits[places], -1), labels[places]


def exact_memorization(model: PreTrainedModel, data: Sequence[Pair], count: Counter) -> list[float]:
    """Share of label tokens but the last that are the arg max."""
    out = []
    for _, logits, labels in passes(model, data, count):
        rows, wanted = _label_rows(logits, labels)
        out.append(float((rows.argmax(-1) == wanted).float().mean()))
    return out


def extraction_strength(model: PreTrainedModel, data: Sequence[Pair], count: Counter) -> list[float]:
    """1 - k / n with k the shortest prefix after which every arg max is right."""
    out = []
    for _, logits, labels in passes(model, data, count):
        rows, wanted = _label_rows(logits, labels)
        right = (rows.argmax(-1) == wanted).tolist()
        k = next(k for k in range(len(right) + 1) if all(right[k:]))
        out.append(1 - k / len(right))
    return out


def min_k(model: PreTrainedModel, data: Sequence[Pair], count: Counter, k: float = 0.4) -> list[float]:
    """Minus the mean of the lowest share `k` of token log-probabilities, the end token left out."""
    out = []
    for _, logits, labels in passes(model, data, count):
        rows, wanted = _label_rows(logits, labels)
        values = sorted(rows[range(len(wanted)), wanted].tolist())
        lowest = values[: max(1, int(len(values) * k))]
        out.append(-math.fsum(lowest) / len(lowest))
    return out


def min_k_plus_plus(model: PreTrainedModel, data: Sequence[Pair], count: Counter, k: float = 0.4) -> list[float]:
    """Min-k of standardised log-probabilities; two passes, as the peer makes them."""
    list(passes(model, data, count))
    out = []
    for _, logits, labels in passes(model, data, count):
        rows, wanted = _label_rows(logits, labels)
        mean = (rows.exp() * rows).sum(-1)
        variance = (rows.exp() * rows**2).sum(-1) - mean**2
        scores = (rows[range(len(wanted)), wanted] - mean) / variance.clamp(min=1e-6).sqrt()
        lowest = sorted(scores.tolist())[: max(1, int(len(scores) * k))]
        out.append(-math.fsum(lowest) / len(lowest))
    return out


def zlib_ratio(model: PreTrainedModel, data: Sequence[Pair], count: Counter) -> list[float]:
    """Loss over the compressed length of the answer."""
    found = losses(model, data, count)
    return [loss / len(zlib.compress(pair.text.encode())) for loss, pair in zip(found, data, strict=True)]


ATTACKS: Mapping[str, Callable[[PreTrainedModel, Sequence[Pair], Counter], list[float]]] = {
    "mia_loss": losses,
    "mia_zlib": zlib_ratio,
    "mia_min_k": min_k,
    "mia_min_k_plus_plus": min_k_plus_plus,
}


def auc(members: Sequence[float], others: Sequence[float]) -> float:
    """Share of (member, other) pairs in which the member is lower, ties counted half."""
    wins = sum((m < o) + 0.5 * (m == o) for m in members for o in others)
    return wins / (len(members) * len(others))


def every_pass(
    model: PreTrainedModel, reference: PreTrainedModel, encoder: Encoder, sets: Mapping[str, Sequence[Record]]
) -> tuple[dict[str, list[float]], Counter]:
    """All teacher-forced metrics of the TOFU suite by name, a pass (or more) for each, as the peer makes them."""
    count = Counter()
    out: dict[str, list[float]] = {}
    for name, records in sets.items():
        if name == "holdout":
            continue
        out[f"{name}/answer"] = losses(model, pairs(encoder, records), count)
        if records[0].paraphrase:
            out[f"{name}/paraphrase"] = losses(model, pairs(encoder, records, lambda r: r.paraphrase), count)
        for index in range(len(records[0].perturbed)):
            wrong = pairs(encoder, records, lambda r, i=index: r.perturbed[i])  # type: ignore[misc]
            out[f"{name}/perturbed:{index}"] = losses(model, wrong, count)
    inside, outside = pairs(encoder, sets["forget"]), pairs(encoder, sets["holdout"])
    for name, attack in ATTACKS.items():
        out[f"{name}/forget"] = attack(model, inside, count)
        out[f"{name}/holdout"] = attack(model, outside, count)
    for data in (inside, outside):
        losses(model, data, count)
        losses(reference, data, count)
    out["extraction_strength"] = extraction_strength(model, inside, count)
    out["exact_memorization"] = exact_memorization(model, inside, count)
    return out, count
