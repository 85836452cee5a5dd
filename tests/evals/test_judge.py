"""Numbers from tables alone: what is there is right, what cannot be known is absent and says why."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expunge.errors import RunFolderError
from expunge.evals import composite, judge, measure, membership, metrics, peer
from expunge.evals.judge import metrics_from_folder
from expunge.evals.measure import CONVENTIONS, Measured
from expunge.evals.numbers import Bootstrap
from tests.evals import tiny

QUICK = Bootstrap(resamples=200)
RATED = ("mia_loss", "mia_min_k", "mia_reference")


def score_table(
    name: str, count: int, level: float, *, paraphrase: bool = True, wrong: int = 2, seed: int = 0, clusters: int = 0
) -> pa.Table:
    """Answers of three tokens around `level` nats each; wrong ones are 1 nat worse."""
    rng = np.random.default_rng([seed, len(name), count])
    rows = []
    for index in range(count):
        base = level + rng.random()
        shape = {"id": f"{name}-{index}", "subject": f"{name}-{index % clusters}" if clusters else ""}
        variants = ["answer", *(["paraphrase"] if paraphrase else []), *(f"perturbed:{j}" for j in range(wrong))]
        for variant in variants:
            loss = base + (1 + rng.random() if variant.startswith("perturbed") else 0.1 * rng.random())
            right = (rng.random(3) < math.exp(-loss)).tolist()
            rows.append(
                {**shape, "variant": variant, "logp": (-loss * (1 + 0.2 * rng.random(3))).tolist(), "top1": right}
            )
    return tiny.scores(rows)


def texts(name: str, count: int, overlap: float) -> pa.Table:
    rng = np.random.default_rng(len(name))
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
    return tiny.generations(
        [
            (f"{name}-{i}", " ".join(words), " ".join(w if rng.random() < overlap else "other" for w in words))
            for i in range(count)
        ]
    )


def sets(level: float = 1.0, *, seed: int = 0, holdout: bool = True) -> dict[str, Measured]:
    found = {
        "forget": Measured.of(score_table("forget", 20, level, seed=seed), texts("forget", 20, 0.5)),
        "retain": Measured.of(score_table("retain", 24, 0.2, seed=seed), texts("retain", 24, 0.9)),
        "real_authors": Measured.of(
            score_table("real_authors", 10, 2, paraphrase=False), texts("real_authors", 10, 0.6)
        ),
        "world_facts": Measured.of(score_table("world_facts", 12, 2, paraphrase=False), texts("world_facts", 12, 0.7)),
    }
    if holdout:
        found["holdout"] = Measured.of(score_table("holdout", 15, 1.6, paraphrase=False, wrong=0, seed=seed))
    return found


def write(folder: Path) -> Path:
    """A folder with the tables of `sets()`."""
    (folder / "scores").mkdir(parents=True)
    (folder / "generations").mkdir()
    for name, count, level, more in (
        ("forget", 20, 1.0, True),
        ("retain", 24, 0.2, True),
        ("real_authors", 10, 2.0, False),
        ("world_facts", 12, 2.0, False),
    ):
        pq.write_table(score_table(name, count, level, paraphrase=more), folder / "scores" / f"{name}.parquet")
        pq.write_table(texts(name, count, 0.6), folder / "generations" / f"{name}.parquet")
    pq.write_table(score_table("holdout", 15, 1.6, paraphrase=False, wrong=0), folder / "scores" / "holdout.parquet")
    return folder


def test_every_number_has_n_error_and_interval() -> None:
    oracle = measure.reference_of("oracle", sets(3.0, seed=1), CONVENTIONS["expunge"])
    found = judge.judge(sets(), oracle, CONVENTIONS["expunge"], QUICK)
    rates = {f"{attack}_{rate}" for attack in RATED for rate in membership.RATES}
    assert set(found.absent) == {"mia_gradnorm", "general_perplexity", *rates, *composite.NAMES}
    for name, entry in found.entries().items():
        assert entry["n"] > 0, name
        assert entry["ci_low"] <= entry["agg_value"] <= entry["ci_high"], name
        assert math.isfinite(entry["stderr"]), name
        assert entry["higher"] in ("better", "worse", "neither")
    assert set(found.numbers) >= {
        "forget_Q_A_Prob", "forget_Q_A_ROUGE", "forget_truth_ratio", "forget_quality", "forget_quality_ks",
        "model_utility", "model_utility_tofu", "privleak", "extraction_strength", "exact_memorization",
        "mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_reference",
        "retain_Q_A_Prob", "ra_Q_A_Prob_normalised", "wf_Truth_Ratio",
    }  # fmt: skip


def test_without_holdout_and_oracle_their_numbers_are_absent_with_the_reason() -> None:
    found = judge.judge(sets(holdout=False), None, CONVENTIONS["expunge"], QUICK)
    assert set(found.absent) == {
        "mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus_plus", "mia_reference", "privleak",
        "mia_gradnorm", "set_drift", "forget_quality", "forget_quality_ks", "forget_excess_Prob",
        "forget_excess_extraction", "general_perplexity", *composite.NAMES,
    }  # fmt: skip
    assert not set(found.absent) & set(found.numbers)
    assert "no holdout set" in found.absent["privleak"]
    assert "no oracle" in found.absent["forget_quality"]


def test_with_holdout_but_no_oracle_privleak_is_absent_unless_the_peer_s_half_is_asked_for() -> None:
    ours = judge.judge(sets(), None, CONVENTIONS["expunge"], QUICK)
    assert "mia_min_k" in ours.numbers
    assert "no oracle" in ours.absent["privleak"]
    theirs = judge.judge(sets(), None, CONVENTIONS["openunlearning"], QUICK)
    auc = theirs.numbers["mia_min_k"].interval.value
    assert theirs.numbers["privleak"].interval.value == pytest.approx((0.5 - auc) / 0.5 * 100)
    assert theirs.numbers["privleak"].reference == "AUC 0.5"


def test_a_model_compared_with_itself_is_perfect() -> None:
    itself = measure.reference_of("itself", sets(), CONVENTIONS["expunge"])
    found = judge.judge(sets(), itself, CONVENTIONS["expunge"], QUICK)
    assert found.numbers["forget_quality"].interval.value == pytest.approx(1.0)
    assert found.numbers["forget_quality_ks"].interval.value == 0.0
    assert found.numbers["privleak"].interval.value == pytest.approx(0.0)
    assert found.numbers["mia_reference"].interval.value == pytest.approx(0.5)


def test_an_oracle_that_separates_perfectly_leaves_privleak_undefined() -> None:
    exposed = measure.reference_of("oracle", sets(-0.5), CONVENTIONS["expunge"])
    assert exposed.min_k_auc == 1.0
    found = judge.judge(sets(), exposed, CONVENTIONS["expunge"], QUICK)
    assert "AUC is 1" in found.absent["privleak"]


def test_an_oracle_of_other_items_serves_forget_quality_but_not_the_reference_attack() -> None:
    other = sets(3.0)
    other["forget"] = Measured.of(score_table("else", 17, 3.0))
    oracle = measure.reference_of("oracle", other, CONVENTIONS["expunge"])
    found = judge.judge(sets(), oracle, CONVENTIONS["expunge"], QUICK)
    assert found.numbers["forget_quality"].interval.value < 1
    assert "mia_reference" in found.absent


def test_model_utility_is_the_harmonic_mean_of_nine() -> None:
    found = judge.judge(sets(), None, CONVENTIONS["expunge"], QUICK)
    names = [
        "retain_Q_A_Prob", "retain_Q_A_ROUGE", "retain_Truth_Ratio",
        "ra_Q_A_Prob_normalised", "ra_Q_A_ROUGE", "ra_Truth_Ratio",
        "wf_Q_A_Prob_normalised", "wf_Q_A_ROUGE", "wf_Truth_Ratio",
    ]  # fmt: skip
    nine = [found.numbers[name].interval.value for name in names]
    assert found.numbers["model_utility"].interval.value == pytest.approx(metrics.harmonic_mean(nine))
    assert found.entries()["model_utility"]["of"] == ["retain", "real_authors", "world_facts"]
    assert found.numbers["model_utility_tofu"].interval.value < found.numbers["model_utility"].interval.value


def test_an_incomplete_tofu_suite_has_no_model_utility() -> None:
    partial = sets()
    del partial["world_facts"]
    found = judge.judge(partial, None, CONVENTIONS["expunge"], QUICK)
    assert "world_facts" in found.absent["model_utility"]
    silent = sets()
    silent["retain"] = Measured.of(score_table("retain", 24, 0.2))
    found = judge.judge(silent, None, CONVENTIONS["expunge"], QUICK)
    assert found.absent["model_utility"] == "the set 'retain' has no ROUGE"


def test_sets_of_other_names_are_utility_too() -> None:
    own = {name: sets()[name] for name in ("forget", "retain")}
    own["neighbours"] = Measured.of(score_table("neighbours", 9, 1.0), texts("neighbours", 9, 0.5))
    found = judge.judge(own, None, CONVENTIONS["expunge"], QUICK)
    assert "neighbours_Q_A_Prob" in found.numbers
    assert found.entries()["model_utility"]["of"] == ["retain", "neighbours"]


def test_subjects_are_the_units_from_eight_on() -> None:
    own = sets()
    own["retain"] = Measured.of(score_table("retain", 24, 0.2, clusters=8), texts("retain", 24, 0.9))
    own["forget"] = Measured.of(score_table("forget", 20, 1.0, clusters=2), texts("forget", 20, 0.9))
    entries = judge.judge(own, None, CONVENTIONS["expunge"], QUICK).entries()
    retain, forget = entries["retain_Q_A_Prob"], entries["forget_Q_A_Prob"]
    assert (retain["resampled"], retain["clusters"], retain["optimistic"]) == ("clusters", 8, False)
    assert (forget["resampled"], forget["clusters"], forget["optimistic"]) == ("items", 20, True)


def test_skipped_items_are_counted() -> None:
    rows = [{"id": "forget-0", "logp": [-1.0, -1.0]}, {"id": "forget-1", "logp": [], "eos": False}]
    found = judge.judge({"forget": Measured.of(tiny.scores(rows))}, None, CONVENTIONS["expunge"], QUICK)
    entry = found.entries()["forget_Q_A_Prob"]
    assert (entry["n"], entry["skipped"]) == (1, 1)
    assert entry["agg_value"] == pytest.approx(math.exp(-1))


def test_the_interval_of_p_is_that_of_the_distance() -> None:
    oracle = measure.reference_of("oracle", sets(3.0, seed=1), CONVENTIONS["expunge"])
    found = judge.judge(sets(), oracle, CONVENTIONS["expunge"], QUICK)
    p, d = (found.numbers[name].interval for name in ("forget_quality", "forget_quality_ks"))
    assert p.value == pytest.approx(metrics.ks_p(d.value, 20, 20))
    assert p.low == pytest.approx(metrics.ks_p(d.high, 20, 20))
    assert p.high == pytest.approx(metrics.ks_p(d.low, 20, 20))
    assert found.entries()["forget_quality"]["statistic"] == d.value


def test_metrics_come_from_the_folder_without_torch(tmp_path: Path) -> None:
    folder = write(tmp_path / "target")
    code = (
        "import json, sys; from pathlib import Path; from expunge.evals.judge import metrics_from_folder\n"
        f"found = metrics_from_folder(Path({str(folder)!r}), Path({str(folder)!r}), resamples=50)\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules), 'a heavy import'\n"
        "print(json.dumps({k: v['agg_value'] for k, v in found.items()}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    here = metrics_from_folder(folder, folder, resamples=50)
    assert json.loads(done.stdout) == {name: entry["agg_value"] for name, entry in here.items()}


def test_folders_that_hold_nothing_and_references_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="holds no score tables"):
        metrics_from_folder(tmp_path)
    folder = write(tmp_path / "target")
    with pytest.raises(RunFolderError, match=r"neither an evaluation folder .* nor a TOFU_EVAL\.json"):
        metrics_from_folder(folder, tmp_path / "missing")
    with pytest.raises(RunFolderError, match="Did you mean: openunlearning"):
        metrics_from_folder(folder, convention="open-unlearning")


def test_a_written_log_is_read_back_as_the_same_reference(tmp_path: Path) -> None:
    folder = write(tmp_path / "oracle")
    numbers = metrics_from_folder(folder, convention="openunlearning", resamples=20)
    path = peer.write_log(folder, tmp_path / "oracle" / peer.LOG_NAME, numbers)
    by_log, by_tables = (judge.read_reference(p, CONVENTIONS["openunlearning"]) for p in (path, folder))
    assert by_log.ratios is not None
    assert by_tables.ratios is not None
    assert by_log.ratios.values == pytest.approx(by_tables.ratios.values)
    assert by_log.min_k_auc == pytest.approx(by_tables.min_k_auc)
    one, two = (metrics_from_folder(write(tmp_path / f"t{i}"), r, resamples=50) for i, r in enumerate((path, folder)))
    for name in ("forget_quality", "privleak", "mia_reference"):
        assert one[name]["agg_value"] == pytest.approx(two[name]["agg_value"], rel=1e-6), name


def test_a_log_has_openunlearning_s_fields(tmp_path: Path) -> None:
    folder = write(tmp_path / "x")
    numbers = metrics_from_folder(folder, convention="openunlearning", resamples=20)
    log = json.loads(peer.write_log(folder, tmp_path / "log.json", numbers).read_text())
    assert set(log["forget_Q_A_Prob"]["value_by_index"]["0"]) == {"prob", "avg_loss"}
    assert len(log["forget_Q_A_PERT_Prob"]["value_by_index"]["3"]["prob"]) == 2
    assert set(log["ra_Q_A_ROUGE"]["value_by_index"]["0"]) == {
        "rouge1_recall", "rougeL_f1", "rougeL_recall", "input", "ground_truth", "generation",
    }  # fmt: skip
    assert set(log["mia_min_k"]) == {"forget", "holdout", "agg_value", "auc"}
    assert log["extraction_strength"]["value_by_index"]["0"]["score"] >= 1 / 3
    assert log["model_utility"]["agg_value"] == numbers["model_utility"]["agg_value"]


@pytest.mark.parametrize("content", ["not json", "[]", '{"a": 1}', '{"forget_Q_A_Prob": {"agg_value": 0.5}}'])
def test_a_file_that_is_no_log_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "TOFU_EVAL.json"
    path.write_text(content)
    with pytest.raises(RunFolderError, match=r"is not an evaluation log|cannot be a reference"):
        peer.read_log(path)


def test_a_log_without_items_still_gives_privleak(tmp_path: Path) -> None:
    path = tmp_path / "TOFU_EVAL.json"
    path.write_text(json.dumps({"mia_min_k": {"agg_value": 0.4, "auc": 0.4}}))
    found = metrics_from_folder(write(tmp_path / "x"), path, resamples=50)
    auc = found["mia_min_k"]["agg_value"]
    assert found["privleak"]["agg_value"] == pytest.approx((0.4 - auc) / 0.6 * 100)
    assert "forget_quality" not in found


def test_the_aggregate_is_the_plain_mean() -> None:
    own = sets()
    found = judge.judge(own, None, CONVENTIONS["expunge"], QUICK)
    losses = metrics.average_loss(own["forget"].answers).values
    assert found.numbers["forget_Q_A_Prob"].interval.value == pytest.approx(float(np.exp(-losses).mean()))


def test_fluency_has_intervals_or_a_reason() -> None:
    said = tiny.generations([(f"general-{i}", "truth", "a b c d a b c d" if i % 2 else "a b c d e") for i in range(20)])
    measured = Measured.of(score_table("general", 20, 1.0), said)
    found = judge.judge({"general": measured}, None, CONVENTIONS["expunge"], QUICK)
    repeats, perplexity = found.numbers["general_repetition"], found.numbers["general_perplexity"]
    assert (repeats.interval.value, repeats.higher) == (pytest.approx(0.1), "worse")
    assert 0.04 < repeats.interval.low < 0.1 < repeats.interval.high < 0.16
    assert perplexity.interval.value == pytest.approx(math.exp(float(measured.loss.values.mean())))  # all equally long
    assert perplexity.interval.low < perplexity.interval.value < perplexity.interval.high
    assert perplexity.higher == "worse"
    short = Measured.of(score_table("retain", 4, 1.0), tiny.generations([("retain-0", "truth", "no")]))
    other = judge.judge({"retain": short}, None, CONVENTIONS["expunge"], QUICK)
    assert "five words" in other.absent["retain_repetition"]
    assert "general set" in other.absent["general_perplexity"]
