"""Verdicts: the four fixtures, each rule by hand, and how often a model that must not pass does pass."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from expunge import gate as gates
from expunge import runfolder
from expunge.cli import app
from expunge.errors import RunFolderError
from expunge.evals import verdict
from expunge.evals.verdict import Evidence, Finding
from expunge.gate import Gate
from tests.evals import simulated

CONDITIONS = [
    {"metric": "forget_Q_A_Prob", "at_most": 0.2},
    {"metric": "extraction_strength", "at_most": 0.15},
    {"metric": "model_utility", "at_least": 0.9, "of": "target"},
]
YAML = """
claim: non-extraction
conditions:
- {metric: forget_Q_A_Prob, at_most: 0.3}
- {metric: extraction_strength, at_most: 0.25}
- {metric: retain_Q_A_Prob, at_least: 0.8, of: target}
"""


def gate(**more: object) -> Gate:
    return Gate.model_validate({"claim": "non-extraction", "conditions": CONDITIONS, **more})


def number(value: float, low: float, high: float, n: int = 100, **more: object) -> dict[str, object]:
    return {"agg_value": value, "ci_low": low, "ci_high": high, "n": n, "optimistic": False, **more}


def one(entry: dict[str, object] | None, condition: dict[str, object], **others: dict[str, object]) -> Finding:
    rest = [{"metric": "model_utility", "at_least": 0.0}, {"metric": "forget_Q_A_Prob", "at_most": 1.0}]
    asked = Gate.model_validate({"conditions": [condition, *rest]})
    own = {} if entry is None else {str(condition["metric"]): entry}
    others_ = {name: {str(condition["metric"]): value} for name, value in others.items()}
    seen = Evidence(own, others_.get("target", {}), others_.get("oracle", {}), {}, {})
    return verdict.decide(asked, seen)[0]


@pytest.mark.parametrize(
    ("low", "high", "outcome"), [(0.1, 0.2, "PASS"), (0.21, 0.3, "FAIL"), (0.1, 0.21, "INCONCLUSIVE")]
)
def test_a_bound_is_decided_by_the_interval(low: float, high: float, outcome: str) -> None:
    found = one(number(0.15, low, high), {"metric": "forget_Q_A_Prob", "at_most": 0.2})
    assert found.outcome == outcome
    assert "n = 100" in found.reason


def test_what_cannot_be_decided_says_why() -> None:
    bound = {"metric": "forget_Q_A_Prob", "at_most": 0.9}
    for entry, why in (
        (None, "was not measured"),
        (number(0.1, 0.0, 0.2, n=19), "19 items, of 20 needed"),
        (number(0.1, 0.0, 0.2, optimistic=True), "fewer than 8 subjects"),
        (number(0.1, 0.0, 0.2, void=True, why="words"), "is void: words"),
        ({**number(0.1, 0.0, 0.2), "ci_low": None}, "has no interval"),
    ):
        found = one(entry, bound)
        assert found.outcome == "INCONCLUSIVE"
        assert why in found.reason
    relative = one(number(0.8, 0.7, 0.9), {"metric": "model_utility", "at_least": 0.9, "of": "target"})
    assert "the target was not judged" in relative.reason


def test_a_relative_bound_by_hand() -> None:
    # .9 * .8 = .72: the difference is .08, low = .08 - sqrt(.03^2 + (.9 * .04)^2) = .0331
    own, target = number(0.8, 0.77, 0.83), number(0.8, 0.76, 0.84)
    found = one(own, {"metric": "model_utility", "at_least": 0.9, "of": "target"}, target=target)
    assert found.outcome == "PASS"
    assert "0.08 [0.0331, 0.127]" in found.reason
    worn = one(number(0.6, 0.57, 0.63), {"metric": "model_utility", "at_least": 0.9, "of": "target"}, target=target)
    assert worn.outcome == "FAIL"


def test_one_failure_fails_and_one_doubt_prevents_a_pass() -> None:
    yes, no, doubt = (Finding("x", outcome, "") for outcome in ("PASS", "FAIL", "INCONCLUSIVE"))  # type: ignore[arg-type]
    assert verdict.overall([yes, yes]) == "PASS"
    assert verdict.overall([yes, doubt]) == "INCONCLUSIVE"
    assert verdict.overall([doubt, no, yes]) == "FAIL"


def test_the_four_fixtures(tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text(YAML)
    base = verdict.of_run(simulated.run(tmp_path / "base", simulated.TARGET).path, file, resamples=100)
    assert base.outcome == "FAIL"
    assert [f.outcome for f in base.findings] == ["FAIL", "FAIL", "PASS"]
    broken = verdict.of_run(simulated.run(tmp_path / "x", simulated.FAKES["gibberish"]).path, file, resamples=100)
    assert broken.outcome == "FAIL"
    assert [f.outcome for f in broken.findings] == ["PASS", "PASS", "FAIL"], "it says nothing, and knows nothing"
    oracle = simulated.run(tmp_path / "oracle", simulated.ORACLE, seed=5)
    assert verdict.of_run(oracle.path, file, resamples=100).outcome == "PASS"
    few = verdict.of_run(simulated.run(tmp_path / "few", simulated.ORACLE, people=10, each=1).path, file, resamples=100)
    assert few.outcome == "INCONCLUSIVE"
    assert "10 items, of 20 needed" in few.findings[0].reason
    assert runfolder.verify(oracle.path) == [], "the verdict is under the run's seal"


def test_the_verb_ends_with_the_verdict_s_code_and_tells_a_gate_that_came_later(tmp_path: Path) -> None:
    file = tmp_path / "gate.yaml"
    file.write_text(YAML)
    run = simulated.run(tmp_path / "run", simulated.ORACLE, seed=5)
    later = CliRunner().invoke(app, ["verdict", str(run.path), "--gate", str(file), "--resamples", "100"])
    assert later.exit_code == 0, later.output
    assert "PASS" in later.output
    assert "is not the one the run began with" in " ".join(later.output.split())
    assert run.read_json(runfolder.VERDICT)["registered"] is False
    gates.keep(run, YAML)
    before = CliRunner().invoke(app, ["verdict", str(run.path), "--resamples", "100"])
    assert "was kept in the run before it began" in " ".join(before.output.split())
    assert run.read_json(runfolder.VERDICT)["registered"] is True
    assert run.read_json(runfolder.VERDICT)["gate_hash"] == gates.file_hash(file)
    file.write_text(YAML.replace("0.3}", "0.05}"))
    assert CliRunner().invoke(app, ["verdict", str(run.path), "--gate", str(file)]).exit_code == 1
    without = simulated.run(tmp_path / "none", simulated.ORACLE)
    with pytest.raises(RunFolderError, match="was begun without a gate"):
        verdict.of_run(without.path)


def test_a_command_of_one_s_own_is_a_condition(tmp_path: Path) -> None:
    run = runfolder.create(tmp_path / "run", "evaluate")
    python = sys.executable
    code = "import os, sys; sys.exit(os.environ['EXPUNGE_MODEL'] != os.path.join(os.environ['EXPUNGE_RUN'], 'model'))"
    commands = [
        {"name": "right", "run": f'{python} -c "{code}"'},
        {"name": "wrong", "run": f'{python} -c "raise SystemExit(3)"'},
        {"name": "slow", "run": f'{python} -c "import time; time.sleep(60)"', "timeout": 0.2},
        {"name": "absent", "run": "/no/such/program"},
    ]
    found = list(verdict._commands(gate(commands=commands), run))
    assert [f.outcome for f in found] == ["PASS", "FAIL", "INCONCLUSIVE", "INCONCLUSIVE"]
    assert found[1].reason == "exit code 3"


def test_commands_that_came_with_a_run_folder_are_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "it ran"
    run = simulated.run(tmp_path / "run", simulated.ORACLE, seed=5)
    gates.keep(run, YAML + f"commands:\n- {{name: theirs, run: 'touch \"{mark}\"'}}\n")
    found = verdict.of_run(run.path, resamples=100)
    assert (found.outcome, mark.exists()) == ("INCONCLUSIVE", False)
    assert "came with the run folder" in found.findings[-1].reason
    assert verdict.of_run(run.path, resamples=100, ours=True).outcome == "PASS"
    assert mark.exists()


def test_equivalence_needs_two_oracles_that_agree() -> None:
    base = np.random.default_rng(0).random(60)
    ids = [f"i{k}" for k in range(60)]

    def table(shift: float, noise: int) -> dict[str, dict[str, float]]:
        wobble = np.random.default_rng(noise).normal(0, 0.02, 60)
        return {"m": dict(zip(ids, (base + shift + wobble).tolist(), strict=True))}

    asked = gates.Equivalence(metrics=("m",), margin=0.1, oracles=("a", "b"))
    own = gate()
    near = Evidence({}, {}, {}, table(0.01, 1), {})
    oracles = [table(0.0, 2), table(0.005, 3)]
    assert verdict.equivalent("m", own, asked, near, oracles).outcome == "PASS"
    assert verdict.equivalent("m", own, asked, near, oracles[:1]).outcome == "INCONCLUSIVE"
    far = replace(near, items=table(0.4, 1))
    assert verdict.equivalent("m", own, asked, far, oracles).outcome == "FAIL"
    apart = verdict.equivalent("m", own, asked, near, [table(0.0, 2), table(0.3, 3)])
    assert "from each other" in apart.reason
    unsure = verdict.equivalent("m", own, asked, near, [table(0.0, 2), table(0.09, 3)])
    assert unsure.outcome == "INCONCLUSIVE", "two seeds that differ by .09 do not tell where a third would be"


def calibrate(fakes: int, oracles: int) -> tuple[int, int, dict[str, int]]:
    """(fakes that pass, oracles that pass, fakes that pass by kind)."""
    asked = gate()
    passed = dict.fromkeys(simulated.FAKES, 0)
    for index in range(fakes):
        name = list(simulated.FAKES)[index % len(simulated.FAKES)]
        seen = simulated.evidence(simulated.FAKES[name], index)
        passed[name] += verdict.overall(verdict.decide(asked, seen)) == "PASS"
    right = sum(
        verdict.overall(verdict.decide(asked, simulated.evidence(simulated.ORACLE, 10_000 + k))) == "PASS"
        for k in range(oracles)
    )
    return sum(passed.values()), right, passed


def test_fakes_do_not_pass() -> None:
    fakes, oracles, by_kind = calibrate(60, 12)
    assert fakes <= 2, by_kind
    assert oracles >= 10


@pytest.mark.slow
def test_the_rate_of_false_passes_over_three_hundred_fakes(capsys: pytest.CaptureFixture[str]) -> None:
    fakes, oracles, by_kind = calibrate(300, 100)
    bound = simulated.upper_bound(fakes, 300)
    with capsys.disabled():
        print(
            f"\nfalse passes: {fakes} of 300 {by_kind}, at most {bound:.1%} (95 %); oracles that pass: {oracles} of 100"
        )
    assert bound <= 0.05
    assert oracles >= 90
