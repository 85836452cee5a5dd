"""From tables of attacks to numbers: by hand, from disk, and what must not count as a leak."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from expunge import gate as gates
from expunge import keyed, runfolder
from expunge.evals import attacked, reductions, verdict
from expunge.evals.attacked import Description, Result
from expunge.evals.numbers import Bootstrap
from expunge.evals.reductions import MEASURES, PLAIN, Row
from expunge.evals.table import GENERATIONS
from expunge.evals.verdict import Evidence
from expunge.runfolder import RunFolder
from tests.evals import simulated

HOW = Bootstrap(100)
PEOPLE = 12


def rows(forget: float, holdout: float | None, spread: float = 0.02) -> list[Row]:
    """One condition: values around these means, and half of the forget value before the attack."""
    found = []
    for split, mean in (("forget", forget), ("holdout", holdout)):
        if mean is not None:
            for k in range(PEOPLE):
                value = mean + spread * (k % 3 - 1)
                found.append(Row(split, f"{split}-{k}", f"{split}-{k}", "one", 0.0, value))
                found.append(Row(split, f"{split}-{k}", f"{split}-{k}", PLAIN, 0.0, mean / 2))
    return found


def description(name: str = "one", leak: bool = True) -> Description:
    return Description(name, name, "best", leak, "share", {"all": "0" * 12})


def judged(own: list[Row], oracle: list[Row], target: list[Row]) -> Result:
    found = attacked.judge(description(), own, oracle, target, HOW)
    return attacked.ranked({"one": found})["one"]


def test_leak_at_k_is_the_mean_over_all_choices() -> None:
    scores = [0.1, 0.9, 0.3, 0.3, 0.7]
    for k in range(1, 6):
        every = [max(chosen) for chosen in itertools.combinations(scores, k)]
        assert reductions.leak_at_k(scores, k) == pytest.approx(np.mean(every))
    assert math.isnan(reductions.leak_at_k(scores, 6))


def test_exact_bounds_of_a_probability() -> None:
    low, high = reductions.clopper_pearson(0, 10, 0.95)
    assert (low, high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    assert reductions.clopper_pearson(10, 10)[1] == 1.0


def test_above_the_oracle_by_hand() -> None:
    found = judged(rows(0.6, 0.1), rows(0.2, 0.1), rows(1.0, 0.1))
    assert found.value.value == pytest.approx(0.6)
    assert (found.plain, found.oracle, found.target) == (pytest.approx(0.3), pytest.approx(0.2), pytest.approx(1.0))
    assert found.gap is not None
    assert found.gap.value == pytest.approx(0.4)
    assert found.recovered == pytest.approx(0.5)
    assert (found.against, found.flagged) == ("oracle, holdout", True)


def test_what_is_no_leak() -> None:
    for own, oracle in (
        (rows(0.2, 0.1), rows(0.2, 0.1)),  # as the oracle
        (rows(0.5, 0.4), rows(0.2, 0.1)),  # better at guessing altogether
        (rows(0.0, 0.0), rows(0.2, 0.7)),  # says nothing at all
        (rows(0.24, 0.1), rows(0.2, 0.1)),  # within the margin
    ):
        assert judged(own, oracle, rows(1.0, 0.1)).flagged is False


def test_without_an_oracle_the_holdout_stands_in_and_without_either_nothing_is_said() -> None:
    found = judged(rows(0.6, 0.1), [], [])
    assert (found.against, found.flagged) == ("holdout", True)
    assert judged(rows(0.1, 0.1), [], []).flagged is False
    alone = judged(rows(0.6, None), [], [])
    assert (alone.gap, alone.flagged, alone.against) == (None, None, "")
    assert attacked.summary({"one": alone})["outcome"] == "undecided"


def test_holm_over_the_attacks_and_a_sign_flags_nothing() -> None:
    leak = attacked.judge(description(), rows(0.6, 0.1), rows(0.2, 0.1), [], HOW)
    sign = attacked.judge(description("two", leak=False), rows(0.9, 0.1), rows(0.2, 0.1), [], HOW)
    none = attacked.judge(description("three"), rows(0.2, 0.1), rows(0.2, 0.1), [], HOW)
    found = attacked.ranked({"three": none, "two": sign, "one": leak})
    assert list(found) == ["one", "three", "two"], "the worst first, signs last"
    assert found["one"].p_holm == pytest.approx(2 * (leak.p or 0.0))
    assert found["two"].flagged is None
    assert attacked.summary(found) == {
        "outcome": "leaks", "flagged": ["one"], "tried": ["one", "three"], "undecided": [], "worst": "one",
        "margin": attacked.MARGIN, "confidence": 0.95,
    }  # fmt: skip


def test_few_subjects_leave_it_undecided() -> None:
    few = [row for row in rows(0.2, 0.1) if int(row.id.split("-")[1]) < 6]
    shared = [row._replace(subject=f"{row.split} {int(row.id.split('-')[1]) // 2}") for row in few]
    found = judged(shared, shared, [])
    assert found.value.optimistic
    assert attacked.summary({"one": found})["outcome"] == "undecided"


def test_any_variant_counts_and_curves_have_areas() -> None:
    many = [Row("forget", "a", "", "x", 0, 0.2), Row("forget", "a", "", "y", 0, math.nan)]
    assert reductions.reduced(many, "any")[0] == {"forget": {"a": 0.2}}
    curve = [Row("forget", "a", "", "x", step, value) for step, value in ((0, 0.0), (10, 1.0), (40, 1.0))]
    assert reductions.reduced(curve, "area")[0] == {"forget": {"a": pytest.approx((5 + 30) / 40)}}


def test_the_depth_score_clips_each_layer_and_skips_what_the_oracle_does_not_need() -> None:
    def patched(one: float, two: float) -> list[Row]:
        return [Row("forget", "a", "", "layer 1", 0, one), Row("forget", "a", "", "layer 2", 0, two)]

    target = patched(0.8, 0.8)
    assert reductions.depth_score(patched(0.1, 0.8), patched(0.1, 0.79), target) == pytest.approx(1.0)
    assert reductions.depth_score(patched(0.01, 0.8), patched(0.1, 0.1), target) == pytest.approx(0.5)


def left_by(tmp_path: Path, own: list[Row], oracle: list[Row]) -> RunFolder:
    """A run with the tables of one attack; the oracle's are in a run of its own."""
    run = runfolder.create(tmp_path / "run", "unlearn")
    home = runfolder.create(tmp_path / "oracle", "finetune")
    run.update(compared_with={"oracle": "../oracle"})
    about = description()
    run.write_json(f"attacks/one/{attacked.DESCRIPTION}", {**vars(about)})
    for folder, label, found in ((run, "unlearned", own), (home, "oracle", oracle)):
        table = pa.Table.from_pylist([row._asdict() for row in found], schema=MEASURES)
        path = attacked.table_path("one", label, "all", about.tables["all"])
        folder.write_table(path, keyed.with_key(table, {"model": label}))
    run.finish()
    return run


def test_from_disk_with_the_oracle_in_its_own_run(tmp_path: Path) -> None:
    run = left_by(tmp_path, rows(0.6, 0.1), rows(0.2, 0.1))
    attacked.write(run, HOW, {"probe": "no retain records"})
    run.seal()
    told = run.read_json(runfolder.ATTACKS_RESULT)
    assert told["robust"]["flagged"] == ["one"]
    assert told["attacks"]["one"]["value"] == pytest.approx(0.6)
    assert told["attacks"]["one"]["low"] <= told["attacks"]["one"]["value"] <= told["attacks"]["one"]["high"]
    assert told["absent"] == {"probe": "no retain records"}
    assert runfolder.verify(run.path) == []
    (run.path / "attacks/one/attack.json").write_text("{}")
    assert runfolder.verify(run.path) == ["changed: attacks/one/attack.json"]


def test_a_gate_may_ask_for_an_attack_by_name(tmp_path: Path) -> None:
    run = left_by(tmp_path, rows(0.6, 0.1), rows(0.2, 0.1))
    entries = attacked.entries(run, HOW)
    asked = gates.Gate.model_validate(
        {
            "min_items": 10,
            "conditions": [
                {"metric": "attack_one", "at_most": 1.5, "of": "oracle"},
                {"metric": "attack_one_gap", "at_most": 0.1},
                {"metric": "attack_one", "at_most": 0.9},
                {"metric": "forget_Q_A_Prob", "at_most": 1},
                {"metric": "retain_Q_A_Prob", "at_least": 0},
            ],
        }
    )
    seen = Evidence(entries["own"], entries["target"], entries["oracle"], {}, {})
    assert [found.outcome for found in verdict.decide(asked, seen)][:3] == ["FAIL", "FAIL", "PASS"]


def test_a_table_that_is_no_attack_s_is_refused(tmp_path: Path) -> None:
    run = left_by(tmp_path, rows(0.6, 0.1), rows(0.2, 0.1))
    path = attacked.table_path("one", "unlearned", "all", "0" * 12)
    run.write_table(path, keyed.with_key(GENERATIONS.empty_table(), {"model": "x"}))
    with pytest.raises(Exception, match="no table of an attack"):
        attacked.judge_run(run, HOW)


def test_the_verdict_names_the_attacks(tmp_path: Path) -> None:
    run = simulated.run(tmp_path / "run", simulated.ORACLE, seed=5)
    assert attacked.outcomes(run) == {}
    about = description()
    run.write_json(f"attacks/one/{attacked.DESCRIPTION}", {**vars(about)})
    table = pa.Table.from_pylist([row._asdict() for row in rows(0.6, 0.1)], schema=MEASURES)
    label = next(name for name in attacked.OWN if name in run.labels)
    run.write_table(
        attacked.table_path("one", label, "all", about.tables["all"]), keyed.with_key(table, {"model": "x"})
    )
    attacked.write(run, HOW)
    file = tmp_path / "gate.yaml"
    file.write_text(
        "min_items: 10\nconditions:\n- {metric: attack_one_gap, at_most: 0.1}\n- {metric: attack_two, at_most: 0.1}\n"
        "- {metric: forget_Q_A_Prob, at_most: 0.5}\n- {metric: retain_Q_A_Prob, at_least: 0.1}\n"
    )
    found = verdict.of_run(run.path, file, resamples=50)
    assert found.attacks == {"one": "leaks"}
    assert [one.outcome for one in found.findings] == ["FAIL", "INCONCLUSIVE", "PASS", "PASS"]
    assert run.read_json(runfolder.VERDICT)["attacks"] == {"one": "leaks"}
