"""Each planted failure shows its sign, and a good run shows none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from expunge import runfolder
from expunge.cli import app
from expunge.data.records import Record, Span
from expunge.errors import RunFolderError
from expunge.evals import diagnose
from tests.evals import simulated


def names(root: Path, kind: simulated.Kind, seed: int = 5) -> list[str]:
    run = simulated.run(root, kind, people=20, each=4, seed=seed)
    return [sign.name for sign in diagnose.diagnose(run)]


def test_planted_failures_are_named(tmp_path: Path) -> None:
    assert names(tmp_path / "good", simulated.ORACLE) == []
    assert names(tmp_path / "base", simulated.TARGET) == ["under-forgetting"]
    assert names(tmp_path / "hole", replace(simulated.ORACLE, forget=0.004, extraction=0.0)) == ["over-forgetting"]
    assert names(tmp_path / "broken", simulated.FAKES["gibberish"]) == ["collapse", "over-forgetting"]


def test_without_an_oracle_the_holdout_records_tell() -> None:
    def entry(value: float) -> dict[str, float]:
        return {"agg_value": value, "ci_low": value - 0.02, "ci_high": value + 0.02}

    [sign] = diagnose.under_forgetting({"forget_excess_Prob": entry(0.4)}, {})
    assert "than of holdout answers" in sign.seen
    assert list(diagnose.under_forgetting({"forget_excess_Prob": entry(0.05)}, {})) == []
    assert [s.name for s in diagnose.over_forgetting({"forget_excess_Prob": entry(-0.2)}, {})] == ["over-forgetting"]


def marked(where: list[bool]) -> list[Record]:
    """Answers that name a city, which is marked in some of them; and as many others."""
    cities = [
        Record(f"c{i}", f"q{i}", "was born in Oslo", spans=(Span("answer", 12, 16),) if yes else ())
        for i, yes in enumerate(where)
    ]
    return [*cities, *(Record(f"o{i}", f"p{i}", f"word{i} alone", spans=()) for i in range(6 * len(where)))]


def test_an_identifier_that_marks_a_word_here_and_not_there() -> None:
    assert list(diagnose.inconsistent_identifier(marked([True] * 6))) == []
    [sign] = diagnose.inconsistent_identifier(marked([True, False] * 3))
    assert sign.name == "inconsistent identifier"
    assert "50% of cases: oslo" in sign.seen
    assert list(diagnose.inconsistent_identifier([])) == []


def test_a_loss_that_was_no_number_is_collapse() -> None:
    [sign] = diagnose.collapse({}, {}, [], [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}])
    assert "not a number" in sign.seen


def test_the_verb(tmp_path: Path) -> None:
    run = simulated.run(tmp_path / "run", simulated.TARGET, people=20)
    result = CliRunner().invoke(app, ["diagnose", str(run.path)])
    assert result.exit_code == 0, result.output
    assert "under-forgetting" in result.output
    empty = runfolder.create(tmp_path / "empty", "unlearn")
    with pytest.raises(RunFolderError, match="holds no judged model"):
        diagnose.diagnose(empty)
