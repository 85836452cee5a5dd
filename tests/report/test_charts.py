from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from expunge.report import charts
from expunge.report.charts import Mark, Scale, Series


def test_scale_and_ticks_by_hand() -> None:
    scale = Scale(0.0, 10.0, 100.0, 200.0)
    assert [scale(v) for v in (0, 2.5, 10)] == [100, 125, 200]
    assert scale.ticks(5) == [0, 2, 4, 6, 8, 10]
    assert Scale(-0.35, 0.4, 0, 1).ticks(4) == pytest.approx([-0.2, 0, 0.2, 0.4])
    assert Scale(0, 2e-5, 0, 1).ticks(4) == pytest.approx([0, 5e-6, 1e-5, 1.5e-5, 2e-5])


def test_a_line_breaks_where_a_value_is_missing() -> None:
    chart = charts.lines("k", "Loss", [Series("a", 0, [0, 1, 2, 3], [1.0, None, 2.0, 3.0])], "step")
    assert chart is not None
    [path] = re.findall(r' d="([^"]+)"', str(chart.svg))
    assert path.count("M") == 2
    assert path.count("L") == 1


def test_nothing_to_draw_is_no_chart() -> None:
    assert charts.lines("k", "t", [Series("a", 0, [0, 1], [None, None]), Series("b", 1, [], [])], "step") is None


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [1e-300, 1e300], [-1e9, 1e-9], [0.0, 0.0, 0.0]])
def test_any_finite_numbers_make_a_well_formed_chart(values: list[float]) -> None:
    chart = charts.lines("k", "t", [Series("a", 0, list(range(len(values))), values)], "step")
    assert chart is not None
    ElementTree.fromstring(str(chart.svg))
    assert "nan" not in str(chart.svg)
    assert "inf" not in str(chart.svg)


def test_a_long_log_keeps_its_spikes_and_stays_small() -> None:
    y: list[float | None] = [0.0] * 100_000
    y[54_321] = 9.0
    y[77_777] = -4.0
    chart = charts.lines("k", "t", [Series("a", 0, list(range(100_000)), y)], "step")
    assert chart is not None
    [told] = chart.data["series"]
    assert max(told["y"]) == 9.0
    assert min(told["y"]) == -4.0
    assert len(told["x"]) <= charts.MAX_POINTS
    assert len(str(chart.svg)) < 8_000


def test_many_runs_share_the_points_of_a_few() -> None:
    runs = [Series(f"run {i}", i, list(range(1000)), [float(j % 7) for j in range(1000)]) for i in range(30)]
    chart = charts.lines("k", "t", runs, "step")
    assert chart is not None
    assert sum(len(told["x"]) for told in chart.data["series"]) <= charts.MAX_POINTS * charts.MANY_LINES


def test_shares_are_drawn_from_zero_to_one_unless_they_leave_it() -> None:
    def labels(y: list[float | None]) -> list[str]:
        chart = charts.lines("k", "t", [Series("a", 0, [0.0, 1.0], y)], "step", within=(0.0, 1.0))
        assert chart is not None
        return re.findall(r'text-anchor="end">([^<]+)<', str(chart.svg))[:-1]

    assert labels([0.4, 0.5]) == ["0", "0.25", "0.5", "0.75", "1"]
    assert labels([0.4, 1.5])[-1] == "1.5"


def test_names_are_escaped_everywhere() -> None:
    evil = '"><script>alert(1)</script>'
    chart = charts.lines("k", evil, [Series(evil, 0, [0, 1], [1.0, 2.0])], evil, evil)
    assert chart is not None
    mark = Mark(evil, "s0", 0.5, 0.4, 0.6)
    for svg in (chart.svg, charts.strip(mark, (0, 1), mark), charts.scatter(evil, evil, evil, [(mark, mark)])):
        assert "<script" not in str(svg)
        ElementTree.fromstring(str(svg))


def test_no_drawing_carries_a_style_attribute() -> None:
    mark = Mark("oracle", "oracle", 0.5, 0.4, 0.6)
    chart = charts.lines("k", "t", [Series("a", 0, [0, 1], [1.0, 2.0])], "x")
    assert chart is not None
    for svg in (chart.svg, charts.strip(mark, (0, 1), mark), charts.scatter("t", "x", "y", [(mark, mark)])):
        assert "style=" not in str(svg)


def test_the_strip_puts_value_interval_and_band_where_they_belong() -> None:
    svg = str(charts.strip(Mark("a", "s0", 0.5, 0.25, 0.75), (0.0, 1.0), Mark("o", "oracle", 0.1, 0.0, 0.2)))
    assert 'cx="110.0"' in svg, "the middle of 7 to 213"
    assert 'x1="58.5" x2="161.5"' in svg
    assert re.search(r'class="band" x="6.0" y="0" width="43.2"', svg)


def test_strip_domains() -> None:
    assert charts.strip_domain([Mark("a", "s0", 0.2), Mark("b", "s1", 0.9, 0.8, 1.0)]) == (0.0, 1.0)
    low, high = charts.strip_domain([Mark("a", "s0", -60.0, -70.0, -50.0)])
    assert low < -70
    assert high > 0, "zero is in sight"


def test_labels_of_close_points_do_not_cover_each_other() -> None:
    marks = [(Mark(f"run {i}", f"s{i}", 0.5), Mark(f"run {i}", f"s{i}", 0.5 + i / 1e6)) for i in range(9)]
    svg = str(charts.scatter("t", "x", "y", [*marks, (Mark("far", "s0", 0.9), Mark("far", "s0", 0.9))]))
    places = [float(y) for y in re.findall(r'class="name" x="[^"]+" y="([^"]+)"', svg)]
    assert len(places) >= 3
    assert min(abs(a - b) for i, a in enumerate(places) for b in places[:i]) >= 13
    assert ">far<" in svg
