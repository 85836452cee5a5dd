"""What a gate must ask, and that it is kept before the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from expunge import gate, runfolder
from expunge.errors import RecipeError

BOUNDS = (
    "conditions:\n- {metric: forget_Q_A_Prob, at_most: 0.2}\n- {metric: model_utility, at_least: 0.9, of: target}\n"
)


def write(folder: Path, text: str) -> Path:
    file = folder / "gate.yaml"
    file.write_text(text)
    return file


def test_a_gate_is_read(tmp_path: Path) -> None:
    found = gate.load(write(tmp_path, BOUNDS + "confidence: 0.9\ncommands:\n- {name: mine, run: 'true'}\n"))
    assert (found.claim, found.confidence, found.commands[0].name) == ("suppression", 0.9, "mine")
    assert [str(c) for c in found.conditions] == ["forget_Q_A_Prob <= 0.2", "model_utility >= 0.9 of the target's"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{}", "none says that the forget set is gone"),
        ("conditions:\n- {metric: forget_Q_A_Prob, at_most: 0.2}\n", "none says that the rest is kept"),
        ("claim: non-extraction\n" + BOUNDS, "no condition on extraction"),
        ("claim: indistinguishable\n" + BOUNDS, "needs an equivalence section"),
        ("claim: indistinguishable\nequivalence: {margin: 0.1, oracles: a}\n" + BOUNDS, "at least two oracles"),
        ("claim: indistinguishable\nequivalence: {margin: 0.1, oracles: [a, a]}\n" + BOUNDS, "at least two oracles"),
        (BOUNDS.replace("at_most: 0.2", "at_most: 0.2, at_least: 0.1"), "either at_most or at_least"),
        (BOUNDS + "confidnce: 0.9\n", "confidnce"),
        (BOUNDS + "confidence: 0.3\n", "confidence"),
        ("- a\n", "expected a mapping"),
    ],
)
def test_what_a_gate_lacks_is_said(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(RecipeError, match=fault):
        gate.load(write(tmp_path, text))


def test_a_run_keeps_the_gate_it_began_with(tmp_path: Path) -> None:
    file = write(tmp_path, BOUNDS)
    run = runfolder.create(tmp_path / "run", "evaluate")
    gate.keep(run, BOUNDS)
    assert run.manifest["gate"] == {"hash": gate.file_hash(file), "registered": run.manifest["created"]}
    assert run.file(runfolder.GATE).read_text() == BOUNDS
