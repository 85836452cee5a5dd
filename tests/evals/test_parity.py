"""Whole checkpoints judged by the peer: the same numbers item by item, the peer's conventions by their names."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from expunge import lm as lms
from expunge import recipe, runfolder
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.evals import generation, metrics, peer, scoring, table, tofu
from expunge.evals.measure import CONVENTIONS, Measured, attacks, per_item
from expunge.evals.numbers import Bootstrap
from expunge.lm import LM
from tests.evals import naive

TEMPLATE = "<|begin|><|user|>{prompt}<|end|><|assistant|>{answer}<|eos|>"
MODELS = ("retain", "target", "npo_strong")
# The peer's float32 cross-entropy over a transposed view is biased low by up to about 3e-5 nats at this vocabulary.
NATS = 4e-5


@cache
def load(folder: Path) -> LM:
    return lms.load(recipe.Model(model_name_or_path=str(folder)))


def encoder_of(lm: LM) -> Encoder:
    return Encoder(lm.tokenizer, template=TEMPLATE)


def log_of(shared: Path, name: str) -> dict[str, Any]:
    return peer.read_json(shared / "parity" / "evaluation" / name / "TOFU_EVAL.json")


def column(entry: Mapping[str, Any], field: str) -> np.ndarray[Any, np.dtype[Any]]:
    rows = entry["value_by_index"]
    return np.array([rows[str(index)][field] for index in range(len(rows))])


def close(found: Any, expected: Any, tolerance: float, name: str) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=tolerance, err_msg=name)


def check_answers(scores: Measured, holdout: Measured, log: Mapping[str, Any]) -> None:
    """Every metric of the log that reads right answers, item by item, and the AUCs."""
    how = CONVENTIONS["openunlearning"]
    items = per_item("forget", scores, how)
    close(items["forget_Q_A_Prob"].values, column(log["forget_Q_A_Prob"], "prob"), NATS, "prob")
    close(items["exact_memorization"].values, column(log["exact_memorization"], "score"), 1e-7, "em")
    close(items["extraction_strength"].values, column(log["extraction_strength"], "score"), 1e-12, "es")
    inside, outside = attacks(scores, how), attacks(holdout, how)
    for part, found in (("forget", inside), ("holdout", outside)):
        for name, item in found.items():
            tolerance = 1e-4 if name == "mia_min_k_plus_plus" else NATS
            close(item.values, column(log[name][part], "score"), tolerance, f"{name} {part}")
    for name in inside:
        assert metrics.auc(inside[name], outside[name]) == pytest.approx(log[name]["auc"], abs=1e-12), name


def check_variants(scores: Measured, log: Mapping[str, Any]) -> None:
    """Paraphrased and perturbed answers and truth ratios of as many items as were scored."""
    items = per_item("forget", scores, CONVENTIONS["openunlearning"])
    first = len(scores.loss)
    wrong = np.stack([metrics.probability(part).values for part in scores.perturbed], axis=1)
    close(wrong, column(log["forget_Q_A_PERT_Prob"], "prob")[:first], 4e-6, "pert")
    close(items["forget_Q_A_PARA_Prob"].values, column(log["forget_Q_A_PARA_Prob"], "prob")[:first], 4e-6, "para")
    close(items["forget_truth_ratio"].values, column(log["forget_truth_ratio"], "score")[:first], NATS, "truth ratio")


def test_the_target_s_right_answers_item_by_item(shared: Path) -> None:
    lm = load(shared / "parity" / "models" / "target")
    sets = tofu.load_suite(shared / "parity" / "data")
    scores = {name: scoring.score(lm, encoder_of(lm), sets[name], ("answer",)) for name in ("forget", "holdout")}
    check_answers(Measured.of(scores["forget"]), Measured.of(scores["holdout"]), log_of(shared, "target"))


def test_the_target_s_paraphrased_and_perturbed_answers(shared: Path) -> None:
    lm = load(shared / "parity" / "models" / "target")
    records = tofu.load_suite(shared / "parity" / "data", limit=8)["forget"]
    check_variants(Measured.of(scoring.score(lm, encoder_of(lm), records)), log_of(shared, "target"))


def test_some_generations_of_a_model_that_rambles(shared: Path) -> None:
    lm = load(shared / "parity" / "models" / "npo_strong")
    records = tofu.load_suite(shared / "parity" / "data", limit=6)["forget"]
    found = generation.generate(lm, encoder_of(lm), records, max_new_tokens=200)
    expected = column(log_of(shared, "npo_strong")["forget_Q_A_ROUGE"], "generation")[:6]
    assert found.column("generation").to_pylist() == expected.tolist()


def test_what_is_left_of_the_difference_is_the_peer_s_cross_entropy(shared: Path) -> None:
    lm = load(shared / "parity" / "models" / "target")
    encoder = encoder_of(lm)
    records: list[Record] = tofu.load_suite(shared / "parity" / "data", limit=4)["forget"]
    peer_losses = column(log_of(shared, "target")["forget_Q_A_Prob"], "avg_loss")[:4]
    ours = metrics.average_loss(table.answers(scoring.score(lm, encoder, records, ("answer",)))).values
    for index, record in enumerate(records):
        encoded = encoder.encode(record)
        targets = torch.from_numpy(encoded.targets)
        with torch.no_grad():
            logits = lm.model(input_ids=torch.from_numpy(encoded.input_ids)[None]).logits[0]
        exact = F.cross_entropy(logits.double(), targets, ignore_index=-100)
        transposed = F.cross_entropy(logits.T[None], targets[None], ignore_index=-100, reduction="none")
        biased = transposed.sum() / (targets != -100).sum()
        assert ours[index] == pytest.approx(float(exact), abs=2e-7)
        assert peer_losses[index] == pytest.approx(float(biased), abs=2e-6)


@pytest.mark.slow
def test_the_whole_suite_of_three_models(shared: Path, tmp_path: Path) -> None:
    run = runfolder.create(tmp_path / "run", "evaluate")
    sets = tofu.load_suite(shared / "parity" / "data")
    settings = tofu.Settings(bootstrap=Bootstrap(resamples=100), convention="openunlearning")
    for name in MODELS:
        lm = load(shared / "parity" / "models" / name)
        oracle = None if name == "retain" else run.file("eval/retain")
        found = tofu.evaluate(lm, encoder_of(lm), sets, run, name, reference=oracle, settings=settings).entries()
        log = log_of(shared, name)
        missing = {key for key in log if key not in found} - {"mia_gradnorm"}
        assert missing <= ({"forget_quality", "mia_reference"} if name == "retain" else set())
        for key, entry in found.items():
            if key in log:
                assert entry["agg_value"] == pytest.approx(log[key]["agg_value"], abs=2e-5), (name, key)
        for key in ("forget_quality", "privleak", "mia_loss", "mia_min_k", "forget_Q_A_ROUGE", "retain_Q_A_ROUGE"):
            if key in found:
                assert found[key]["agg_value"] == pytest.approx(log[key]["agg_value"], abs=1e-9), (name, key)
        tables = {part: Measured.of(run.read_table(f"eval/{name}/scores/{part}.parquet")) for part in sets}
        check_answers(tables["forget"], tables["holdout"], log)
        check_variants(tables["forget"], log)
        for part, start in (("forget", "forget"), ("retain", "retain"), ("real_authors", "ra"), ("world_facts", "wf")):
            texts = run.read_table(f"eval/{name}/generations/{part}.parquet")
            expected = column(log[f"{start}_Q_A_ROUGE"], "generation").tolist()
            assert texts.column("generation").to_pylist() == expected, (name, part)
        _same_log(json.loads(tofu.write_log(run, name, oracle).read_text()), log, name)


def _same_log(ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str) -> None:
    """Our log has the peer's fields with the peer's values, within float32 of unlikely answers."""
    compare: Callable[[Any, Any, str], None]

    def compare(one: Any, two: Any, path: str) -> None:
        if isinstance(two, dict):
            for key, value in two.items():
                assert key in one, f"{path}/{key}"
                compare(one[key], value, f"{path}/{key}")
        elif isinstance(two, list):
            for index, value in enumerate(two):
                compare(one[index], value, f"{path}/{index}")
        elif isinstance(two, str):
            assert one == two, path
        else:
            assert one == pytest.approx(two, abs=1e-4, rel=1e-4), path

    absent = {"mia_gradnorm", "mia_reference"} | ({"forget_quality"} if name == "retain" else set())
    compare(ours, {key: value for key, value in theirs.items() if key not in absent}, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["target", "npo_strong"])
def test_a_released_log_serves_as_the_oracle(shared: Path, tmp_path: Path, name: str) -> None:
    run = runfolder.create(tmp_path / "run", "evaluate")
    sets = {k: v for k, v in tofu.load_suite(shared / "parity" / "data").items() if k in ("forget", "holdout")}
    lm = load(shared / "parity" / "models" / name)
    log = log_of(shared, name)
    found = tofu.evaluate(
        lm,
        encoder_of(lm),
        sets,
        run,
        name,
        reference=shared / "parity" / "evaluation" / "retain" / "TOFU_EVAL.json",
        settings=tofu.Settings(generate=False, bootstrap=Bootstrap(resamples=100)),
    )
    for key in ("forget_quality", "privleak", "mia_reference"):
        assert found.numbers[key].interval.value == pytest.approx(log[key]["agg_value"], abs=1e-7), key
    assert found.numbers["forget_quality"].reference == "retain"


@pytest.mark.slow
def test_one_pass_is_cheaper_than_a_pass_for_each_metric(shared: Path) -> None:
    """CPU time of both ways in one process, the least of three; docs/evaluation.md has the numbers measured."""
    sets = {name: records[:16] for name, records in tofu.load_suite(shared / "parity" / "data").items()}
    lm, oracle = (load(shared / "parity" / "models" / name) for name in ("target", "retain"))
    encoder = encoder_of(lm)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = {"one": math.inf, "each": math.inf}
    for _ in range(3):
        start = time.process_time()
        for name, records in sets.items():
            scoring.score(lm, encoder, records)
            if name in ("forget", "holdout"):
                scoring.score(oracle, encoder, records, ("answer",))
        middle = time.process_time()
        naive.every_pass(lm.model, oracle.model, encoder, sets)
        best["one"] = min(best["one"], middle - start)
        best["each"] = min(best["each"], time.process_time() - middle)
    torch.set_num_threads(threads)
    print(f"\nCPU seconds: {best}, ratio {best['each'] / best['one']:.2f}")
    assert best["each"] > 1.5 * best["one"]
