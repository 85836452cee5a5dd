from __future__ import annotations

from pathlib import Path

import pytest

from expunge import runfolder
from expunge.errors import RunFolderError
from expunge.report import text


def test_the_headline_fits_eighty_columns_and_says_the_four_numbers(demo: Path) -> None:
    shown = text.plain(text.headline([demo]), width=80)
    assert max(map(len, shown.splitlines())) <= 80
    for word in ("Forgotten?", "Extractable?", "Kept?", "Leaks?", "target", "oracle", "graddiff", "wga", "etw"):
        assert word in shown
    etw = next(line for line in shown.splitlines() if line.strip().startswith("etw"))
    assert etw.split()[:3] == ["etw", "0.113", "◆"]
    assert "[0.097, 0.129]" in shown


def test_the_full_table_has_every_metric_and_model(demo: Path) -> None:
    shown = text.plain(text.full([demo]), width=140)
    for word in (
        "Model utility",
        "Membership, zlib",
        "Truth ratio",
        "PrivLeak",
        "dim: not distinguishable from graddiff",
    ):
        assert word in shown
    [line] = [line for line in shown.splitlines() if "Model utility" in line]
    assert line.split()[2:] == ["0.600", "0.590", "0.410", "0.500", "0.560", "◆"]


def test_names_are_text_not_markup(tmp_path: Path) -> None:
    run = runfolder.create(tmp_path / "run", "unlearn", name="[red]x[/red]")
    run.write_json("eval/unlearned/metrics.json", {"model_utility": {"agg_value": 0.5}})
    assert "[red]x[/red]" in text.plain(text.headline([run.path]))


def test_a_run_without_metrics_gives_an_empty_table(tmp_path: Path) -> None:
    runfolder.create(tmp_path / "run", "unlearn", name="bare")
    assert "bare" in text.plain(text.headline([tmp_path / "run"]))
    assert "bare" in text.plain(text.full([tmp_path / "run"]))
    with pytest.raises(RunFolderError):
        text.headline([tmp_path])
