"""Signal to noise from two numbers a record: by hand, and its intervals."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from expunge.evals import paired, snr
from expunge.evals.snr import MOMENTS


def table(gradients: dict[str, np.ndarray], direction: np.ndarray) -> pa.Table:
    """Moments of explicit gradients (records, dimensions) by weighting."""
    rows = [
        {
            "id": f"r{b}", "subject": f"s{b}", "scorer": "", "weights": name, "share": math.nan,
            "projection": float(g @ direction), "square": float(g @ g),
        }
        for name, all_records in gradients.items()
        for b, g in enumerate(all_records)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=MOMENTS)


def test_snr_by_hand() -> None:
    """g = (1, 1), (3, 1), d = (1, 0): mean projection 2, mean square (2 + 10) / 2 = 6, SNR 4 / (6 - 4) = 2."""
    found = snr.snr(np.array([1.0, 3.0]), np.array([2.0, 10.0]))
    assert float(found(np.ones((1, 2)))[0]) == pytest.approx(2.0)
    assert float(found(np.array([[2.0, 0.0]]))[0]) == pytest.approx(1.0 / (2 - 1))
    assert math.isnan(float(snr.snr(np.ones(3), np.ones(3))(np.ones((1, 3)))[0])), "no noise at all"


def test_removing_orthogonal_noise_raises_it_by_the_known_factor() -> None:
    """Signal 1 along d with spread s, and k noise dimensions of spread t: 1 / (s^2 + k t^2) against 1 / s^2."""
    rng = np.random.default_rng(0)
    along = 1 + 0.5 * rng.normal(size=4000)
    noise = 2 * rng.normal(size=(4000, 3))
    full = np.column_stack([along, noise])
    clean = np.column_stack([along, 0 * noise])
    found = {
        one.weights: one for one in snr.measure(table({"uniform": full, "hard": clean}, np.eye(4)[0]), resamples=200)
    }
    assert found["uniform"].snr.value == pytest.approx(1 / (0.25 + 12), rel=0.05)
    assert found["hard"].snr.value == pytest.approx(1 / 0.25, rel=0.05)
    assert found["hard"].ratio.value == pytest.approx(found["hard"].snr.value / found["uniform"].snr.value)
    assert found["hard"].ratio.low > 40
    assert found["uniform"].ratio.value == 1.0
    assert found["uniform"].ratio.low == found["uniform"].ratio.high == 1.0
    assert found["hard"].projection.value == pytest.approx(1, abs=0.05)


def test_the_interval_covers_the_true_value() -> None:
    inside = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        gradients = rng.normal(size=(60, 4)) + np.array([1.0, 0, 0, 0])
        [one] = snr.measure(table({"uniform": gradients}, np.eye(4)[0]), resamples=300)
        inside += one.snr.low <= 1 / 4 <= one.snr.high
    assert inside >= 69, inside  # 95% of 80 is 76


def test_records_without_a_gradient_are_left_out_of_both_sides() -> None:
    rng = np.random.default_rng(1)
    full, hard = rng.normal(size=(2, 10, 3)) + 1
    hard[3] = math.nan
    found = {one.weights: one for one in snr.measure(table({"uniform": full, "hard": hard}, np.eye(3)[0]))}
    kept = np.delete(full, 3, axis=0)
    m, s = kept[:, 0].mean(), (kept**2).sum(1).mean()
    assert (found["uniform"].records, found["hard"].records) == (10, 9)
    assert found["hard"].snr.value / found["hard"].ratio.value == pytest.approx(m**2 / (s - m**2))


def test_paired_differences_are_narrower_than_either_mean() -> None:
    rng = np.random.default_rng(0)
    level = 3 * rng.normal(size=40)
    found = paired.compare("x", (level + 0.3).tolist(), (level + 0.1 * rng.normal(size=40)).tolist(), [""] * 40)
    assert found.difference.low > 0.2
    assert found.first.high - found.first.low > 5 * (found.difference.high - found.difference.low)
    assert found.p < 0.001


def test_paired_values_of_no_record() -> None:
    found = paired.compare("x", [math.nan], [1.0], ["a"])
    assert math.isnan(found.difference.value)
    assert found.difference.n == 0
    assert math.isnan(found.p)
