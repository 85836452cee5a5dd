"""What objectives compute: the published formula under uniform weights, the naive twin, and what a weight means."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from expunge import registry
from expunge.core import IGNORE, Objective, Scorer, Selector, Weights
from expunge.data.encode import Encoded
from expunge.fused import Head
from expunge.objectives.bounded import SaturatedAscent
from tests.contract import harness as h

RECORDS = h.items(5)
BATCH = h.batch_of(RECORDS)


def _head(width: int, seed: int) -> Head:
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(h.VOCABULARY, width, generator=g, dtype=torch.float64)
    return Head(weight, torch.randn(h.VOCABULARY, generator=g, dtype=torch.float64), scale=0.8, softcap=4.0)


@h.cells
def test_the_fused_head_gives_the_naive_twins_loss_and_gradient(
    objective: Objective, score: Scorer, select: Selector
) -> None:
    """In float64, behind a head with bias, scale and softcap, for the policy and for the reference."""
    made = h.term(objective, score, select)
    found = []
    width = 6 if objective.needs.reference_hidden else 5  # states are compared with states of the same width
    for naive in (False, True):
        model = h.Leaves(RECORDS, naive=naive, head=_head(6, 1))
        reference = h.reference_of(RECORDS, naive=naive, head=_head(width, 2))
        h.allowed(made, h.forward_of(model, BATCH, made.needs, reference))
        found.append(h.gradients([made], model, [BATCH], reference))
    (gradients, means), (expected, wanted) = found
    assert means == pytest.approx(wanted, rel=1e-9)
    h.close(gradients, expected, rtol=1e-9)


# The published unweighted losses, from the papers' formulas, one record and one token at a time in float64.

Row = list[tuple[float, float, np.ndarray, np.ndarray, int, np.ndarray, np.ndarray]]
"""A record's scored tokens: log p and log p_ref of the target, both rows of logits, the target, both next states."""


class Rows(list[Row]):
    """Of every record, and of the other answer to it."""

    others: list[Row]


def _nll(rows: list[Row], sign: float = -1.0, reduction: str = "token") -> float:
    sums = [sum(sign * logp for logp, *_ in row) for row in rows]
    if reduction == "token":
        return sum(sums) / sum(map(len, rows))
    return float(np.mean([s / len(row) if reduction == "sequence" else s for s, row in zip(sums, rows, strict=True)]))


def _divergence(z: np.ndarray, z_ref: np.ndarray, direction: str) -> float:
    p, q = (np.exp(x - np.log(np.exp(x).sum())) for x in (z_ref, z))
    p, q = (p, q) if direction == "forward" else (q, p)
    return float((p * np.log(p / q)).sum())


def _kl(rows: list[Row], o: Any) -> float:
    sums = [[_divergence(z, z_ref, o.direction) for _, _, z, z_ref, *_ in row] for row in rows]
    if o.reduction == "token":
        return sum(map(sum, sums)) / sum(map(len, sums))
    return float(np.mean([sum(s) / len(s) if o.reduction == "sequence" else sum(s) for s in sums]))


def _logsigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def _npo(rows: list[Row], o: Any) -> float:
    return float(np.mean([-2 / o.beta * _logsigmoid(o.beta * sum(ref - own for own, ref, *_ in row)) for row in rows]))


def _simnpo(rows: list[Row], o: Any) -> float:
    means = [sum(-own for own, *_ in row) / len(row) for row in rows]
    return float(np.mean([-2 / o.beta * _logsigmoid(o.beta * (mean - o.delta)) for mean in means]))


def _lpl(rows: list[Row], o: Any) -> float:
    read: dict[str, Callable[[float, np.ndarray, int], float]] = {
        "logit": lambda logp, z, y: float(z[y]),
        "logprob": lambda logp, z, y: logp,
        "probability": lambda logp, z, y: math.exp(logp),
    }
    value = read[o.space]
    falls = [
        sum(value(ref, z_ref, y) - value(own, z, y) for own, ref, z, z_ref, y, *_ in row) / len(row) for row in rows
    ]
    if o.sigmoid == "batch":
        falls = [float(np.mean(falls))]
    return float(np.mean([-2 / o.beta * _logsigmoid(o.beta * fall) for fall in falls]))


def _dpo(rows: Rows, o: Any) -> float:
    rises = [[sum(own - ref for own, ref, *_ in row) for row in some] for some in (rows.others, rows)]
    return float(np.mean([-2 / o.beta * _logsigmoid(o.beta * (new - old)) for new, old in zip(*rises, strict=True)]))


def _rmu(rows: list[Row], o: Any) -> float:
    width = len(rows[0][0][2])
    u = torch.rand(width, generator=torch.Generator().manual_seed(0)).double().numpy()
    return _distances(rows, o, 2.0 * u / np.linalg.norm(u))


def _distances(rows: list[Row], o: Any, target: np.ndarray | None = None) -> float:
    """Of Leaves' hidden states: number k is the final one times (k + 1) / LAYERS."""
    share = (round(0.375 * (h.LAYERS - 1)) + 1) / h.LAYERS
    sums = []
    for row in rows:
        states = [(token[2:4] if o.at == "before" else token[5:7]) for token in row]
        held = [share * other if target is None else target for _, other in states]
        sums.append(sum(float(((share * own - x) ** 2).mean()) for (own, _), x in zip(states, held, strict=True)))
    lengths = [len(row) for row in rows]
    if o.mean == "broadcast":
        return float(np.mean([[s / n for n in lengths] for s in sums]))
    return float(np.mean([s / n for s, n in zip(sums, lengths, strict=True)]))


def _logp(z: np.ndarray) -> np.ndarray:
    return np.asarray(z - z.max() - np.log(np.exp(z - z.max()).sum()))


def _js(p: np.ndarray, q: np.ndarray) -> float:
    m = (p + q) / 2
    return float(sum(0.5 * (x * np.log(x / m, where=x > 0, out=np.zeros_like(x))).sum() for x in (p, q)))


def _tokens(value: Callable[[np.ndarray, np.ndarray, int, Any], float]) -> Callable[[list[Row], Any], float]:
    """A mean over tokens, reduced as the objective says, of `value(z, z_ref, y, objective)`."""

    def mean(rows: list[Row], o: Any) -> float:
        if getattr(o, "positions", "") == "own":
            rows = [[(*token[:2], token[5], token[6], *token[4:]) for token in row] for row in rows]
        found = [[value(z, z_ref, y, o) for _, _, z, z_ref, y, *_ in row] for row in rows]
        if o.reduction == "token":
            return sum(map(sum, found)) / sum(map(len, found))
        return float(np.mean([sum(row) / (len(row) if o.reduction == "sequence" else 1) for row in found]))

    return mean


def _undial(z: np.ndarray, z_ref: np.ndarray, y: int, o: Any) -> float:
    lowered = z_ref.copy()
    lowered[y] -= o.beta
    return -float(np.exp(_logp(lowered)) @ _logp(z))


def _ceu(z: np.ndarray, z_ref: np.ndarray, y: int, o: Any) -> float:
    others = np.exp(_logp(z))
    others[y] = 0
    return -float(others / others.sum() @ _logp(z))


def _bst(z: np.ndarray, z_ref: np.ndarray, y: int, o: Any) -> float:
    p = np.exp(_logp(z))
    target = np.where(p >= np.sort(p)[-o.top_k], p, 0)
    target *= o.lam / target.sum()
    target[y] += 1 - o.lam
    return float(target @ _logp(z))


def _flatten(z: np.ndarray, z_ref: np.ndarray, y: int, o: Any) -> float:
    top = np.argsort(z_ref if o.of == "reference" else z)[-o.top_k :]
    return float(np.mean((z[top] - z.mean()) ** 2))


def _ihl(z: np.ndarray, z_ref: np.ndarray, y: int, o: Any) -> float:
    p = np.exp(_logp(z))
    return float(1 + p[y] - max(np.delete(p, y)))


def _jensun(z: np.ndarray, z_ref: np.ndarray, y: int, o: Any) -> float:
    q = np.zeros_like(z)
    q[[int(i) for i in o.ids.split()]] = 1.0 if o.mass == "each" else 1 / len(o.ids.split())
    return _js(np.exp(_logp(z)), q)


PUBLISHED: dict[str, Callable[[Rows, Any], float]] = {
    "ga": lambda rows, o: _nll(rows, 1.0, o.reduction),
    "nll": lambda rows, o: _nll(rows, -1.0, o.reduction),
    "preserve": lambda rows, o: _nll(rows, -1.0, o.reduction),
    "kl": _kl,
    "npo": _npo,
    "simnpo": _simnpo,
    "dpo": _dpo,
    "alternative": lambda rows, o: _nll(rows.others, -1.0, o.reduction),
    "lpl": _lpl,
    "rmu": _rmu,
    "activation": _distances,
    "undial": _tokens(_undial),
    "ceu": _tokens(_ceu),
    "bst": _tokens(_bst),
    "flatten": _tokens(_flatten),
    "ihl": _tokens(_ihl),
    "bounded": _tokens(lambda z, z_ref, y, o: max(float(_logp(z)[y]), -o.level)),
    "jensun": _tokens(_jensun),
    "saturated": _tokens(lambda z, z_ref, y, o: float(_logp(z)[y] * np.exp(o.beta * _logp(z)[y]))),
    "js": _tokens(lambda z, z_ref, y, o: _js(np.exp(_logp(z)), np.exp(_logp(z_ref)))),
}


def _rows(model: h.Leaves, reference: h.Leaves, records: Sequence[Encoded], shift: int = 0) -> Rows:
    out = Rows(_row(model, reference, item, shift) for item in records)
    out.others = [_row(model, reference, h.other_answer(item.id), shift) for item in records]
    return out


def _row(model: h.Leaves, reference: h.Leaves, item: Encoded, shift: int) -> Row:
    z, z_ref = (m.rows[item.id].detach().numpy() for m in (model, reference))
    row: Row = []
    for t, y in enumerate(item.targets.tolist()):
        if y == IGNORE:
            continue
        at, after = (min(t + more, len(item) - 1) for more in (shift, shift + 1))
        own, ref = (float(x[at][y] - np.log(np.exp(x[at]).sum())) for x in (z, z_ref))
        row.append((own, ref, z[at], z_ref[at], y, z[after], z_ref[after]))
    return row


def _ours(objective: Objective, model: h.Leaves, reference: Any) -> float:
    return h.gradients([h.term(objective)], model, [BATCH], reference)[1][0]


@h.objectives
def test_uniform_weights_give_the_published_loss(objective: Objective) -> None:
    name = objective.spec_name  # type: ignore[attr-defined]
    assert name in PUBLISHED, f"write the published formula of '{name}' into PUBLISHED above"
    if h.rectangular(objective):
        pytest.skip("reads padding: tested against the peer's numbers in tests/parity")
    model, reference = h.Leaves(RECORDS), h.reference_of(RECORDS)
    expected = PUBLISHED[name](_rows(model, reference.module, RECORDS), objective)  # type: ignore[arg-type]
    assert _ours(objective, model, reference) == pytest.approx(expected, rel=1e-6)


@h.objectives
def test_a_formula_shifted_by_one_position_would_be_noticed(objective: Objective) -> None:
    """The break on purpose."""
    if h.rectangular(objective):
        pytest.skip("see above")
    model, reference = h.Leaves(RECORDS), h.reference_of(RECORDS)
    rows = _rows(model, reference.module, RECORDS, shift=1)  # type: ignore[arg-type]
    wrong = PUBLISHED[objective.spec_name](rows, objective)  # type: ignore[attr-defined]
    assert _ours(objective, model, reference) != pytest.approx(wrong, rel=1e-4)


@pytest.mark.parametrize("objective", h.methods("objective"), ids=str)
def test_a_formula_that_includes_padding_would_be_noticed(objective: Objective) -> None:
    """The break on purpose: as if every position of the rectangle were scored."""
    model, reference = h.Leaves(RECORDS), h.reference_of(RECORDS)

    def whole(item: Encoded) -> Encoded:
        return dataclasses.replace(item, targets=np.where(item.targets == IGNORE, 0, item.targets))

    rows, other = Rows(), reference.module
    rows += [_row(model, other, whole(i), 0) for i in RECORDS]  # type: ignore[arg-type]
    rows.others = [_row(model, other, whole(h.other_answer(i.id)), 0) for i in RECORDS]  # type: ignore[arg-type]
    wrong = PUBLISHED[objective.spec_name](rows, objective)  # type: ignore[attr-defined]
    assert _ours(objective, model, reference) != pytest.approx(wrong, rel=1e-5)


# A weight of 2 is the token twice.


def _again(item: Encoded, at: int) -> list[int]:
    return [*range(at + 1), *range(at, len(item))]


def _twice(item: Encoded, at: int) -> Encoded:
    """The record with the scored token at `at` standing there twice."""
    again = _again(item, at)
    static = {name: score[again] for name, score in item.static.items()}
    return Encoded(item.id, item.input_ids[again], item.targets[again], item.offsets[again], static)


@h.objectives
def test_weight_two_is_the_token_twice(objective: Objective) -> None:
    if h.rectangular(objective):
        pytest.skip("weights have no meaning there")
    if isinstance(objective, SaturatedAscent):
        pytest.skip("its weights stand in an exponent too: tested in tests/objectives/test_bounded.py")
    item = RECORDS[0]
    at = int(np.flatnonzero(item.targets != IGNORE)[1])
    doubled = _twice(item, at)
    state = int(h.touched(objective, torch.arange(len(item))[None] == at).nonzero()[0, 1])  # it stands there twice
    again = _again(item, state)
    model, other = h.Leaves([item]), h.Leaves([doubled])
    reference, other_reference = h.reference_of([item]), h.reference_of([doubled])
    for one, two in ((model, other), (reference.module, other_reference.module)):
        two.rows[item.id] = torch.nn.Parameter(one.rows[item.id].detach()[again])  # type: ignore[union-attr]
    value: Tensor = h.batch_of([item]).mask.float()
    value[0, at] = 2.0
    losses = []
    for m, r, record, w in ((model, reference, item, value), (other, other_reference, doubled, None)):
        batch = h.batch_of([record])
        weights = Weights.ones(batch.mask) if w is None else Weights(w, batch.mask)
        losses.append(objective(h.forward_of(m, batch, objective.needs, r), weights))
    weighted, counted = losses
    per_tokens = [loss.value / loss.count for loss in losses]
    if registry.fields(type(objective)) and _divides_by_scored_tokens(objective):
        n = int((item.targets != IGNORE).sum())  # the denominator counts tokens, not weights
        torch.testing.assert_close(per_tokens[0] * n, per_tokens[1] * (n + 1))
        return
    torch.testing.assert_close(weighted.value, counted.value)
    torch.testing.assert_close(per_tokens[0], per_tokens[1])


def _divides_by_scored_tokens(objective: Objective) -> bool:
    settings = {f.name: getattr(objective, f.name) for f in dataclasses.fields(objective)}  # type: ignore[arg-type]
    return settings.get("denominator") == "scored" and settings.get("reduction") in ("token", "sequence")
