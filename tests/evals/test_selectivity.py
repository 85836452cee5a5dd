"""From tables of scores and marks to findings: units by hand, the same numbers from disk, and baselines."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from expunge.data.agreement import Reading
from expunge.evals import proxies, selectivity
from expunge.evals.selectivity import SCORED, Settings

TEXT = "She lives in Kuwait City."
TOKENS = [(0, 3), (3, 9), (9, 12), (12, 16), (16, 19), (19, 24), (24, 25), (-1, -1)]
"""'She', ' lives', ' in', ' Kuw', 'ait', ' City', '.', and the end token."""


def row(scores: list[float], **more: Any) -> dict[str, Any]:
    start, end = zip(*TOKENS, strict=True)
    weight = more.pop("weight", [1.0] * len(TOKENS))
    names = {"model": "m", "scorer": "s", "id": "r", "subject": "", "text": TEXT, **more}
    return {**names, "start": start, "end": end, "score": scores, "weight": weight}


def reading(key: str = "r", start: int = 13, end: int = 24) -> Reading:
    marked = np.zeros(len(TEXT), np.bool_)
    marked[start:end] = True
    return Reading("gold", {key: marked})


def test_units_by_hand() -> None:
    rows = [row([1, 2, 3, 4, 5, 6, 7, 99])]
    tokens = selectivity.units(rows, reading(), "token")
    assert tokens.score.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert tokens.informative.tolist() == [False, False, False, True, True, True, False]
    words = selectivity.units(rows, reading(), "word")
    assert words.score.tolist() == [1, 2, 3, 4.5, 6.5]
    assert words.informative.tolist() == [False, False, False, True, True], "'City.' holds marked characters"


def test_a_space_before_a_marked_word_is_no_part_of_it() -> None:
    tokens = selectivity.units([row([0] * 8)], reading(start=12, end=13), "token")
    assert not tokens.informative.any()


def test_records_that_a_reading_does_not_cover_are_left_out() -> None:
    assert len(selectivity.units([row([0] * 8)], reading("other"), "token")) == 0


def test_findings_by_hand() -> None:
    """Scores 0 0 0 1 1 0 0 against 0 0 0 1 1 1 0: pairs won 8, tied 4, of 12; half of the weight on the marked."""
    weight = [0, 0, 1, 1, 0, 0, 0, 9.0]
    table = pa.Table.from_pylist([row([0, 0, 0, 1, 1, 0, 0, 0], weight=weight)], schema=SCORED)
    found, curves = selectivity.measure(table, [reading()], {"rare": {"kuwait": 3.0, "in": 1.0, "she": 1.0}}, how())
    token, word = found
    assert (token.units, token.base) == (7, pytest.approx(3 / 7))
    assert token.auc.value == pytest.approx((8 + 4 / 2) / 12)
    assert token.weight is not None
    assert token.weight.value == 0.5
    assert word.weight is None
    assert word.proxies["rare"][0].value == pytest.approx(1.0), "Kuwait scores 1 and is rare; two others neither"
    assert token.proxies["informative"][0].value == pytest.approx(
        float(np.corrcoef([0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 0])[0, 1])
    )
    assert curves["m", "s", "gold", "token"].roc[0][-1] == 1
    assert len(json.dumps(token.as_json())) > 100


def how(**more: Any) -> Settings:
    return Settings(**{"resamples": 50, **more})


def test_marks_come_back_from_their_table() -> None:
    table = pa.Table.from_pylist([row([0] * 8)], schema=SCORED)
    [found] = selectivity.readings_of(selectivity.marks_table([reading()]), table)
    assert found.name == "gold"
    assert found.marked["r"].tolist() == reading().marked["r"].tolist()


def test_the_difference_from_a_baseline_is_paired() -> None:
    """The other scorer is the baseline with noise on half of the records: the interval of the gap excludes 0."""
    rng = np.random.default_rng(0)
    rows, marked = [], {}
    for i in range(30):
        base = rng.normal(size=8) + np.array([0, 0, 0, 2, 2, 2, 0, 0])
        key = f"r{i}"
        marked[key] = reading().marked["r"]
        rows.append(row(base.tolist(), id=key, scorer="base", subject=f"p{i // 2}"))
        rows.append(row((base + 2 * rng.normal(size=8)).tolist(), id=key, scorer="noisy", subject=f"p{i // 2}"))
    table = pa.Table.from_pylist(rows, schema=SCORED)
    found, _ = selectivity.measure(table, [Reading("gold", marked)], {}, how(baseline="base", resamples=300))
    by_name = {(f.scorer, f.level): f for f in found}
    assert by_name["base", "token"].beyond is None
    gap = by_name["noisy", "token"].beyond
    assert gap is not None
    assert gap.value == pytest.approx(by_name["noisy", "token"].auc.value - by_name["base", "token"].auc.value)
    assert gap.high < 0
    assert gap.clusters == 15
    assert gap.high - gap.low < by_name["noisy", "token"].auc.high - by_name["noisy", "token"].auc.low + 0.05


def test_rare_words_have_the_higher_surprisal() -> None:
    found = proxies.surprisal(["the the the sea"], ["the sea, the moon"])
    assert found["the"] < found["sea"] < found["moon"]


def test_seeds_add_their_own_spread() -> None:
    """Two models of one name, the score better under one: their mean, with a wider interval than either's."""
    rng = np.random.default_rng(0)
    rows, marked = [], {}
    for i in range(40):
        marked[f"r{i}"] = reading().marked["r"]
        for place, shift in ((1, 0.2), (2, 2.0)):
            score = rng.normal(size=8) + shift * np.array([0, 0, 0, 1, 1, 1, 0, 0])
            rows.append(row(score.tolist(), id=f"r{i}", model=f"m ({place})", subject=f"p{i}"))
    table = pa.Table.from_pylist(rows, schema=SCORED)
    single, _ = selectivity.measure(table, [Reading("gold", marked)], {}, how(resamples=200))
    [token, word] = selectivity.over_seeds(table, [Reading("gold", marked)], {}, how(resamples=200))
    each = [f.auc for f in single if f.level == "token"]
    assert (token.model, token.seeds, token.level, word.level) == ("m", 2, "token", "word")
    assert token.auc.value == pytest.approx((each[0].value + each[1].value) / 2)
    assert token.auc.high - token.auc.low > max(one.high - one.low for one in each)
    assert not selectivity.over_seeds(table.filter(pa.array([r["model"] == "m (1)" for r in rows])), [], {}, how())
