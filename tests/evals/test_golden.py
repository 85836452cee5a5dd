"""Our functions on the peer's golden inputs give the peer's values, its conventions by their names."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge.evals import metrics as m
from expunge.evals.metrics import PerItem
from expunge.evals.table import Answers
from tests.evals import tiny

FLOAT32 = 3e-7


class Golden:
    """The golden files: values, inputs and the two tiny models."""

    def __init__(self, folder: Path) -> None:
        self.values: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
        self.meta: dict[str, Any] = json.loads((folder / "meta.json").read_text())
        arrays = np.load(folder / "tinylm.npz")
        self.lms = {
            name: tiny.TableLM(arrays[f"tinylm/{name}/table"], arrays[f"tinylm/{name}/pos"])
            for name in ("model", "reference")
        }

    def answers(self, name: str, lm: str = "model") -> Answers:
        texts = self.meta["zlib_texts"].get(name)
        return self.lms[lm].answers(self.meta[f"metric/{name}"], texts)

    def perturbed(self) -> list[Answers]:
        rows = self.meta["metric/perturbed"]
        return [self.lms["model"].answers([row[str(j)] for row in rows]) for j in range(3)]


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return Golden(shared / "parity" / "golden")


def by_index(entry: Mapping[str, Any], field: str) -> list[Any]:
    rows = entry["value_by_index"]
    return [rows[str(index)][field] for index in range(len(rows))]


def same(found: Sequence[float] | np.ndarray[Any, Any], expected: Sequence[Any], tolerance: float = 1e-12) -> None:
    wanted = [math.nan if value in (None, "nan") else value for value in expected]
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(wanted, float), rtol=tolerance, atol=1e-15)


def test_probability(golden: Golden) -> None:
    entry = golden.values["probability"]
    loss = m.average_loss(golden.answers("forget"))
    same(loss.values, by_index(entry, "avg_loss"))
    same(m.probability(loss).values, by_index(entry, "prob"))
    same([m.probability(loss).aggregate], [entry["agg_value"]])
    wrong = np.stack([m.average_loss(a).values for a in golden.perturbed()], axis=1)
    same(wrong, by_index(golden.values["probability_perturbed"], "avg_loss"))


@pytest.mark.parametrize("form", ["closer_to_1", "true_better", "prob_mean"])
def test_truth_ratio(golden: Golden, form: str) -> None:
    right, wrong = m.average_loss(golden.answers("forget")), [m.average_loss(a) for a in golden.perturbed()]
    suffix = form if form == "prob_mean" else f"{form}_better" if form == "closer_to_1" else form
    entry = golden.values[f"truth_ratio_{suffix}"]
    theirs = m.truth_ratio(right, wrong, form, epsilon=m.PEER_EPSILON)
    same(theirs.values, by_index(entry, "score"))
    same([theirs.aggregate], [entry["agg_value"]])
    ours = m.truth_ratio(right, wrong, form)
    assert np.abs(ours.values / theirs.values - 1).max() == pytest.approx(0, abs=1e-8)
    assert not np.array_equal(ours.values, theirs.values)


def test_probability_with_options(golden: Golden) -> None:
    right, wrong = m.average_loss(golden.answers("forget")), [m.average_loss(a) for a in golden.perturbed()]
    entry = golden.values["probability_w_options"]
    found = m.probability_with_options(right, wrong, epsilon=m.PEER_EPSILON)
    same(found.values, by_index(entry, "prob"))
    same([found.aggregate], [entry["agg_value"]])


def test_memorization(golden: Golden) -> None:
    view = golden.answers("forget")
    same(m.exact_memorization(view).values, by_index(golden.values["exact_memorization"], "score"), FLOAT32)
    entry = golden.values["extraction_strength"]
    same(m.extraction_strength(view, floor=True).values, by_index(entry, "score"))
    ours = m.extraction_strength(view).values
    differs = ours != m.extraction_strength(view, floor=True).values
    assert differs.any() and (ours[differs] == 0).all()  # noqa: PT018


@pytest.mark.parametrize("k", [0.2, 0.4])
@pytest.mark.parametrize(("name", "function"), [("mia_min_k", m.min_k), ("mia_min_k_plus_plus", m.min_k_plus_plus)])
def test_min_k(golden: Golden, name: str, function: Any, k: float) -> None:
    entry = golden.values[f"{name}_{k}"]
    found = {part: function(golden.answers(part), k) for part in ("forget", "holdout")}
    for part, item in found.items():
        same(item.values, by_index(entry[part], "score"), 2e-6)
    same([m.auc(found["forget"], found["holdout"])], [entry["auc"]])


def test_loss_zlib_and_reference(golden: Golden) -> None:
    views = {part: golden.answers(part) for part in ("forget", "holdout")}
    losses = {part: m.average_loss(view) for part, view in views.items()}
    others = {part: m.average_loss(golden.answers(part, "reference")) for part in views}
    scores = {
        "mia_loss": losses,
        "mia_zlib": {part: m.zlib_score(losses[part], view.texts) for part, view in views.items()},
        "mia_reference": {part: m.reference_score(losses[part], others[part]) for part in views},
    }
    for name, parts in scores.items():
        for part, item in parts.items():
            same(item.values, by_index(golden.values[name][part], "score"))
        same([m.auc(parts["forget"], parts["holdout"])], [golden.values[name]["auc"]])


def test_answers_without_tokens(golden: Golden) -> None:
    view = golden.answers("edge")
    same(m.average_loss(view).values, by_index(golden.values["edge/probability"], "avg_loss"))
    em = m.exact_memorization(view)
    same(em.values, by_index(golden.values["edge/exact_memorization"], "score"), FLOAT32)
    same([em.aggregate], [golden.values["edge/exact_memorization"]["agg_value"]], FLOAT32)
    es = golden.values["edge/extraction_strength"]
    same(m.extraction_strength(view, floor=True).values, by_index(es, "score"))
    assert m.extraction_strength(view).aggregate == pytest.approx(0.0)  # only the answer with tokens counts
    for name, function in (("min_k", m.min_k), ("min_k_plus_plus", m.min_k_plus_plus)):
        same(function(view, empty=0.0).values, by_index(golden.values[f"edge/mia_{name}"], "score"), 2e-6)
        assert np.isnan(function(view).values[:2]).all()


def test_ks(golden: Golden) -> None:
    for case in golden.values["ks_test"]:
        one, two = (
            PerItem(tuple(map(str, range(len(v)))), ("",) * len(v), np.array(v))
            for v in (case["forget"], case["retain"])
        )
        assert m.forget_quality(one, two).p == pytest.approx(case["p"], rel=1e-9)


def test_privleak_and_rel_diff(golden: Golden) -> None:
    for case in golden.values["privleak_rel_diff"]:
        reference = case["ref_value"] if case["retain"] is None else case["retain"]
        assert m.privleak(case["score"], reference, m.PEER_EPSILON) == pytest.approx(case["privleak"], rel=1e-9)
        assert m.rel_diff(case["score"], reference, m.PEER_EPSILON) == pytest.approx(case["rel_diff"], rel=1e-9)


def test_harmonic_mean(golden: Golden) -> None:
    for case in golden.values["hm_aggregate"]:
        assert m.harmonic_mean(case["values"]) == pytest.approx(case["hm"])


def test_rouge(golden: Golden) -> None:
    import pyarrow as pa

    from expunge.evals.table import GENERATIONS

    cases = golden.values["rouge"]
    rows = [
        {
            "id": str(index),
            "subject": "",
            "prompt": case["question"],
            "reference": case["answer"],
            "generation": case["raw_generation"],
            "n_tokens": 0,
            "stopped": True,
        }
        for index, case in enumerate(cases)
    ]
    table = pa.Table.from_pylist(rows, schema=GENERATIONS)
    found, ours = m.rouge(table, strip_prompt=True), m.rouge(table)
    for name in m.ROUGE_NAMES:
        same(found[name].values, [case[name] for case in cases])
    differs = [
        c["question"]
        for c, a, b in zip(cases, found["rouge1_recall"].values, ours["rouge1_recall"].values, strict=True)
        if a != b
    ]
    assert differs  # an answer that repeats its question loses it in the peer's ground truth, not in ours
