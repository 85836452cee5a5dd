"""Arms of several seeds: how runs are grouped, what their intervals and tests say, and the verb that prints it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from expunge import comparison, recipe, runfolder
from expunge.cli import app
from expunge.errors import RunFolderError
from expunge.evals import stats
from expunge.runfolder import ITEMS, RunFolder
from tests.report import synthetic

METRIC = "forget_Q_A_Prob"


def made(root: Path, name: str, seed: int, values: list[float], utility: float, control: str = "none") -> RunFolder:
    """A finished run that was evaluated: one metric that is a mean of items, one that is not."""
    import pyarrow as pa

    folder = root / f"{name}-{seed}"
    settings = {
        "name": name, "seed": seed, "output_dir": str(folder),
        "method": {"preset": name.split("+")[0], "control": control},
    }  # fmt: skip
    run = runfolder.create(folder, "unlearn", recipe.load(settings))
    mean = float(np.mean(values))
    entry = {"n": len(values), "higher": "worse", "ci_low": mean - 0.05, "ci_high": mean + 0.05, "agg_value": mean}
    kept = {"n": 9, "higher": "better", "agg_value": utility, "ci_low": utility - 0.0196, "ci_high": utility + 0.0196}
    run.write_json("eval/unlearned/metrics.json", {METRIC: entry, "model_utility": kept})
    rows = [{"metric": METRIC, "id": f"r{i}", "value": value} for i, value in enumerate(values)]
    run.write_table("eval/unlearned/items.parquet", pa.Table.from_pylist(rows, schema=ITEMS))
    run.finish()
    return run


def test_a_control_follows_its_method_and_is_compared_with_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.4, 30)
    runs = []
    for seed in range(3):
        noise = rng.normal(0, 0.01, 30)
        runs.append(made(tmp_path, "etw+random", seed, list(base + 0.3 + noise), 0.5, "random"))
        runs.append(made(tmp_path, "graddiff", seed, list(base + noise), 0.6))
        runs.append(made(tmp_path, "etw", seed, list(base + 0.001 * rng.normal(size=30) + noise), 0.5 + 0.01 * seed))
    found = comparison.compare_runs([run.path for run in runs], baseline="graddiff")
    assert [arm.name for arm in found.arms] == ["etw", "etw+random", "graddiff"]
    assert [arm.seeds for arm in found.arms] == [(0, 1, 2)] * 3
    assert found.arms[1].controls == "etw"
    worse = found.contrasts["etw+random", METRIC]
    assert worse.baseline == "etw"
    assert worse.distinguishable
    assert worse.value == pytest.approx(0.3, abs=0.01)
    same = found.contrasts["etw", METRIC]
    assert same.baseline == "graddiff"
    assert not same.distinguishable
    assert ("graddiff", METRIC) not in found.contrasts
    assert found.estimates["etw", "model_utility"].seeds == 3


def test_runs_beside_different_pairs_are_one_arm(tmp_path: Path) -> None:
    for seed in range(2):
        run = made(tmp_path, "etw", seed, [0.1, 0.2, 0.3], 0.5)
        control = made(tmp_path, "etw+matched", seed, [0.1, 0.2, 0.3], 0.5, "update-matched")
        tree = control.recipe.model_dump(mode="json")
        tree["method"]["paired_run"] = str(run.path)
        control.write_text("recipe.yaml", recipe.dump(recipe.load(tree)))
    found = comparison.compare_runs(sorted(tmp_path.iterdir()))
    assert [(arm.name, arm.seeds, arm.controls) for arm in found.arms] == [
        ("etw", (0, 1), ""), ("etw+matched", (0, 1), "etw"),
    ]  # fmt: skip


def test_numbers_that_are_no_means_of_items_combine_items_and_seeds_by_hand(tmp_path: Path) -> None:
    """Utilities .50, .51, .52, each +-.0196: variance .01^2 of items + .0001 / 3 of seeds."""
    runs = [made(tmp_path, "etw", seed, [0.1, 0.2], 0.5 + 0.01 * seed).path for seed in range(3)]
    found = comparison.compare_runs(runs).estimates["etw", "model_utility"]
    variance = 0.0196**2 / 1.96**2 + 0.0001 / 3
    freedom = variance**2 / ((0.0001 / 3) ** 2 / 2)
    from scipy import stats as scipy_stats

    half = scipy_stats.t.ppf(0.975, freedom) * variance**0.5
    assert found.value == pytest.approx(0.51)
    assert (found.low, found.high) == pytest.approx((0.51 - half, 0.51 + half), abs=1e-6)


def test_intervals_stay_where_a_metric_can_be(tmp_path: Path) -> None:
    """Utilities .97, .98, .99 and probabilities that are 0 in every record and seed."""
    runs = [made(tmp_path, "etw", seed, [0.0] * 12, 0.97 + 0.01 * seed).path for seed in range(3)]
    found = comparison.compare_runs(runs).estimates
    assert found["etw", "model_utility"].high == 1.0
    low, high = found["etw", METRIC].low, found["etw", METRIC].high
    assert low == 0.0
    assert high is not None
    assert 0.1 < high < 0.9, "twelve records and three seeds that agree do not prove that all would"


def test_all_tests_of_a_table_are_corrected_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    base = rng.uniform(0, 1, 12)
    arms = {"graddiff": 0.0, "etw": 0.004, "wga": 0.5}
    runs = [made(tmp_path, n, 0, list(base + g + rng.normal(0, 0.01, 12)), 0.5).path for n, g in arms.items()]
    found = comparison.compare_runs(runs, metrics=[METRIC])
    assert found.baseline == "graddiff"
    tested = [found.contrasts[name, METRIC] for name in ("etw", "wga")]
    assert [c.corrected for c in tested] == pytest.approx(stats.holm([c.p for c in tested]))
    assert tested[1].corrected > tested[1].p


def test_the_interval_over_seeds_covers_what_a_plain_one_misses() -> None:
    """Items vary little, seeds a lot: 40 items and 6 seeds with standard deviations .1 and 1."""
    rng = np.random.default_rng(5)
    hits = plain = 0
    for trial in range(120):
        values = rng.normal(0, 1, (6, 1)) + rng.normal(0, 0.1, (1, 40)) + rng.normal(0, 0.05, (6, 40))
        found = stats.over_seeds(values, [""] * 40, resamples=300, seed=trial)
        hits += found.low <= 0 <= found.high
        one = stats.over_seeds(values[:1], [""] * 40, resamples=300, seed=trial)
        plain += one.low <= 0 <= one.high
    assert hits / 120 >= 0.88
    assert plain / 120 < 0.3


def test_the_p_of_a_difference_is_honest_under_the_null() -> None:
    rng = np.random.default_rng(6)
    small = sum(
        stats.difference_p(
            rng.normal(0, 0.5, (3, 1)) + rng.normal(0, 0.3, (1, 20)) + rng.normal(0, 0.2, (3, 20)), [""] * 20
        )
        <= 0.05
        for _ in range(400)
    )
    assert small / 400 <= 0.075
    assert stats.difference_p(np.full((3, 20), 1.0) + rng.normal(0, 0.05, (3, 20)), [""] * 20) < 1e-6


def test_the_verb_prints_and_writes_the_comparison(tmp_path: Path) -> None:
    folder = synthetic.demo(tmp_path / "demo", records=10, epochs=1).path
    for ending in ("json", "csv", "md"):
        out = tmp_path / f"table.{ending}"
        result = CliRunner().invoke(app, ["compare", str(folder), "--baseline", "oracle", "--out", str(out)])
        assert result.exit_code == 0, result.output
    assert "not distinguishable" in result.output
    rows = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert {row["arm"] for row in rows} == {"target", "oracle", "graddiff", "wga", "etw"}
    with (tmp_path / "table.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == len(rows)
    assert (tmp_path / "table.md").read_text().startswith("|  | Answer probability |")
    result = CliRunner().invoke(app, ["compare", str(folder), "--baseline", "etww"])
    assert result.exit_code == 2
    assert "Did you mean: etw?" in result.output


def test_unknown_metrics_are_named(tmp_path: Path) -> None:
    run = made(tmp_path, "etw", 0, [0.1, 0.2], 0.5)
    with pytest.raises(RunFolderError, match="Did you mean: model_utility"):
        comparison.compare_runs([run.path], metrics=["model_utilty"])
