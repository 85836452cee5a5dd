"""The nouns and protocols of the algebra, and the one place where weights are checked.

Axes: B examples, T positions, D width, V vocabulary, N scored tokens.
Index `t` of every `(B, T)` tensor refers to the prediction of `targets[:, t]`, which is `input_ids[:, t + 1]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

IGNORE = -100
"""The target at positions that are not scored: the prompt, the padding, and the last column."""

Side = Literal["forget", "retain", "general"]
At = Literal["before", "own"]
Couples = Literal["sequence", "batch"]
"""How far an objective looks: 'sequence', each row alone; 'batch', rows of a micro-batch enter one another's loss."""
AlternativeSource = Literal["refusals", "own"]
"""Where an answer comes from that a record's is compared with: refusals, or the record's own list of other answers."""
Smoothing = tuple[float, float]
"""The temperature of attention's softmax, and in which share of the layers, the first ones, it is so."""
State = Mapping[str, Mapping[str, Tensor]] | None
"""What scorers have learned so far: the tensors of each by its spec, saved and resumed; None where none learns."""


@dataclass(frozen=True)
class Batch:
    """Tokens aligned once. `input_ids`, `targets` (B, T) int64; `attention_mask` (B, T) bool, from lengths.

    `ids` names the record of each row. `static[NAME]` (B, T) float32 holds scores that were known before the model ran
    (projected annotations, table look-ups), aligned with `targets`, 0 where nothing is scored. `draws` (B,) int64 are
    per-row seeds derived from seed, epoch and index; whatever is random about a row comes from them.
    `alternative` is a second batch of the same B rows (DPO's preferred answers), or None.
    """

    input_ids: Tensor
    targets: Tensor
    attention_mask: Tensor
    ids: tuple[str, ...]
    static: Mapping[str, Tensor] = field(default_factory=dict)
    draws: Tensor | None = None
    alternative: Batch | None = None

    @property
    def mask(self) -> Tensor:
        """(B, T) bool: True where a token is scored."""
        return self.targets != IGNORE

    def generator(self, row: int) -> torch.Generator:
        """A fresh CPU generator for row `row`, the same for the same record and seed, whatever the batch."""
        if self.draws is None:
            raise ValueError("this batch has no draws, so nothing random can be asked of it")
        return torch.Generator().manual_seed(int(self.draws[row]))

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            targets=self.targets.to(device),
            attention_mask=self.attention_mask.to(device),
            static={name: score.to(device) for name, score in self.static.items()},
            draws=None if self.draws is None else self.draws.to(device),
            alternative=None if self.alternative is None else self.alternative.to(device),
        )


class VocabMap(Protocol):
    """A number a token from its whole rows of logits: the chunked way to what needs the full distribution.

    Frozen and hashable; `key` names its result in `TokenStats.vocab`. Called with `logits` (n, V) float32, which
    carry gradient, `reference` (n, V) float32 without gradient or None, and `targets` (n,); returns (n,) float32.
    """

    @property
    def key(self) -> str: ...
    @property
    def reads_reference(self) -> bool: ...
    def __call__(self, logits: Tensor, reference: Tensor | None, targets: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Needs:
    """What a method reads, declared before the forward pass. `a | b` is the union.

    `entropy`: temperatures. `hidden`: (layer, at) pairs, layer an index into the L + 1 hidden states or a depth
    fraction in [0, 1), -1 for the last; `at='before'` is the state that predicts the target, `'own'` the one that has
    read it. `reference_hidden`: the same of the frozen reference.
    `policy=False` says that no model is looked at: such a score is known before the forward pass.
    `alternative` asks for another answer to the same questions, from one source; `logp` alone is told of it.
    `smoothing`: the vocabulary maps read the reference with its attention at another temperature.
    `everywhere` asks for the vocabulary maps at every position, scored or not (targets read as 0 where there is none).
    `labels`: the static scores that spans of the records give rise to, such as 'given' from an annotation.
    """

    policy: bool = True
    everywhere: bool = False
    reference: bool = False
    second_moment: bool = False
    entropy: frozenset[float] = frozenset()
    hidden: frozenset[tuple[int | float, At]] = frozenset()
    reference_hidden: frozenset[tuple[int | float, At]] = frozenset()
    vocab: frozenset[VocabMap] = frozenset()
    alternative: frozenset[AlternativeSource] = frozenset()
    smoothing: frozenset[Smoothing] = frozenset()
    labels: frozenset[str] = frozenset()

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            policy=self.policy or other.policy,
            everywhere=self.everywhere or other.everywhere,
            reference=self.reference or other.reference,
            second_moment=self.second_moment or other.second_moment,
            entropy=self.entropy | other.entropy,
            hidden=self.hidden | other.hidden,
            reference_hidden=self.reference_hidden | other.reference_hidden,
            vocab=self.vocab | other.vocab,
            alternative=self.alternative | other.alternative,
            smoothing=self.smoothing | other.smoothing,
            labels=self.labels | other.labels,
        )

    @property
    def any_reference(self) -> bool:
        """True if anything here reads the frozen reference model."""
        return self.reference_stats or self.reference_rows

    @property
    def reference_rows(self) -> bool:
        """True if a vocabulary map reads the reference's whole distribution at a token."""
        return any(m.reads_reference for m in self.vocab)

    @property
    def reference_stats(self) -> bool:
        """True if `Forward.reference` is read: the reference's numbers at single tokens, or its hidden states."""
        return self.reference or bool(self.reference_hidden)


@dataclass(frozen=True)
class TokenStats:
    """Statistics of one model on one batch: (B, T) float32, nats, exactly 0 where nothing is scored.

    `logp`, `label_logit` and `lse` (log-sum-exp) carry gradient when the model trains; always at temperature 1.
    `top1` (B, T) bool: the target is the arg max. `second_moment`: sum_v p_v (log p_v)^2. `entropy[T]` for each
    temperature asked for, `second_moment` and `top1` never carry gradient. `hidden[layer, at]` (B, T, D).
    `vocab[key]` (B, T): results of the vocabulary maps, with gradient.
    """

    logp: Tensor
    label_logit: Tensor
    lse: Tensor
    top1: Tensor
    entropy: Mapping[float, Tensor] = field(default_factory=dict)
    second_moment: Tensor | None = None
    hidden: Mapping[tuple[int | float, At], Tensor] = field(default_factory=dict)
    vocab: Mapping[str, Tensor] = field(default_factory=dict)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> TokenStats:
        """Every tensor changed alike, such as cut to some rows."""
        return TokenStats(
            logp=change(self.logp),
            label_logit=change(self.label_logit),
            lse=change(self.lse),
            top1=change(self.top1),
            entropy={temperature: change(values) for temperature, values in self.entropy.items()},
            second_moment=None if self.second_moment is None else change(self.second_moment),
            hidden={place: change(values) for place, values in self.hidden.items()},
            vocab={key: change(values) for key, values in self.vocab.items()},
        )


@dataclass(frozen=True)
class Forward:
    """All that a scorer or an objective may look at: the batch, the policy's statistics, the reference's."""

    batch: Batch
    policy: TokenStats
    reference: TokenStats | None = None
    alternative: Forward | None = None

    @property
    def mask(self) -> Tensor:
        """(B, T) bool: True where a token is scored."""
        return self.batch.mask

    @classmethod
    def before(cls, batch: Batch) -> Forward:
        """What is known before a model has run: the batch, and statistics that are all 0."""
        zero = torch.zeros(batch.targets.shape, device=batch.targets.device)
        return cls(batch, TokenStats(logp=zero, label_logit=zero, lse=zero, top1=zero.bool()))


@dataclass(frozen=True)
class Weights:
    """How much each token of a term counts: `value` (B, T) float32 and `mask` (B, T) bool, the tokens that are read.

    Finite, >= 0, and 0 outside the mask: checked here and nowhere else. `flat` counts the sequences whose scores told
    nothing apart and therefore got uniform weights.
    """

    value: Tensor
    mask: Tensor
    flat: int = 0

    def __post_init__(self) -> None:
        value = self.value
        if value.shape != self.mask.shape:
            raise ValueError(f"weights have shape {tuple(value.shape)}, their mask {tuple(self.mask.shape)}")
        if value.requires_grad:
            raise ValueError("weights carry a gradient; scores must be detached")
        if not bool(torch.isfinite(value).all()):
            raise ValueError("weights are not finite")
        if bool((value < 0).any()):
            raise ValueError(f"weights must be >= 0; found {float(value.min())}")
        if bool((value[~self.mask] != 0).any()):
            raise ValueError("weights must be 0 outside their mask")

    @classmethod
    def ones(cls, mask: Tensor) -> Weights:
        """Weight 1 on every token of `mask`."""
        return cls(mask.float(), mask)


@dataclass(frozen=True)
class Loss:
    """One term before reduction: `value` (B,) to minimise and `count` (B,), its share of the denominator.

    The step divides sum(value) by sum(count) over the whole global batch. A row with nothing selected has 0 in both.
    """

    value: Tensor
    count: Tensor


@runtime_checkable
class Scorer(Protocol):
    """Scores tokens: (B, T) float32, detached, higher = forget more; 0 where nothing is scored."""

    @property
    def needs(self) -> Needs: ...
    def __call__(self, forward: Forward, state: State) -> Tensor: ...


@runtime_checkable
class Selector(Protocol):
    """Turns scores (B, T) of the scored tokens `mask` (B, T) into weights. `hard`: it may leave tokens out.

    `signed`: it reads how scores compare, so they may have any sign; else it uses them as weights.
    """

    @property
    def hard(self) -> bool: ...
    @property
    def signed(self) -> bool: ...
    def __call__(self, scores: Tensor, mask: Tensor) -> Weights: ...


@runtime_checkable
class Objective(Protocol):
    """A loss to minimise, a row at a time, from statistics and weights.

    `count(weights, scored)` (B,) must be what `__call__` returns as count: the step calls it to know the denominator
    before the forward pass. `scored` (B, T) bool is the mask of all scored tokens. One that couples the rows of a batch
    gives other results under gradient accumulation, and says so: training warns.
    """

    @property
    def couples(self) -> Couples: ...
    @property
    def needs(self) -> Needs: ...
    def count(self, weights: Weights, scored: Tensor) -> Tensor: ...
    def __call__(self, forward: Forward, weights: Weights) -> Loss: ...


@runtime_checkable
class Unweighted(Objective, Protocol):
    """An objective that may be set so that it reads positions by no weight: then `unweighted` is True."""

    @property
    def unweighted(self) -> bool: ...


@runtime_checkable
class Worded(Protocol):
    """An objective that names tokens by their text: `worded` is it for one tokenizer, which makes ids of a text."""

    def worded(self, ids_of: Callable[[str], list[int]]) -> Objective: ...


NOTHING = Needs(policy=False)
"""What a scorer that looks at no model needs."""

Reduction = Literal["token", "sequence", "sum"]
Denominator = Literal["scored", "selected"]


def weighted(values: Tensor, weights: Weights, scored: Tensor, reduction: Reduction, denominator: Denominator) -> Loss:
    """sum_i w_i x_i of each row of `values` (B, T), with the denominator that `reduction` names.

    'token': the mean over all tokens of the global batch. 'sequence': the mean over sequences of their token means.
    'sum': the mean over sequences of their sums. A token mean divides by the scored tokens of the rows that read any,
    or by the sum of the weights ('selected').
    """
    total = row_sum(values, weights.value)
    if reduction == "sequence":
        tokens = weighted_count(weights, scored, "token", denominator)
        total = total / torch.where(tokens > 0, tokens, 1.0)
    return Loss(total, weighted_count(weights, scored, reduction, denominator))


def weighted_count(weights: Weights, scored: Tensor, reduction: Reduction, denominator: Denominator) -> Tensor:
    """(B,) the count that belongs to `weighted`: 0 for a row in which nothing is read."""
    read = weights.mask.any(-1)
    if reduction != "token":
        return read.to(weights.value.dtype)
    if denominator == "selected":
        return weights.value.sum(-1)
    return scored.sum(-1).to(weights.value.dtype) * read


def row_sum(values: Tensor, weights: Tensor) -> Tensor:
    """(B,) sum over positions of `values * weights`, with exact zeros (also for infinite values) at weight 0."""
    return torch.where(weights != 0, values * weights, torch.zeros_like(values)).sum(-1)


def scatter(rows: Tensor, mask: Tensor) -> Tensor:
    """(B, T, ...) with `rows` (N, ...) at the True positions of `mask` (B, T) and exact zeros elsewhere."""
    out = rows.new_zeros(*mask.shape, *rows.shape[1:])
    return out.masked_scatter(mask.reshape(*mask.shape, *(1,) * (rows.ndim - 1)).expand_as(out), rows)


def random_scores(mask: Tensor, draws: Callable[[int], torch.Generator]) -> Tensor:
    """(B, T) float32 uniform in [0, 1) on the scored tokens, a row at a time from its own generator."""
    out = torch.zeros(mask.shape, dtype=torch.float32)
    for row in range(mask.shape[0]):
        count = int(mask[row].sum())
        out[row, mask[row].cpu()] = torch.rand(count, generator=draws(row))
    return out.to(mask.device)
