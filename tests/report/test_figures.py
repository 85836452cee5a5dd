"""What papers plot: weights by epoch, bars, the Pareto front, numbers over a setting, and studies beside their runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from expunge import recipe, runfolder
from expunge.errors import RunFolderError
from expunge.report import charts, collect, figures, naming, page, summary
from expunge.report.charts import Mark
from expunge.report.collect import Cell, Column
from expunge.runfolder import RunFolder
from expunge.studies import sheets
from expunge.studies.sheets import Figure, Line, Sheet, Table
from tests.report.test_browser import Open, show

if TYPE_CHECKING:
    from playwright.sync_api import Locator

__all__ = ["show"]


def judged(
    root: Path, preset: str, prob: float, utility: float, seed: int = 0, count: int = 10, **train: float
) -> Path:
    """A finished run with two metrics and `count` forget records."""
    folder = root / f"{preset}-{seed}-{count}-{len(list(root.iterdir()))}".replace(":", "-")
    tree = {"name": folder.name, "seed": seed, "output_dir": str(folder), "method": {"preset": preset}, "train": train}
    run = runfolder.create(folder, "unlearn", recipe.load(tree))
    run.update(data={"forget": {"count": count}})
    values = {"forget_Q_A_Prob": prob, "model_utility": utility, "ou_aggregate": (prob + utility) / 2}
    run.write_json("eval/unlearned/metrics.json", {n: {"agg_value": v, "higher": "better"} for n, v in values.items()})
    run.finish()
    return run.path


def test_a_swept_temperature_by_hand(tmp_path: Path) -> None:
    """Three temperatures, two seeds at the first; another learning rate is another line, too short to be drawn."""
    runs = [
        judged(tmp_path, "etw:temperature=0.5", 0.2, 0.4),
        judged(tmp_path, "etw:temperature=0.5", 0.4, 0.6, seed=1),
    ]
    runs += [judged(tmp_path, f"etw:temperature={t}", 0.1 * t, 0.5) for t in (1, 2)]
    runs += [judged(tmp_path, "etw:temperature=4", 0.9, 0.9, learning_rate=0.1)]
    drawn = figures.sweeps(collect.views(runs))
    assert [chart.key for chart in drawn] == [
        "sweep.method.preset.temperature.forget_Q_A_Prob", "sweep.method.preset.temperature.model_utility",
    ]  # fmt: skip
    [line] = drawn[0].data["series"]
    assert line["name"] == "etw"
    assert line["x"] == [0.5, 1.0, 2.0]
    assert line["y"] == pytest.approx([0.3, 0.1, 0.2])
    assert drawn[0].data["log"], "each temperature is twice the one before"
    places = [float(x) for x in re.findall(r"[ML]([\d.]+) ", str(drawn[0].svg))]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)
    assert "log axis" in drawn[0].note


def test_a_setting_spaced_by_steps_keeps_a_linear_axis(tmp_path: Path) -> None:
    runs = [judged(tmp_path, f"etw:temperature={t}", 0.1 * t, 0.5) for t in (1, 2, 3, 4)]
    assert not figures.sweeps(collect.views(runs))[0].data["log"]


@pytest.mark.browser
def test_a_log_axis_is_read_where_it_is_drawn(tmp_path: Path, show: Open) -> None:
    runs = [judged(tmp_path, "etw", 0.2, 0.5, learning_rate=rate) for rate in (1e-5, 1e-4, 1e-3)]
    tab = show(page.render(runs, tmp_path / "r.html"))
    chart = tab.locator(".chart[data-key^='sweep']").first
    chart.locator("svg").hover(position={"x": (charts.LEFT + charts.WIDTH - charts.RIGHT) / 2 * scale(chart), "y": 60})
    assert "train.learning_rate 0.0001" in chart.locator(".readout").inner_text(), "the middle of the axis"
    path, rule = chart.locator("path.line").get_attribute("d"), chart.locator(".rule").get_attribute("x1")
    assert path is not None
    assert float(rule or 0) == pytest.approx(float(path.split("L")[1].split()[0]), abs=0.2)


def scale(chart: Locator) -> float:
    """Pixels a unit of a chart's drawing."""
    box = chart.locator("svg").bounding_box()
    assert box is not None
    return box["width"] / charts.WIDTH


def test_utility_over_the_size_of_the_forget_set(tmp_path: Path) -> None:
    runs = [judged(tmp_path, name, 0.1, u, count=n) for name in ("wga", "etw") for n, u in ((10, 0.6), (50, 0.4))]
    drawn = {chart.key: chart for chart in figures.sweeps(collect.views(runs))}
    assert set(drawn) == {"size.forget_Q_A_Prob", "size.model_utility"}
    found = {line["name"]: (line["x"], line["y"]) for line in drawn["size.model_utility"].data["series"]}
    assert found == {"wga": ([10, 50], [0.6, 0.4]), "etw": ([10, 50], [0.6, 0.4])}


def test_runs_that_differ_in_nothing_numeric_have_no_sweep(demo: Path) -> None:
    assert figures.sweeps(collect.views([demo])) == []


def test_weights_of_gold_tokens_by_epoch(demo: Path) -> None:
    gold, other = figures.weights(collect.views([demo]))
    ends = {line["name"]: (line["x"][0], line["x"][-1], line["y"][0]) for line in gold.data["series"]}
    others = {line["name"]: line["y"][0] for line in other.data["series"]}
    assert set(ends) == set(others) == {"graddiff", "wga", "etw"}
    assert all((first, last) == (0, 8) for first, last, _ in ends.values())
    assert ends["etw"][2] > 2 * others["etw"]


def test_a_run_without_gold_spans_has_no_curve_of_weights(demo: Path) -> None:
    assert figures.weights(collect.views([demo / "target"])) == []


def test_bars_by_hand() -> None:
    svg = str(charts.bars("Aggregate", [Mark("a", "s0", 0.5, 0.25, 0.75), Mark("b", "s1", 1.0), Mark("c", "s2", 0.0)]))
    foot, full = charts.Scale(0, 1, 210 - 62, charts.TOP)(0), 210 - 62 - charts.TOP
    heights = [float(h) for h in re.findall(r'class="bar s\d".*?height="([\d.]+)"', svg)]
    assert heights == pytest.approx([full / 2, full, 0.5])
    assert re.findall(r'class="error".*?y1="([\d.]+)" y2="([\d.]+)"', svg) == [
        (f"{foot - full / 4:.1f}", f"{foot - 3 * full / 4:.1f}")
    ]
    assert "Aggregate. a: 0.5; b: 1; c: 0" in svg


def test_the_front_by_hand(demo: Path) -> None:
    """The oracle forgets to .2: b is as near as a and keeps more; c keeps most; d is beaten by b in both."""
    x, y = naming.metric("forget_Q_A_Prob"), naming.metric("model_utility")
    folder = RunFolder(demo)
    facts = {"oracle": (0.2, 0.5), "a": (0.1, 0.4), "b": (0.3, 0.45), "c": (0.6, 0.6), "d": (0.05, 0.4)}
    models = [
        Column(n, "oracle" if n == "oracle" else "run", {x.name: Cell(p), y.name: Cell(u)}, folder, n)
        for n, (p, u) in facts.items()
    ]
    assert summary.front(models, x, y) == ["b", "c"]
    assert summary.front(models[1:], x, y) == ["b", "c", "d"], "without an oracle lower is better"
    marks = [(Mark(m.name, "s0", m.cells[x.name].value), Mark(m.name, "s0", m.cells[y.name].value)) for m in models]
    svg = str(charts.scatter("t", "x", "y", marks, ["b", "c"], ["c"]))
    assert svg.count('class="front"') == 1
    assert re.findall(r'r="(\d+)"', svg).count("10") == 1


def test_a_run_may_be_chosen_by_name(demo: Path, tmp_path: Path) -> None:
    text = page.render([demo], tmp_path / "r.html", chosen=["wga"]).read_text(encoding="utf-8")
    assert "Large: wga." in text
    assert len(re.findall(r'<circle class="dot s\d"[^>]* r="10"', text)) == 1
    with pytest.raises(RunFolderError, match="Did you mean: wga"):
        page.render([demo], tmp_path / "r.html", chosen=["wgaa"])


def study(root: Path) -> Path:
    """What a measurement leaves: one table and a ROC curve."""
    folder = sheets.create(root, recipe.load({}), "selectivity")
    roc = Figure("ROC, gold", "found against wrongly taken", "false positives", (Line("entropy", [0, 1], [0, 1]),))
    sheets.write(
        folder, Sheet("Selectivity", "One score.", (Table("T", "n", ("score", "AUC"), (("entropy", "0.5"),)),), (roc,))
    )
    folder.finish()
    return folder.path


@pytest.mark.browser
def test_a_study_is_shown_beside_its_runs(demo: Path, tmp_path: Path, show: Open) -> None:
    measured = study(tmp_path / "measured")
    tab = show(page.render([measured, demo], tmp_path / "both.html"))
    assert tab.locator(".study figure.chart > svg path.line").count() == 1
    assert tab.get_by_role("heading", name="Selectivity").is_visible()
    assert tab.locator("h1").inner_text() == "graddiff, wga and etw"


@pytest.mark.browser
def test_sweeps_and_bars_are_drawn(tmp_path: Path, show: Open) -> None:
    runs = [judged(tmp_path, f"etw:temperature={t}", 0.1 * t, 0.5, count=10 * t) for t in (1, 2, 4)]
    tab = show(page.render(runs, tmp_path / "sweep.html"), width=390)
    assert tab.locator(".barchart rect.bar").count() == 3
    chart = tab.locator("#figures .chart").first
    chart.locator(".plotarea").focus()
    assert "etw" in tab.locator("#figures .legend").first.inner_text()
    assert chart.locator(".readout").inner_text() != ""
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_names_in_bars_are_escaped(tmp_path: Path) -> None:
    assert "<b>" not in str(charts.bars("t", [Mark("<b>", "s0", 1.0), Mark("b", "s1", 2.0)]))
