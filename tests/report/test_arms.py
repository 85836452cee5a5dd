"""The comparison of arms on the page: sorted by keyboard, controls with their methods, and its files."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from expunge import comparison
from expunge.report import collect, page
from tests.report import synthetic
from tests.report.test_browser import Open, show
from tests.test_comparison import METRIC, made

__all__ = ["show"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two methods and a control of the second; forgetting .6, .1 and .8, the control's utility unknown to differ."""
    root, rng = tmp_path_factory.mktemp("arms"), np.random.default_rng(0)
    base = rng.uniform(-0.05, 0.05, 20)
    levels = (("graddiff", "none", 0.6, 0.5), ("etw", "none", 0.1, 0.5), ("etw+random", "random", 0.8, 0.7))
    return [made(root, name, 0, list(base + level), kept, control).path for name, control, level, kept in levels]


@pytest.fixture(scope="module")
def report(study: list[Path]) -> Path:
    return page.render(study, study[0].parent / "report.html", comparing=comparison.for_page)


def names(tab: object) -> list[str]:
    found: list[str] = tab.locator(".sortable tbody th").all_inner_texts()  # type: ignore[attr-defined]
    return found


@pytest.mark.browser
def test_it_sorts_by_keyboard_and_controls_stay_with_their_method(report: Path, show: Open) -> None:
    tab = show(report)
    assert names(tab) == ["graddiff", "etw", "etw+random"]
    head = tab.locator(".sortable thead th").nth(1)
    head.locator("button").focus()
    tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert names(tab) == ["etw", "etw+random", "graddiff"], "the control is the largest, but goes with its method"
    tab.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "descending"
    assert names(tab) == ["graddiff", "etw", "etw+random"]
    tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") is None
    tab.locator(".sortable thead button").first.click()
    assert head.get_attribute("aria-sort") is None
    assert names(tab) == ["etw", "etw+random", "graddiff"]


@pytest.mark.browser
def test_the_files_can_be_saved(report: Path, show: Open, tmp_path: Path) -> None:
    tab = show(report)
    with tab.expect_download() as waiting:
        tab.get_by_role("link", name="CSV").click()
    waiting.value.save_as(tmp_path / "saved.csv")
    assert waiting.value.suggested_filename == "comparison.csv"
    with (tmp_path / "saved.csv").open() as stream:
        assert {row["arm"] for row in csv.DictReader(stream)} == {"graddiff", "etw", "etw+random"}


def test_the_page_holds_the_same_numbers_as_the_files(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    links = dict(re.findall(r'<a download="comparison\.(\w+)" href="data:[^,]+,([^"]+)"', text))
    files = {ending: base64.b64decode(packed.replace("&#43;", "+")).decode() for ending, packed in links.items()}
    assert set(files) == {"csv", "json", "tex"}
    rows = list(csv.DictReader(io.StringIO(files["csv"])))
    assert len(rows) == len(json.loads(files["json"])["rows"]) == 6
    for row in rows:
        assert f'data-value="{row["value"]}"' in text
    assert "\\quad etw+random" in files["tex"]


def test_what_cannot_be_told_apart_is_grey(study: list[Path]) -> None:
    found = comparison.for_page(collect.views(study))
    by_name = {row.name: row for row in found.rows}
    assert [row.control for row in found.rows] == [False, False, True]
    assert by_name["etw"].family == by_name["etw+random"].family != by_name["graddiff"].family
    forgetting, kept = by_name["etw"].cells
    assert forgetting is not None
    assert kept is not None
    assert not forgetting.same
    assert kept.same, "utility .5 against .5"


def test_latex_by_hand(tmp_path: Path) -> None:
    runs = [made(tmp_path, "graddiff", 0, [0.4, 0.6], 0.5).path, made(tmp_path, "etw", 0, [0.2, 0.2], 0.5).path]
    lines = comparison.as_latex(comparison.compare_runs(runs, metrics=["model_utility"])).splitlines()
    assert lines[1:5] == [r"\begin{tabular}{lr}", r"\toprule", r" & Model utility \\", r"\midrule"]
    assert lines[5] == r"graddiff & 0.500 {\scriptsize [0.480, 0.520]} \\"
    assert lines[6] == r"etw & \textcolor{gray}{0.500 {\scriptsize [0.480, 0.520]}} \\"
    assert comparison._tex("a_b & 5 % −1") == r"a\_b \& 5 \% $-$1"
    assert METRIC not in "".join(lines)


def test_one_run_has_no_comparison_and_redacted_names_are_in_no_file(tmp_path: Path) -> None:
    assert "Arms compared" not in page.render(
        [synthetic.demo(tmp_path / "one", records=5, epochs=1, names=["etw"]).path],
        tmp_path / "one.html",
        comparing=comparison.for_page,
    ).read_text(encoding="utf-8")
    folder = synthetic.demo(tmp_path / "demo", records=5, epochs=1, names=["etw", "wga"])
    secret = synthetic.facts("forget", 1)[0].answer
    for run in collect.expand([folder.path])[:1]:
        run.update(name=f"forget {secret}")
    text = page.render([folder.path], tmp_path / "r.html", redact=True, comparing=comparison.for_page).read_text()
    assert "Arms compared" in text
    for packed in re.findall(r'href="data:[^,]+,([^"]+)"', text):
        assert secret not in base64.b64decode(packed.replace("&#43;", "+")).decode()
