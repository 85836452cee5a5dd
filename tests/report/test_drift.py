"""Curves of over-forgetting, and their correlation with utility over runs, by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from expunge import runfolder
from expunge.report import collect, drift, page
from tests.report import synthetic


def judged(path: Path, general: float, utility: float | None) -> Path:
    """A run whose loss on general words ends at `general`, and whose model utility is `utility`."""
    run = runfolder.create(path, "unlearn", name=path.name)
    lines = [
        {"epoch": 0, "kl_retain": 0.0, "nll_general_words": 0.5, "spans": "gold"},
        {"epoch": 1, "kl_retain": 0.25, "nll_general_words": general},
    ]
    run.write_lines(runfolder.DIAGNOSTICS, lines)
    if utility is not None:
        run.write_json("eval/unlearned/metrics.json", {"model_utility": {"agg_value": utility}})
    run.finish()
    return path


def test_curves_begin_before_training(tmp_path: Path) -> None:
    seen = collect.views([judged(tmp_path / "a", 2.0, None), judged(tmp_path / "b", 3.0, None)])
    drawn = drift.draw(seen)
    assert [chart.title for chart in drawn] == ["Drift on retain text", "Loss on general words"]
    first, second = drawn[1].data["series"]
    assert (first["x"], first["y"], second["y"], second["style"]) == ([0, 1], [0.5, 2.0], [0.5, 3.0], 1)
    runfolder.create(tmp_path / "c", "unlearn", name="c")
    assert drift.draw(collect.views([tmp_path / "c"])) == []


def test_correlations_by_hand(tmp_path: Path) -> None:
    # general words 1, 2, 3, 6 against utility 4, 3, 2, 1: deviations (-2, -1, 0, 3) and (1.5, .5, -.5, -1.5), so
    # r = -8 / sqrt(14 * 5); the ranks are exactly opposite; kl_retain is the same everywhere and says nothing
    runs = [judged(tmp_path / f"r{i}", x, y) for i, (x, y) in enumerate(zip((1, 2, 3, 6), (4, 3, 2, 1), strict=True))]
    [found] = drift.relations(collect.views(runs))
    assert (found.diagnostic, found.metric, found.n) == ("Loss on general words", "Model utility", 4)
    assert found.pearson == pytest.approx(-8 / 70**0.5)
    assert found.spearman == -1
    assert drift.relations(collect.views(runs[:3])) == []
    html = page.render(runs, tmp_path / "report.html").read_text(encoding="utf-8")
    cells = re.search(r"Loss on general words</th><td>Model utility</td>(.*?)</tr>", html)
    assert cells is not None
    assert re.findall(r">([^<]+)</td>", cells[1]) == ["-0.96", "-1.00", "4"]


def test_a_run_without_the_metric_or_the_diagnostic_is_not_counted(tmp_path: Path) -> None:
    runs = [judged(tmp_path / f"r{i}", i, float(i)) for i in range(4)] + [judged(tmp_path / "x", 9.0, None)]
    bare = runfolder.create(tmp_path / "y", "unlearn", name="y")
    bare.write_json("eval/unlearned/metrics.json", {"model_utility": {"agg_value": 0.1}})
    [found] = drift.relations(collect.views([*runs, tmp_path / "y"]))
    assert found.n == 4
    assert found.pearson == 1


def test_the_page_shows_the_curves_and_stays_whole_without(tmp_path: Path) -> None:
    folder = synthetic.demo(tmp_path / "demo", records=5, epochs=2)
    without = page.render([folder.path], tmp_path / "a.html").read_text(encoding="utf-8")
    assert "Over-forgetting" not in without
    run = runfolder.open(folder.path / "etw")
    run.write_lines(runfolder.DIAGNOSTICS, [{"epoch": e, "nll_unwanted_words": 0.1 + e} for e in range(3)])
    html = page.render([folder.path], tmp_path / "b.html", redact=True).read_text(encoding="utf-8")
    assert "Over-forgetting, epoch by epoch" in html
    assert 'data-key="diagnostics.nll_unwanted_words"' in html
    data = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)
    assert data is not None
    assert "diagnostics.nll_unwanted_words" in json.loads(data[1])["charts"]
