from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from expunge import runfolder
from expunge.errors import RunFolderError
from expunge.report import heat

SVG = "{http://www.w3.org/2000/svg}"


def test_heat_is_relative_to_the_mean_by_hand() -> None:
    assert heat.relative([1, 1, 1, 1]).tolist() == pytest.approx([1 / 3] * 4)
    assert heat.relative([0, 0, 0, 4]).tolist() == [0, 0, 0, 1]
    assert heat.relative([0, 0]).tolist() == [0, 0]
    assert heat.relative([]).tolist() == []
    assert heat.relative([np.nan, 2.0]).tolist() == pytest.approx([0, 2 / 3])


def test_a_sentence_reads_as_its_tokens_and_strong_ones_have_the_strongest_ground() -> None:
    text = heat.sentence(["Born", " in", " Oslo", "."], [0.1, 0.1, 6.0, 0.0], [False, False, True, False])
    assert text.plain == "Born in Oslo."
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert styles["Oslo"] == "white on rgb(201,58,31) underline"
    assert "." not in styles, "nothing is drawn where there is no weight"


def test_without_colour_strong_tokens_are_marked() -> None:
    assert heat.sentence(["Born", " in", " Oslo"], [1, 1, 3], marks=True).plain == "Born in ‹Oslo›"
    assert heat.sentence(["a", " b"], [1, 1], marks=True).plain == "a b", "uniform weights mark nothing"


def test_terminal_escapes_in_tokens_are_written_out() -> None:
    assert heat.sentence(["\x1b[31mred", "[bold]"], [1, 1]).plain == "⟨U+001B⟩[31mred[bold]"


def test_the_picture_shows_before_weights_and_after(demo: Path, tmp_path: Path) -> None:
    out = heat.before_after(demo / "etw", tmp_path / "new" / "picture.svg", "forget-00003")
    root = ElementTree.parse(out).getroot()
    words = [node.text or "" for node in root.iter(f"{SVG}text") if (node.get("class") or "").startswith("w")]
    assert "".join(words[: len(words) // 3]).startswith("In2003,IlseVarnholtreceived")
    assert len(words) % 3 == 0
    labels = [node.text for node in root.iter(f"{SVG}text") if node.get("class") == "l"]
    assert labels == ["before", "weights", "after"]
    shades = [float(node.get("opacity") or 0) for node in root.iter(f"{SVG}rect") if node.get("class") == "h"]
    third = len(shades) // 3
    gold = [i for i, word in enumerate(words[:third]) if word in ("Golden", "Heron")]
    assert len(gold) == 2
    assert all(shades[i] > 0.8 for i in gold), "known before"
    assert all(shades[2 * third + i] < 0.2 for i in gold), "gone after"
    assert sum(1 for node in root.iter(f"{SVG}rect") if node.get("class") == "gold") == 4, (
        "one box a row and the legend"
    )
    assert "Where etw" not in out.read_text()


def test_everything_is_inside_the_picture(demo: Path, tmp_path: Path) -> None:
    root = ElementTree.parse(heat.before_after(demo / "etw", tmp_path / "p.svg")).getroot()
    width, height = map(float, (root.get("viewBox") or "").split()[2:])
    for node in root.iter(f"{SVG}rect"):
        x, y, w, h = (float(node.get(key) or 0) for key in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height + 1


def test_words_are_not_torn_at_the_end_of_a_line(tmp_path: Path) -> None:
    tokens = tuple(token for _ in range(30) for token in (" dump", "l", "ings", ","))
    gold = tuple(i % 4 < 3 for i in range(len(tokens)))
    root = ElementTree.parse(
        heat.picture([heat.Row("a", "b", tokens, (0.5,) * 120, gold)], tmp_path / "p.svg")
    ).getroot()
    boxes = [node for node in root.iter(f"{SVG}rect") if node.get("class") in ("h", "gold")]
    assert max(float(n.get("x") or 0) + float(n.get("width") or 0) for n in boxes) <= 880 - 28
    words = [node for node in root.iter(f"{SVG}text") if (node.get("class") or "").startswith("w")]
    lines: dict[str, list[str]] = {}
    for node in words:
        lines.setdefault(node.get("y") or "", []).append(node.text or "")
    assert all(line[0] == "dump" and line[-1] == "," for line in lines.values())


def test_a_long_sentence_wraps_and_text_is_escaped(tmp_path: Path) -> None:
    tokens = tuple(f" <w{i}&" for i in range(60))
    line = heat.Row("<b>", "&", tokens, (0.5,) * 60, (False,) * 60)
    root = ElementTree.parse(heat.picture([line], tmp_path / "p.svg", "<script>")).getroot()
    places = {node.get("y") for node in root.iter(f"{SVG}rect") if node.get("class") == "h"}
    assert len(places) > 2
    assert not list(root.iter(f"{SVG}script"))


def test_what_cannot_be_drawn_says_why(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"recorded no tokens of 'x'. There are: forget-00000"):
        heat.before_after(demo / "etw", tmp_path / "p.svg", "x")
    runfolder.create(tmp_path / "bare", "unlearn")
    with pytest.raises(RunFolderError, match=r"recorded no tokens \(tokens.parquet\)"):
        heat.before_after(tmp_path / "bare", tmp_path / "p.svg")
