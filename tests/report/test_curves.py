from __future__ import annotations

from pathlib import Path

from expunge import runfolder
from expunge.report import collect, curves


def logged(path: Path, *lines: dict[str, object]) -> collect.View:
    run = runfolder.create(path, "unlearn", name=path.name)
    run.write_lines("log.jsonl", lines)
    return collect.views([path])[0]


def test_every_quantity_and_every_term_gets_a_chart(demo: Path) -> None:
    drawn = curves.draw(collect.views([demo]))
    assert [chart.title for chart in drawn] == [
        "Loss",
        "Term: ga",
        "Term: nll",
        "Gradient norm",
        "Weight on gold tokens",
        "Tokens selected",
        "Distance from the start",
        "Learning rate",
    ]
    assert curves.missing(drawn) == []
    assert [series["name"] for series in drawn[0].data["series"]] == ["graddiff", "wga", "etw"]
    assert drawn[0].data["x"] == "epoch"


def test_what_was_not_logged_is_named(tmp_path: Path) -> None:
    drawn = curves.draw([logged(tmp_path / "a", {"step": 1, "loss": 2.0}, {"step": 2, "loss": None})])
    assert [chart.key for chart in drawn] == ["loss"]
    assert drawn[0].data["x"] == "step"
    assert "Gradient norm" in curves.missing(drawn)


def test_runs_keep_their_colour_where_one_has_no_log(tmp_path: Path) -> None:
    runfolder.create(tmp_path / "a", "unlearn", name="a")
    logged(tmp_path / "b", {"step": 1, "loss": 2.0})
    [chart] = curves.draw(collect.views([tmp_path / "a", tmp_path / "b"]))
    assert [series["style"] for series in chart.data["series"]] == [1]


def test_drift_by_layer_is_the_last_that_was_logged(tmp_path: Path) -> None:
    views = [
        logged(
            tmp_path / "a", {"drift_by_layer": {"l0": 1.0}}, {"drift_by_layer": {"l0": 2.0, "l1": 0.5}}, {"step": 3}
        ),
        logged(tmp_path / "b", {"step": 1}),
    ]
    assert curves.drift_by_layer(views) == [("l0", [2.0, None]), ("l1", [0.5, None])]


def test_effort_is_summed_from_the_log(tmp_path: Path) -> None:
    lines = [{"step": i, "tokens": 100, "seconds": 30.0, "flat": 1, "empty": 0} for i in (1, 2, 3)]
    assert curves.effort(logged(tmp_path / "a", *lines)) == {
        "steps": "3",
        "tokens trained on": "300",
        "sequences with flat scores": "3",
        "sequences with nothing selected": "0",
        "time in steps": "1 min 30 s",
    }
    assert curves.effort(logged(tmp_path / "b")) == {}
