from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from expunge.report import collect, compare
from expunge.report.collect import Cell, Column, Role
from expunge.runfolder import RunFolder


def model(name: str, role: Role = "run", subjects: dict[str, str] | None = None, **cells: Cell) -> Column:
    return Column(name, role, cells, RunFolder(Path()), "unlearned", subjects or {})


def items(values: list[float]) -> dict[str, float]:
    return {str(i): value for i, value in enumerate(values)}


def test_pairing_finds_what_overlapping_intervals_hide() -> None:
    """Records differ a lot, the two models by a little on every one of them."""
    spread = np.linspace(0, 1, 40)
    a = Cell(0.51, 0.41, 0.61, 40, items=items([float(v) + 0.01 + 0.001 * (i % 3) for i, v in enumerate(spread)]))
    b = Cell(0.50, 0.40, 0.60, 40, items=items([float(v) for v in spread]))
    gap = compare.difference("m", model("a", m=a), model("b", m=b))
    assert gap is not None
    assert gap.how == "paired"
    assert gap.distinguishable
    assert gap.value == pytest.approx(0.011, abs=1e-4)
    blind = compare.difference("m", model("a", m=Cell(0.51, 0.41, 0.61)), model("b", m=Cell(0.50, 0.40, 0.60)))
    assert blind is not None
    assert blind.how == "overlap"
    assert not blind.distinguishable
    assert (blind.low, blind.high) == pytest.approx((-0.19, 0.21))


def test_pairing_needs_the_same_records() -> None:
    a, b = Cell(0.5, 0.4, 0.6, items={"x": 0.4, "y": 0.6}), Cell(0.5, 0.4, 0.6, items={"x": 0.4, "z": 0.6})
    gap = compare.difference("m", model("a", m=a), model("b", m=b))
    assert gap is not None
    assert gap.how == "overlap"


def test_no_interval_no_claim() -> None:
    assert compare.difference("m", model("a", m=Cell(0.5)), model("b", m=Cell(0.9))) is None
    assert compare.difference("m", model("a", m=Cell(0.5)), model("b")) is None


def test_the_paired_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for units in (10, 60, 1200):
        trials = 300 if units < 1000 else 100
        hits = 0
        for trial in range(trials):
            gap = compare.paired(rng.normal(0.3, 1.0, units).tolist(), [""] * units, str(trial))
            hits += gap.low <= 0.3 <= gap.high
        assert 0.90 <= hits / trials <= 0.99, units


def test_records_about_one_person_are_drawn_together() -> None:
    """Twelve people with one gap each, ten records a person: the records add nothing."""
    rng = np.random.default_rng(1)
    each = rng.normal(0, 1, 12)
    gaps, people = np.repeat(each, 10).tolist(), [f"person {i // 10}" for i in range(120)]
    together = compare.paired(gaps, people, "m")
    apart = compare.paired(gaps, [""] * 120, "m")
    assert together.high - together.low > 2.5 * (apart.high - apart.low)
    few = compare.paired(gaps[:40], people[:40], "m")
    assert few == compare.paired(gaps[:40], [""] * 40, "m"), "four people are too few to draw from"


def test_equal_gaps_are_equal() -> None:
    gap = compare.paired([0.0] * 20, [""] * 20)
    assert (gap.low, gap.value, gap.high) == (0.0, 0.0, 0.0)
    assert not gap.distinguishable


def test_the_same_numbers_give_the_same_interval_twice() -> None:
    gaps = np.random.default_rng(2).normal(size=30).tolist()
    assert compare.paired(gaps, [""] * 30, "m") == compare.paired(gaps, [""] * 30, "m")


def test_privleak_is_compared_with_its_ideal_where_the_oracle_has_none() -> None:
    oracle = model("oracle", "oracle")
    near = compare.difference("privleak", model("a", privleak=Cell(3.0, -4.0, 10.0)), oracle)
    far = compare.difference("privleak", model("b", privleak=Cell(-60.0, -70.0, -50.0)), oracle)
    assert near is not None
    assert not near.distinguishable
    assert far is not None
    assert far.distinguishable


def test_metrics_are_ordered_and_unknown_ones_kept() -> None:
    one = model("a", mia_loss=Cell(1), zeta=Cell(1), ra_Q_A_Prob=Cell(1), model_utility=Cell(1), forget_new=Cell(1))
    found = compare.ordered([one])
    assert [(metric.name, metric.group) for metric in found] == [
        ("forget_new", "Forgotten?"),
        ("model_utility", "Kept?"),
        ("ra_Q_A_Prob", "Kept?"),
        ("mia_loss", "Leaks?"),
        ("zeta", "Other"),
    ]
    assert found[2].title == "Real authors: answer probability"


def test_the_baseline_is_the_first_of_several_runs_else_the_target() -> None:
    target, oracle, a, b = model("t", "target"), model("o", "oracle"), model("a"), model("b")
    assert compare.baseline([target, oracle, a, b]) is a
    assert compare.baseline([target, oracle, a]) is target
    assert compare.baseline([oracle, a]) is oracle
    assert compare.baseline([a]) is None


def test_decimals_are_the_same_in_a_row() -> None:
    models = [model("a", p=Cell(-60.6), q=Cell(0.5)), model("b", p=Cell(-0.909), q=Cell(0.00001))]
    assert [compare.shown(m.cells["p"].value, compare.decimals("p", models)) for m in models] == ["−60.6", "−0.9"]
    assert [compare.shown(m.cells["q"].value, compare.decimals("q", models)) for m in models] == ["0.500", "1.0e-05"]


def test_direction_is_what_the_evaluation_says(demo: Path) -> None:
    models = collect.columns(collect.views([demo]))
    by_name = {metric.name: metric for metric in compare.ordered(models)}
    assert compare.direction(by_name["model_utility"], models) == "better"
    assert compare.direction(by_name["forget_Q_A_Prob"], models) == "neither"


def test_a_headline_that_is_0_in_every_model_gives_way() -> None:
    models = [model("a", u=Cell(0.0), p=Cell(0.3)), model("target", "target", u=Cell(0.0), p=Cell(0.9))]
    found = compare.headline(models, ("u", "p"))
    assert found is not None
    assert found.name == "p"
    models[1].cells["u"] = Cell(0.5)  # type: ignore[index]
    assert (only := compare.headline(models, ("u", "p"))) is not None
    assert only.name == "u"
    assert (last := compare.headline([model("a", u=Cell(0.0))], ("u", "p"))) is not None
    assert last.name == "u"
