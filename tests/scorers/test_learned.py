"""The learned scorer: loss and optimiser against torch's own in float64; that it is trained, saved and used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from expunge import runs
from expunge.core import IGNORE, Batch, Forward, TokenStats
from expunge.errors import Interrupted
from expunge.scorers.learned import Learned
from tests.test_runs import made, material, same, stop_at  # noqa: F401  a fixture

PLACE = (-1, "own")
METHOD = {
    "preset": None,
    "terms": [
        {"objective": "saturated", "score": "learned:every=2", "coef": 5.0},
        {"objective": "nll", "on": "retain", "coef": 0.5},
    ],
}


def forward(seed: int, rows: int = 3, length: int = 6, width: int = 4) -> Forward:
    """Random states and losses; the last row has nothing scored, and what stands there is not 0."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.zeros(rows, length, dtype=torch.long)
    targets[:, -1], targets[0, :2], targets[-1] = IGNORE, IGNORE, IGNORE
    ids = torch.zeros_like(targets)
    batch = Batch(ids, targets, torch.ones_like(ids, dtype=torch.bool), tuple("abcdefgh"[:rows]))
    logp = -3 * torch.rand(rows, length, generator=generator)
    hidden = torch.randn(rows, length, width, generator=generator)
    return Forward(batch, TokenStats(logp, logp, logp, batch.mask, hidden={PLACE: hidden}))  # type: ignore[dict-item]


def twin(scorer: Learned, forwards: list[Forward], a: Tensor, b: Tensor) -> Tensor:
    """The loss from the equation, a token and a sequence at a time, in float64."""
    fits, entropies, penalties = [], [], []
    for f in forwards:
        for row in range(len(f.batch)):
            share = []
            for t in f.mask[row].nonzero()[:, 0].tolist():
                h, nll = f.policy.hidden[PLACE][row, t].double(), -f.policy.logp[row, t].double()  # type: ignore[index]
                g = 1 / (1 + torch.exp(-(a @ h + b)))
                if scorer.fits == "loss":
                    fits.append((1 - g) * nll)
                else:
                    fits.append(-g * nll * torch.exp(-scorer.beta * g.detach() * nll))
                entropies.append(-g * g.log() - (1 - g) * (1 - g).log())
                share.append((1.0 if g > 0.5 else 0.0) + g - g.detach())
            if share:
                penalties.append((sum(share) / len(share) - scorer.budget) ** 2)

    def mean(values: list[Any]) -> Tensor:
        return torch.stack(values).mean()

    return (
        mean(fits) + scorer.entropy_coef * mean(entropies) + scorer.budget_coef * mean(penalties)
        + scorer.norm_coef * (a @ a)
    )  # fmt: skip


@pytest.mark.parametrize("fits", ["loss", "objective"])
def test_its_moves_are_sgd_on_the_loss_of_the_paper(fits: Any) -> None:
    scorer = Learned(fits=fits, learning_rate=0.3, weight_decay=0.01, budget=0.4)
    a, b = (torch.zeros(n, dtype=torch.float64).requires_grad_() for n in (4, 1))
    optimizer = torch.optim.SGD([a, b], lr=0.3, momentum=0.9, weight_decay=0.01)
    known = scorer.begin(4)
    for step in range(6):
        forwards = [forward(2 * step), forward(2 * step + 1, rows=2, length=4)]
        left = 1 - step / 6
        optimizer.zero_grad()
        expected = twin(scorer, forwards, a, b[0])
        expected.backward()
        torch.nn.utils.clip_grad_norm_([a, b], 1.0)
        optimizer.param_groups[0]["lr"] = 0.3 * left
        optimizer.step()
        known, numbers = scorer.learn(forwards, known, left)
        assert numbers["loss"] == pytest.approx(float(expected.detach()), rel=1e-5)
        torch.testing.assert_close(known["weight"].double(), a.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(known["bias"].double(), b.detach()[0], rtol=1e-5, atol=1e-6)
    assert float(known["weight"].norm()) > 0.01


def test_micro_batches_change_no_move() -> None:
    whole, parts = forward(5, rows=4), []
    for rows in (slice(0, 1), slice(1, 4)):
        batch = whole.batch
        own = Batch(batch.input_ids[rows], batch.targets[rows], batch.attention_mask[rows], batch.ids[rows])
        logp = whole.policy.logp[rows]
        hidden = {PLACE: whole.policy.hidden[PLACE][rows]}  # type: ignore[index]
        parts.append(Forward(own, TokenStats(logp, logp, logp, own.mask, hidden=hidden)))  # type: ignore[arg-type]
    (one, _), (other, _) = (Learned().learn(found, Learned().begin(4), 1.0) for found in ([whole], parts))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value)


def test_without_a_scored_token_it_stays() -> None:
    start = Learned().begin(4)
    assert Learned().learn([forward(0, rows=1)], start, 1.0) == (start, {})


def test_tokens_whose_loss_stays_high_score_higher_in_time() -> None:
    """State 0 stands where the loss is high, state 1 where it is low."""
    f = forward(0, rows=2)
    hidden, logp = torch.zeros(2, 6, 4), torch.full((2, 6), -0.1)
    hidden[:, ::2, 0], hidden[:, 1::2, 1] = 3.0, 3.0
    logp[:, ::2] = -6.0
    f = Forward(f.batch, TokenStats(logp, logp, logp, f.mask, hidden={PLACE: hidden}))  # type: ignore[dict-item]
    scorer = Learned(budget_coef=1.0, norm_coef=0.1)
    known = scorer.begin(4)
    assert scorer(f, None).unique().tolist() == [0.0, 0.5]
    for _ in range(60):
        known, _ = scorer.learn([f], known, 1.0)
    scores = scorer(f, {"learned": {}, str(scorer): known})[0]
    assert float(scores[2]) > 0.9 > 0.7 > float(scores[3])
    assert scores[-1] == 0


def test_a_stopped_run_goes_on_with_its_scorer(material: Path, tmp_path: Path) -> None:  # noqa: F811
    straight = runs.unlearn(made(material, tmp_path / "straight", method=METHOD))
    with pytest.raises(Interrupted):
        runs.unlearn(made(material, tmp_path / "stopped", method=METHOD), on_step=stop_at(3))
    resumed = runs.unlearn(made(material, tmp_path / "stopped", method=METHOD))
    assert same(resumed, straight)
    logs = [[line.get("scorers") for line in run.read_log()] for run in (resumed, straight)]
    assert logs[0] == logs[1], "to the bit"
    assert [found is not None for found in logs[0]] == [False, True] * 3
    assert set(logs[0][1]) == {"learned:every=2 loss", "learned:every=2 share"}
    weights = [row["weight"] for row in straight.read_table("tokens.parquet").to_pylist() if row["epoch"] == 2.0]
    assert any(abs(w - 0.5) > 1e-4 for row in weights for w in row), "the token view sees what was learned"
