"""Figures as files: each stands alone, says what its lines are, and becomes a PNG and a PDF."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from typer.testing import CliRunner

from expunge.cli import app
from expunge.report import export, page
from tests.report import synthetic
from tests.report.test_figures import study


def test_every_figure_stands_alone(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "can_convert", lambda: False)
    files = export.write(page.context([demo, study(tmp_path / "measured")]), tmp_path / "figures")
    names = {file.name for file in files}
    assert {"tradeoff.svg", "loss.svg", "weights-true.svg", "bars-privleak.svg", "study1-roc-gold.svg"} <= names
    for file in files:
        text = file.read_text(encoding="utf-8")
        ElementTree.fromstring(text)
        assert "var(" not in text
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    loss = (tmp_path / "figures" / "loss.svg").read_text(encoding="utf-8")
    assert all(f">{name}</text>" in loss for name in ("graddiff", "wga", "etw"))
    assert ".line.s0, .whisker.s0 { stroke: #0f6cab; }" in loss


def test_png_and_pdf_show_what_the_svg_shows(demo: Path, tmp_path: Path) -> None:
    pytest.importorskip("cairosvg", reason="the extra 'figures' is not installed")
    image = pytest.importorskip("PIL.Image")
    context = {**page.context([demo]), "charts": [], "drifts": [], "weights": [], "swept": [], "bars": []}
    files = {file.suffix: file for file in export.write(context, tmp_path)}
    assert set(files) == {".svg", ".png", ".pdf"}
    assert files[".pdf"].read_bytes().startswith(b"%PDF")
    with image.open(files[".png"]) as picture:
        assert picture.width == 520 * export.DOTS_PER_UNIT
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert {(255, 255, 255), (0x0F, 0x6C, 0xAB), (0xB0, 0x47, 0x8F)} <= colours, "paper and the runs' own colours"


@pytest.mark.browser
def test_a_figure_opens_in_a_browser(demo: Path, tmp_path: Path, chromium: object) -> None:
    export.write(page.context([demo]), tmp_path)
    tab = chromium.new_page()  # type: ignore[attr-defined]
    tab.goto((tmp_path / "tradeoff.svg").as_uri())
    assert tab.evaluate("getComputedStyle(document.querySelector('.dot.s0')).fill") == "rgb(15, 108, 171)"
    tab.close()


def test_the_verb_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cairosvg", None)
    folder = synthetic.demo(tmp_path / "demo", records=5, epochs=1, names=["etw"]).path
    result = CliRunner().invoke(app, ["report", str(folder), "--figures", str(tmp_path / "figures")])
    assert result.exit_code == 0, result.output
    assert "expunge[figures]" in result.output
    assert {file.suffix for file in (tmp_path / "figures").iterdir()} == {".svg"}
