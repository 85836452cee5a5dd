"""Composite scores by hand, relative to a target, with intervals; absent where a part is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expunge.evals import composite, metrics
from expunge.evals.judge import judge_folder, metrics_from_folder
from expunge.evals.numbers import Bootstrap
from expunge.evals.table import FLUENCY
from tests.evals import simulated

QUICK = Bootstrap(60)


def folder(root: Path, name: str, kind: simulated.Kind, seed: int) -> Path:
    return simulated.tables(root / name, kind, 10, 4, seed)


def test_the_composites_are_made_of_what_stands_beside_them(tmp_path: Path) -> None:
    own, target, oracle = (
        folder(tmp_path, name, kind, seed)
        for seed, (name, kind) in enumerate(
            {"own": simulated.Kind(0.3, 0.3, 0.7), "target": simulated.TARGET, "oracle": simulated.ORACLE}.items()
        )
    )
    found = metrics_from_folder(own, oracle, target=target, resamples=60)
    before, retrained = metrics_from_folder(target, oracle, resamples=2), metrics_from_folder(oracle, resamples=2)
    value = {name: entry["agg_value"] for name, entry in found.items()}
    assert set(composite.NAMES) <= set(found)
    assert value["ou_utility"] == pytest.approx(min(1, value["model_utility"] / before["model_utility"]["agg_value"]))
    kept = [
        1 - value[name] / before[name]["agg_value"]
        for name in ("extraction_strength", "exact_memorization", "forget_Q_A_PARA_Prob")
    ]
    assert value["ou_memorization"] < metrics.harmonic_mean([*kept, 1.0]) + 1e-9
    scores = []
    for attack in ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus"):
        area = retrained[attack]["agg_value"]
        scores.append(1 / (1 + 9.05 * abs((area - value[attack]) / (1 - area))))
    assert value["ou_privacy"] == pytest.approx(metrics.harmonic_mean(scores))
    three = [value[name] for name in composite.PARTS]
    assert value["ou_aggregate"] == pytest.approx(metrics.harmonic_mean(three))
    assert value["ou_aggregate_without_privacy"] == pytest.approx(metrics.harmonic_mean([three[0], three[2]]))
    lost = 100 * (before["model_utility"]["agg_value"] - value["model_utility"])
    assert value["etw_aggregate"] == pytest.approx(-math.log10(value["forget_quality"]) * lost)
    for name in composite.NAMES:
        entry = found[name]
        assert entry["ci_low"] - 1e-9 <= entry["agg_value"] <= entry["ci_high"] + 1e-9, name
        assert entry["n"] > 0


def with_fluency(path: Path, values: Sequence[float]) -> Path:
    """The folder with what a classifier said of the forget set's answers."""
    file = path / "generations/forget.parquet"
    table = pq.read_table(file)
    said = pa.array([values[place % len(values)] for place in range(table.num_rows)], pa.float64())
    pq.write_table(table.append_column(FLUENCY, said), file)
    return path


def test_fluency_is_the_other_half_of_openunlearnings_utility(tmp_path: Path) -> None:
    """HM(MU / MU of the target, fluency / fluency of the target), each at most 1."""
    own = with_fluency(folder(tmp_path, "own", simulated.Kind(0.3, 0.3, 0.7), 1), [0.2, 0.6])
    target = folder(tmp_path, "target", simulated.TARGET, 2)
    unread = metrics_from_folder(own, target=target, resamples=20)["ou_utility"]
    assert "fluency" in unread["without"]
    found = metrics_from_folder(own, target=with_fluency(target, [0.8]), resamples=20)
    assert found["forget_fluency"]["agg_value"] == pytest.approx(0.4)
    assert found["ou_utility"]["agg_value"] == pytest.approx(2 / (1 / unread["agg_value"] + 1 / 0.5))
    assert "without" not in found["ou_utility"]


def test_an_untouched_model_has_memorised_all_and_etw_s_aggregate_calls_it_best(tmp_path: Path) -> None:
    target, oracle = folder(tmp_path, "t", simulated.TARGET, 1), folder(tmp_path, "o", simulated.ORACLE, 2)
    value = {n: e["agg_value"] for n, e in metrics_from_folder(target, oracle, target=target, resamples=20).items()}
    assert value["ou_memorization"] == 0.0
    assert value["ou_aggregate"] == 0.0
    assert value["ou_utility"] == 1.0
    assert value["etw_aggregate"] == 0.0
    assert value["ou_privacy"] < 0.2


def test_without_target_or_oracle_they_are_absent_with_the_reason(tmp_path: Path) -> None:
    target, oracle = folder(tmp_path, "t", simulated.TARGET, 1), folder(tmp_path, "o", simulated.ORACLE, 2)
    alone = judge_folder(target, oracle, bootstrap=QUICK)
    assert not set(composite.NAMES) & set(alone.numbers)
    assert "no target" in alone.absent["ou_aggregate"]
    unjudged = judge_folder(target, None, target=target, bootstrap=QUICK)
    assert "ou_memorization" in unjudged.numbers
    assert "oracle" in unjudged.absent["ou_privacy"]
    assert unjudged.absent["ou_aggregate"] == "ou_privacy is absent"


def test_the_excess_over_records_never_seen_needs_no_oracle(tmp_path: Path) -> None:
    found = metrics_from_folder(folder(tmp_path, "t", simulated.TARGET, 1), resamples=60)
    entry = found["forget_excess_Prob"]
    assert entry["reference"] == "holdout records"
    assert entry["ci_low"] > 0.5
    clean = metrics_from_folder(folder(tmp_path, "o", simulated.ORACLE, 2), resamples=60)["forget_excess_Prob"]
    assert clean["ci_low"] < 0.05
    assert (clean["n_forget"], clean["n_holdout"]) == (40, 40)
