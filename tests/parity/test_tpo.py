"""TIF's published code on fixed inputs: our terms give its value and its gradient, and are defined where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from expunge.core import IGNORE, Batch, Forward, Needs, Side
from expunge.recipe import Method
from expunge.terms import build_terms, term_values
from expunge.testing import stats_from_logits
from tests.objectives import tif_twin

BETAS = (0.1, 0.3, 1.0)
Arrays = Mapping[str, npt.NDArray[Any]]


@pytest.fixture(scope="module")
def golden(shared: Path) -> Arrays:
    file = shared / "parity" / "golden" / "tpo.npz"
    if not file.is_file():
        pytest.skip("golden/tpo.npz is not there")
    return dict(np.load(file).items())


def case(golden: Arrays, name: str) -> dict[str, npt.NDArray[Any]]:
    prefix = f"tpo/{name}/"
    return {key.removeprefix(prefix): values for key, values in golden.items() if key.startswith(prefix)}


def batch_of(ids: npt.NDArray[Any], labels: npt.NDArray[Any], unwanted: npt.NDArray[Any], attention: Any) -> Batch:
    """Labels at their own positions (-100 elsewhere) as our targets: position t predicts token t + 1."""

    def shift(values: npt.NDArray[Any], fill: float) -> npt.NDArray[Any]:
        return np.concatenate([values[:, 1:], np.full((len(values), 1), fill, values.dtype)], axis=1)

    given = shift((unwanted != IGNORE).astype(np.float32), 0)
    names = tuple(str(row) for row in range(len(ids)))
    return Batch(
        torch.tensor(ids), torch.tensor(shift(labels, IGNORE)), torch.tensor(attention).bool(), names,
        {"given": torch.tensor(given)}, torch.zeros(len(ids), dtype=torch.long),
    )  # fmt: skip


def forget_batch(data: Arrays) -> Batch:
    scored = np.where(data["labels"] != IGNORE, data["labels"], data["reversed_labels"])
    return batch_of(data["input_ids"], scored, data["labels"], data["attention_mask"])


def ours(data: Arrays, preset: str, batch: Batch | None = None) -> tuple[Tensor, Tensor, list[Tensor]]:
    """(loss, leaf logits of the forget batch, value of each term) of a preset on one case, in float64."""
    batch = batch or forget_batch(data)
    logits = torch.tensor(data["logits"], dtype=torch.float64).requires_grad_()
    reference = torch.tensor(data["oracle_logits"], dtype=torch.float64)
    forwards: dict[Side, Forward] = {
        "forget": Forward(
            batch, stats_from_logits(logits, batch, Needs()), stats_from_logits(reference, batch, Needs())
        )
    }
    labels = data["retain_labels"]
    retain = batch_of(data["retain_input_ids"], labels, np.full_like(labels, IGNORE), np.ones_like(labels))
    stats = stats_from_logits(torch.tensor(data["retain_logits"], dtype=torch.float64), retain, Needs())
    forwards["retain"] = Forward(retain, stats)
    terms = build_terms(Method(preset=preset))
    values = term_values(terms, forwards)
    parts = [v.value / v.count.clamp(min=1) for v in values]
    return torch.stack([t.coef * part for t, part in zip(terms, parts, strict=True)]).sum(), logits, parts


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("name", ["A", "B"])
def test_value_and_gradient_equal_the_published_code(golden: Arrays, name: str, beta: float) -> None:
    """`tpo_grad_diff` is the preset tif-code; `tpo` is the same without its retain term."""
    data = case(golden, name)
    total, logits, parts = ours(data, f"tif-code:beta={beta}")
    expected = data[f"tpo_grad_diff_beta{beta}/value"]
    assert float(total.detach()) == pytest.approx(float(expected), rel=1e-12)
    total.backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad.numpy(), data[f"tpo_grad_diff_beta{beta}/grad"], rtol=1e-6, atol=1e-9)

    assert float(parts[1].detach()) == pytest.approx(float(data[f"tpo_beta{beta}/pl"]), rel=1e-12)
    alone = parts[0].detach() + parts[1].detach()
    assert float(alone) == pytest.approx(float(data[f"tpo_beta{beta}/value"]), rel=1e-12)
    np.testing.assert_allclose(logits.grad.numpy(), data[f"tpo_beta{beta}/grad"], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["A", "B"])
def test_the_twin_equals_the_published_code_too(golden: Arrays, name: str) -> None:
    """So that where the golden file is absent, the tests against the twin still mean something."""
    data = case(golden, name)
    policy, reference = (data[key].astype(np.float64)[:, :-1] for key in ("logits", "oracle_logits"))
    targets = data["input_ids"][:, 1:]
    unwanted, general = (data[key][:, 1:] != IGNORE for key in ("labels", "reversed_labels"))
    for beta in BETAS:
        value = tif_twin.lpl(policy, reference, targets, unwanted, beta, batch=True)
        value += tif_twin.preserve(policy, targets, general, reduction="sum")
        assert value == pytest.approx(float(data[f"tpo_beta{beta}/value"]), rel=1e-12)


def test_the_papers_form_takes_sequences_one_by_one(golden: Arrays) -> None:
    """Jensen: -log sigmoid is convex, so the mean of the sequences' losses is at least the loss of the mean."""
    data = case(golden, "A")
    for beta in BETAS:
        _, _, paper = ours(data, f"tif:beta={beta}")
        _, _, code = ours(data, f"tif-code:beta={beta}")
        assert float(paper[0].detach()) > float(code[0].detach())
        assert float(paper[1].detach()) == float(code[1].detach())


def test_a_row_that_the_published_code_makes_nan_is_defined(golden: Arrays) -> None:
    """Row 1 loses its unwanted word: 0 / 0 there; ours is LPL over the other rows, and that word is now held."""
    data = dict(case(golden, "A"))
    data["labels"], data["reversed_labels"] = data["labels"].copy(), data["reversed_labels"].copy()
    was = data["labels"][1] != IGNORE
    data["reversed_labels"][1, was] = data["input_ids"][1, was]
    data["labels"][1] = IGNORE
    assert np.isnan(_published_margin(data))
    policy, reference = (data[key].astype(np.float64)[:, :-1] for key in ("logits", "oracle_logits"))
    targets, unwanted = data["input_ids"][:, 1:], data["labels"][:, 1:] != IGNORE
    general = data["reversed_labels"][:, 1:] != IGNORE
    for preset, batch in (("tif:beta=0.3", False), ("tif-code:beta=0.3", True)):
        total, logits, parts = ours(data, preset)
        assert float(parts[0].detach()) == pytest.approx(
            tif_twin.lpl(policy, reference, targets, unwanted, 0.3, batch=batch), rel=1e-12
        )
        assert float(parts[1].detach()) == pytest.approx(
            tif_twin.preserve(policy, targets, general, reduction="sum"), rel=1e-12
        )
        total.backward()
        assert logits.grad is not None
        assert bool(torch.isfinite(logits.grad).all())


@pytest.mark.parametrize("fault", ["shifted by one", "padding included", "end token left out", "mean inside, per row"])
def test_the_comparison_notices_faults(golden: Arrays, fault: str) -> None:
    """Siblings of the parity test that break something on purpose: each must move the value away."""
    data = dict(case(golden, "A"))
    expected = float(data["tpo_grad_diff_beta0.3/value"])
    preset = "tif-retain:beta=0.3,preserve=1" if fault == "mean inside, per row" else "tif-code:beta=0.3"
    if fault == "shifted by one":
        data["logits"] = np.roll(data["logits"], 1, axis=1)
    if fault in ("padding included", "end token left out"):
        pads = data["attention_mask"] == 0
        data["reversed_labels"] = np.where(
            pads, data["input_ids"] if fault == "padding included" else IGNORE, data["reversed_labels"]
        )
    total, _, _ = ours(data, preset)
    assert abs(float(total.detach()) / expected - 1) > 1e-3


def _published_margin(data: Arrays) -> float:
    """The scalar inside the published sigmoid, from its formula: a batch mean of row means over unwanted tokens."""
    unwanted = data["labels"][:, 1:] != IGNORE
    index = data["input_ids"][:, 1:, None]
    policy, reference = (
        np.take_along_axis(data[key][:, :-1], index, axis=2)[..., 0] for key in ("logits", "oracle_logits")
    )
    with np.errstate(invalid="ignore"):
        rows = ((reference - policy) * unwanted).sum(1) / unwanted.sum(1)
    return float(rows.mean())
