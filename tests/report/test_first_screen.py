"""What the first screen says beyond the metrics: the verdict, what attacks brought back, and which runs are drawn."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from expunge import comparison, runfolder
from expunge.report import arms, cards, collect, page, robust, verdicts
from expunge.runfolder import RunFolder
from tests.report import synthetic
from tests.report.synthetic import FOUND, attacked, judged
from tests.report.test_page import Reader


@pytest.fixture
def run(demo: Path, tmp_path: Path) -> RunFolder:
    """A run that may be written into, beside its target and oracle."""
    for name in ("target", "oracle", "etw", "wga"):
        shutil.copytree(demo / name, tmp_path / name)
    return runfolder.open(tmp_path / "etw")


def first_screen(paths: list[Path], out: Path, redact: bool = False) -> str:
    html = page.render(paths, out / "r.html", redact).read_text(encoding="utf-8")
    text = Reader(html[html.index('<section id="summary">') : html.index("</section>")]).text
    return " ".join(text.split())


def test_the_verdict_is_told_with_its_conditions_and_when_its_gate_was_written(run: RunFolder, tmp_path: Path) -> None:
    judged(run)
    text = first_screen([run.path], tmp_path)
    assert "FAIL Misses 1 of 2 conditions, each bound at 95 % confidence." in text
    assert "Claim: suppression (asked, it does not answer)." in text
    assert "FAIL forget_Q_A_Prob <= 0.2 0.31 [0.28, 0.35], n = 40" in text
    assert "The gate was written before the run" in text
    judged(run, "INCONCLUSIVE", registered=False, findings=[{**FOUND[0], "outcome": "INCONCLUSIVE"}])
    text = first_screen([run.path], tmp_path)
    assert "INCONCLUSIVE 1 of 1 condition undecided" in text
    assert "The gate was given after the run" in text


def test_without_a_gate_there_is_no_verdict_and_a_gate_that_waits_says_so(run: RunFolder, tmp_path: Path) -> None:
    assert "No verdict: no gate was written before the run." in first_screen([run.path], tmp_path)
    run.update(gate={"hash": "abc"})
    assert "has not been applied yet" in first_screen([run.path], tmp_path)
    run.file(runfolder.VERDICT).write_text("[1, {")
    assert "has not been applied yet" in first_screen([run.path], tmp_path), "a damaged file stops nothing"


def test_of_several_runs_the_verdicts_are_counted_and_told(run: RunFolder, tmp_path: Path) -> None:
    paths = [tmp_path / "wga", run.path]
    assert "No gate was written before these runs" in first_screen(paths, tmp_path)
    judged(run, "PASS", findings=FOUND[1:])
    text = first_screen(paths, tmp_path)
    assert "Of 2 runs: 1 PASS, 1 without a verdict." in text
    assert "PASS etw Meets its condition" in text


def test_a_redacted_verdict_quotes_no_forget_text(run: RunFolder, tmp_path: Path) -> None:
    secret = synthetic.facts("forget", 1)[0].answer
    judged(run, findings=[{**FOUND[0], "condition": f"command {secret}"}])
    assert secret in first_screen([run.path], tmp_path)
    assert secret not in first_screen([run.path], tmp_path, redact=True)


def test_the_worst_attack_answers_robust(run: RunFolder, tmp_path: Path) -> None:
    assert "Robust? Does it stay forgotten under attack? Not tested: no attack was run." in first_screen(
        [run.path], tmp_path
    )
    attacked(run, "leaks", sampling=0.2, relearn=0.62)
    text = first_screen([run.path], tmp_path)
    assert "Worst attack: relearn share of the answer" in text
    assert re.search(r"target ?0\.900.*oracle ?0\.100.*etw ?0\.620 ?\[0\.570, 0\.670\]", text)
    assert "Leaks under relearn." in text
    attacked(run, "holds", sampling=0.12, relearn=0.11)
    text = first_screen([run.path], tmp_path)
    assert "Worst attack: sampling" in text
    assert "Holds: none of 2 attacks brought back more than 0.05 above what was never known." in text


def test_the_worst_of_several_runs_attacks_is_shown_for_those_that_had_it(run: RunFolder, tmp_path: Path) -> None:
    attacked(run, "holds", relearn=0.12, sampling=0.11)
    attacked(runfolder.open(tmp_path / "wga"), "leaks", sampling=0.7)
    seen = collect.views([run.path, tmp_path / "wga"])
    found = robust.worst(seen)
    assert found is not None
    assert found.name == "sampling"
    assert {key: cell.value for key, cell in found.cells.items()} == {
        ("target", "target"): 0.9, ("oracle", "oracle"): 0.1, ("run", "etw"): 0.11, ("run", "wga"): 0.7,
    }  # fmt: skip
    assert robust.answer(seen).startswith("etw: holds: none of 2 attacks")
    assert "wga: leaks under sampling." in robust.answer(seen)


@pytest.mark.parametrize("tree", [[], {"attacks": 3, "robust": []}, {"attacks": {"a": {"value": "x"}}}])
def test_attacks_of_the_wrong_shape_are_no_attacks(run: RunFolder, tree: object) -> None:
    run.write_json(runfolder.ATTACKS_RESULT, tree)
    assert robust.worst(collect.views([run.path])) is None


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve arms under five seeds."""
    return synthetic.study(tmp_path_factory.mktemp("many") / "study", 12, 5, records=10, epochs=2).path


def test_of_each_arm_the_median_run_is_drawn_and_a_chosen_one_instead(many: Path) -> None:
    seen = collect.views([many])
    assert len(seen) == 60
    drawn, which = arms.drawn(seen)
    assert which == "the median in answer probability"
    assert [arm.name for arm in drawn] == [f"arm-{k}" for k in range(12)]
    for arm in drawn:
        [mine] = arm.runs
        values = sorted(view.own.cells["forget_Q_A_Prob"].value for view in (mine, *arm.others))
        assert len(values) == 5
        assert mine.own.cells["forget_Q_A_Prob"].value == values[2]
    other = drawn[3].others[0].name
    again, _ = arms.drawn(seen, [other])
    assert [view.name for view in again[3].runs] == [other]
    assert arms.drawn(seen[:5]) == ([], ""), "few runs are all drawn"


def test_a_study_of_sixty_runs_is_small_and_counts_all_of_them(many: Path) -> None:
    out = page.render([many], many / "report.html", comparing=comparison.for_page)
    html = out.read_text(encoding="utf-8")
    assert out.stat().st_size < 5_000_000
    assert "<h1>60 runs compared</h1>" in html
    assert "12 arms, one run drawn of each: the median in answer probability of its seeds" in html
    assert html.count('<article class="recipe">') == 12
    assert html.count('<tr data-family="') == 14, "twelve arms, target and oracle"
    assert "over items and 5 seeds" in html
    strips = html[html.index('class="strips"') : html.index("</table>")]
    assert strips.count('<th scope="row"') == 14


@pytest.mark.slow
def test_a_study_of_sixty_runs_with_four_hundred_records_stays_below_five_megabytes(tmp_path: Path) -> None:
    folder = synthetic.study(tmp_path / "study", 12, 5, records=400, epochs=10)
    out = page.render([folder.path], tmp_path / "report.html", comparing=comparison.for_page)
    assert out.stat().st_size < 5_000_000


def test_a_card_without_numbers_says_why(run: RunFolder) -> None:
    found = cards.card("Kept?", "x", None, [collect.views([run.path])[0].own], {})
    assert (found.rows, found.answer) == ((), "Not measured in this run.")
    assert verdicts.collect([], []).summary == ""
