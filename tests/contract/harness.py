"""What the contract tests share: every registered method, small batches on which methods are active, a model of leaves.

`Leaves` is a model whose final hidden states are parameters, one tensor a record, so a test can ask for the gradient at
any token of any record, however records are batched, padded and ordered.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from expunge import presets, registry
from expunge.context import prepared_in
from expunge.core import IGNORE, Batch, Forward, Needs, Objective, Scorer, Selector, TokenStats, Weights, Worded
from expunge.data.collate import collate
from expunge.data.encode import Encoded
from expunge.errors import MethodError
from expunge.fused import Head, ReferenceRows, naive_token_stats, placed, token_stats
from expunge.lm import hidden_states
from expunge.objectives.alternative import AlternativeNLL
from expunge.recipe import Method
from expunge.refcache import Reference
from expunge.sampling import record_draw
from expunge.step import Step, accumulate
from expunge.terms import Term, Tokens, build_terms

VOCABULARY = 13
STATICS = ("given", "gold", "not-general")
LAYERS = 17


def items(count: int, seed: int = 0, prefix: str = "f", *, longest: int = 11) -> list[Encoded]:
    """Records of random tokens: a prompt, an answer with a gap, spans on some; the second of them has no span."""
    rng = np.random.default_rng([seed, count])
    return [_item(rng, f"{prefix}{i}", spans=i != 1, longest=longest) for i in range(count)]


def _item(rng: np.random.Generator, name: str, *, spans: bool, longest: int) -> Encoded:
    length, prompt = int(rng.integers(7, longest + 1)), int(rng.integers(1, 4))
    ids = rng.integers(0, VOCABULARY, length)
    targets = np.full(length, IGNORE, np.int64)
    targets[prompt - 1 : -1] = ids[prompt:]
    targets[prompt + 1] = IGNORE  # answers need not be in one piece
    scored = targets != IGNORE
    span = np.where(scored, rng.choice([0.0, 0.0, 0.5, 1.0], length), 0.0) * spans
    if spans:
        span[np.flatnonzero(scored)[1]] = 1.0
    static = {name: span.astype(np.float32) for name in STATICS} | _prepared(name, scored)
    return Encoded(name, ids.astype(np.int64), targets, np.zeros((length, 2), np.int32), static)


def _prepared(name: str, scored: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
    """A table's scores for every scorer that reads one, unlike at every token."""
    rng = np.random.default_rng([*name.encode()])
    return {spec: np.where(scored, rng.random(len(scored)), 0).astype(np.float32) for spec in _tables()}


@functools.cache
def _tables() -> tuple[str, ...]:
    """The scores that are prepared for the scorers here, and for the presets."""
    read = [*SCORERS, *(term.score for name in presets.PRESETS for term in build_terms(Method(preset=name)))]
    return tuple(sorted({str(found) for scorer in read for found in prepared_in(scorer)}))


def empty(item: Encoded) -> Encoded:
    """The record with nothing scored."""
    nothing = {name: np.zeros_like(score) for name, score in item.static.items()}
    return dataclasses.replace(item, targets=np.full_like(item.targets, IGNORE), static=nothing)


def other_answer(name: str) -> Encoded:
    """Another answer to the record of that name."""
    return _item(np.random.default_rng([*name.encode()]), f"{name}~", spans=False, longest=9)


def batch_of(chosen: Sequence[Encoded], pad_to: int = 0) -> Batch:
    """A batch with draws; a row of padding more than needed if `pad_to` says so."""
    draws = [record_draw(3, item.id) for item in chosen]
    batch = collate(chosen, pad_id=2, draws=draws)
    batch = dataclasses.replace(batch, alternative=collate([other_answer(item.id) for item in chosen], pad_id=2))
    more = pad_to - batch.input_ids.shape[1]
    if more <= 0:
        return batch

    def pad(values: Tensor, fill: int | float | bool) -> Tensor:
        return nn.functional.pad(values, (0, more), value=fill)

    return dataclasses.replace(
        batch,
        input_ids=pad(batch.input_ids, 5),
        targets=pad(batch.targets, IGNORE),
        attention_mask=pad(batch.attention_mask, False),
        static={name: pad(score, 0.0) for name, score in batch.static.items()},
    )


class Leaves(nn.Module):
    """Final hidden states (T, D) that are parameters, one a record, and a vocabulary head over them."""

    def __init__(
        self,
        chosen: Sequence[Encoded],
        *,
        seed: int = 1,
        dtype: torch.dtype = torch.float64,
        naive: bool = False,
        head: Head | None = None,
        spread: float = 1.5,
    ) -> None:
        super().__init__()
        width = VOCABULARY if head is None else head.weight.shape[1]
        generator = torch.Generator().manual_seed(seed)
        self.rows = nn.ParameterDict(
            {
                item.id: nn.Parameter((torch.randn(len(item), width, generator=generator) * spread).to(dtype))
                for item in sorted(chosen, key=lambda item: item.id)
            }
        )
        for other in (other_answer(item.id) for item in chosen):
            generator.manual_seed(seed + sum(other.id.encode()))
            self.rows[other.id] = nn.Parameter(torch.randn(len(other), width, generator=generator).to(dtype))
        self.head = Head(torch.eye(width, dtype=dtype)) if head is None else head
        self._stats = naive_token_stats if naive else token_stats

    def hidden(self, batch: Batch) -> Tensor:
        """(B, T, D); what stands at padding is not 0, so that reading it would show."""
        width = batch.input_ids.shape[1]
        padded = [nn.functional.pad(self.rows[i], (0, 0, 0, width - len(self.rows[i])), value=0.7) for i in batch.ids]
        return torch.stack(padded)

    def forward(self, batch: Batch, needs: Needs, reference: ReferenceRows | None = None) -> TokenStats:
        hidden = self.hidden(batch)
        read = torch.ones_like(batch.mask) if needs.everywhere else batch.mask
        rows = self._stats(hidden[read], self.head, batch.targets.clamp(min=0)[read], needs, reference)
        layers = tuple(hidden * (k + 1) / LAYERS for k in range(LAYERS)) if needs.hidden else ()
        return placed(rows, read, batch.mask, hidden_states(layers, needs, batch.mask))

    def reference_rows(self, batch: Batch, needs: Needs) -> ReferenceRows:
        read = torch.ones_like(batch.mask) if needs.everywhere else batch.mask
        with torch.no_grad():
            return ReferenceRows(self.hidden(batch)[read], self.head)


def reference_of(chosen: Sequence[Encoded], **settings: Any) -> Reference:
    """A reference model of leaves unlike the policy's."""
    return Reference(Leaves(chosen, seed=77, **settings))  # type: ignore[arg-type]


def term(
    objective: Objective, score: Scorer | str = "uniform", select: Selector | str = "raw", tokens: Tokens = "selected"
) -> Term:
    """A forget term of these parts."""
    scorer = registry.build("scorer", score) if isinstance(score, str) else score
    selector = registry.build("selector", select) if isinstance(select, str) else select
    return Term(objective, "forget", scorer, selector, tokens)


def forward_of(model: Leaves, batch: Batch, needs: Needs, reference: Reference | None = None) -> Forward:
    """One batch through model and reference, as a step does it."""
    rows = None if reference is None else reference.rows(batch, needs)
    read = reference is not None and needs.reference_stats
    other = reference.stats(batch, needs.reference_hidden) if reference is not None and read else None
    alternative = None
    if needs.alternative and batch.alternative is not None:
        alternative = forward_of(model, batch.alternative, Needs(reference=needs.reference), reference)
    return Forward(batch, model(batch, needs, rows), other, alternative)


def touched(objective: Objective, read: Tensor) -> Tensor:
    """(B, T) the positions whose final states the tokens `read` (B, T) depend on: their own, or the next."""
    places = {at for _, at in objective.needs.hidden} or {"before"}
    after = torch.cat([torch.zeros_like(read[:, :1]), read[:, :-1]], dim=1)
    return after if places == {"own"} or positions(objective) == "own" else read


def positions(objective: Objective) -> str:
    """Which positions an objective reads: 'scored' by weight, 'own' the same one place on, others by no weight."""
    return str(getattr(objective, "positions", "scored"))


def rectangular(objective: Objective) -> bool:
    """True if it reads prompt and padding, as a peer does, and no weights."""
    return positions(objective) in ("all", "predicting")


def read_by(objective: Objective, weights: Weights) -> Tensor:
    """(B, T) the tokens that an objective reads."""
    if isinstance(objective, AlternativeNLL):
        return torch.zeros_like(weights.mask)
    if not rectangular(objective):
        return weights.value > 0
    read = torch.ones_like(weights.mask)
    read[:, -1] = positions(objective) == "all"
    return read


def gradients(
    terms: Sequence[Term], model: Leaves, batches: Sequence[Batch], reference: Reference | None
) -> tuple[dict[str, Tensor], list[float]]:
    """Gradient by record, and each term's mean, of one update over micro-batches; through the code training uses."""
    model.zero_grad()
    sides = {t.on for t in terms}
    micro = [dict.fromkeys(sides, batch) for batch in batches]
    _, means = accumulate(Step(tuple(terms), reference), model, micro, lambda loss: loss.backward(), [0] * len(micro))
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.rows.items()}
    return found, means


def methods(kind: registry.Kind, variants: bool = False) -> list[Any]:
    """Every registered method of a kind with its default settings; with each choice of each Literal field if asked."""
    return [made for name in registry.names(kind) for made in _made(kind, name, variants)]


def _made(kind: registry.Kind, name: str, variants: bool) -> Iterator[Any]:
    cls = registry.get(kind, name)
    yield _worded(cls())
    if not variants:
        return
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if typing.get_origin(hints[field.name]) is not Literal:
            continue
        for choice in typing.get_args(hints[field.name]):
            if choice != field.default:
                try:
                    yield _worded(cls(**{field.name: choice}))
                except MethodError:
                    continue  # two settings exclude each other


def _worded(made: Any) -> Any:
    """With a tokenizer that knows two words."""
    return made.worded(lambda text: [4, 9]) if isinstance(made, Worded) else made


OBJECTIVES = methods("objective", variants=True)
SCORERS = [
    *methods("scorer", variants=True),
    registry.build("scorer", "0.25*random + 0.75*entropy:temperature=2.0"),
    registry.build("scorer", "entropy:top_k=3,normalised=true*masking"),
]
SELECTORS = [
    *methods("selector"),
    registry.build("selector", "threshold:k=0.2 > normalised"),
    registry.build("selector", "top:k=1 > expand:c=1"),
]
Cell = tuple[Objective, Scorer, Selector]


def _covering() -> list[Cell]:
    """Combinations in which every two methods of different kinds meet, as long as neither kind outnumbers selectors.

    The selector moves on by one with the objective and with the scorer, so each of both meets them all. Objectives in
    their other settings come once each.
    """
    plain = methods("objective")
    assert len(SELECTORS) <= min(len(plain), len(SCORERS))
    found: list[Cell] = [
        (objective, score, SELECTORS[(i + j) % len(SELECTORS)])
        for (i, objective), (j, score) in itertools.product(enumerate(plain), enumerate(SCORERS))
    ]
    others = [objective for objective in OBJECTIVES if objective not in plain]
    found += [
        (objective, SCORERS[i % len(SCORERS)], SELECTORS[i % len(SELECTORS)]) for i, objective in enumerate(others)
    ]
    return found


def _cells() -> Iterator[Any]:
    """The covering combinations, and for the slow tests as many again drawn from all the others."""
    covering = _covering()
    drawn = random.Random(0)  # nosec B311 - nothing secret
    further = dict.fromkeys(
        (drawn.choice(OBJECTIVES), drawn.choice(SCORERS), drawn.choice(SELECTORS)) for _ in range(len(covering))
    )
    for cell in covering:
        yield pytest.param(*cell, id="-".join(map(str, cell)).replace(" ", ""))
    for cell in further:
        if cell not in covering:
            yield pytest.param(*cell, id="-".join(map(str, cell)).replace(" ", ""), marks=pytest.mark.slow)


objectives = pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
cells = pytest.mark.parametrize(("objective", "score", "select"), list(_cells()))
"""Objective, scorer and selector; the fast tests take combinations in which every two meet, the slow ones more."""


def allowed(made: Term, forward: Forward) -> None:
    """Skips where scorer and selector do not go together, which a run refuses by name."""
    try:
        made.weights(forward)
    except ValueError as refusal:
        pytest.skip(f"a run refuses this pair: {refusal}")


def close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, rtol: float, what: str = "gradients") -> None:
    """Every tensor within `rtol` of the largest entry among them all.

    Where a loss is saturated, the float32 rounding of the weights stands in an exponent, so 1e-6 is the least scale.
    """
    scale = max(1e-6, *(float(value.abs().max()) for value in expected.values()))
    assert set(found) == set(expected)
    for name, value in expected.items():
        worst = float((found[name] - value).abs().max())
        assert worst <= rtol * scale, f"{what} of {name} differ by {worst:.3g}, largest entry {scale:.3g}"
