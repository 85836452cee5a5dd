"""OpenUnlearning's evaluation logs (TOFU_EVAL.json): read as a reference, written for its notebooks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expunge.errors import RunFolderError
from expunge.evals import measure, metrics
from expunge.evals.measure import FORGET, HOLDOUT, Measured, Reference
from expunge.evals.metrics import PerItem

LOG_NAME = "TOFU_EVAL.json"


def read_log(path: Path) -> Reference:
    """The reference that a log of OpenUnlearning holds: its items are known by position."""
    log = read_json(path)
    ratios = _values(log, ("forget_truth_ratio",), "score")
    losses = {name: _values(log, ("mia_loss", name), "score") for name in (FORGET, HOLDOUT)}
    if losses[FORGET] is None:
        losses[FORGET] = _values(log, ("forget_Q_A_Prob",), "avg_loss")
    scores = {name: _values(log, ("mia_min_k", name), "score") for name in (FORGET, HOLDOUT)}
    auc = log.get("mia_min_k", {}).get("agg_value")
    if ratios is None and auc is None:
        raise RunFolderError(f"log '{path}' has neither forget_truth_ratio nor mia_min_k: it cannot be a reference")
    return Reference(
        path.parent.name or path.name,
        ratios,
        {name: item for name, item in losses.items() if item is not None},
        {name: item for name, item in scores.items() if item is not None},
        None if auc is None else float(auc),
        {name: float(v) for name in log if name.startswith("mia_") and (v := log[name].get("agg_value")) is not None},
    )


def read_json(path: Path) -> dict[str, Any]:
    """The entries of a log; RunFolderError if the file is not one."""
    try:
        log = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"'{path}' is not an evaluation log: {' '.join(str(error).split())}") from None
    if not isinstance(log, dict) or not any(isinstance(v, dict) and "agg_value" in v for v in log.values()):
        raise RunFolderError(f"'{path}' is not an evaluation log: no entry has an agg_value")
    return log


def log_of(sets: Mapping[str, Measured], numbers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A log in OpenUnlearning's form: per-item values in its fields and its conventions, aggregates from `numbers`.

    `numbers` are entries of metrics.json, best computed with `convention='openunlearning'`.
    """
    how = measure.CONVENTIONS["openunlearning"]
    log: dict[str, Any] = {}
    for name, measured in sets.items():
        if name != HOLDOUT:
            log.update(_set_entries(name, measured, how))
    if FORGET in sets and HOLDOUT in sets:
        scores = {name: measure.attacks(sets[name], how) for name in (FORGET, HOLDOUT)}
        for attack in scores[FORGET]:
            log[attack] = {name: _entry(_scores(scores[name][attack]), scores[name][attack]) for name in scores}
    for name, number in numbers.items():
        entry = log.setdefault(name, {})
        entry["agg_value"] = _plain(number["agg_value"])
        if name.startswith("mia_"):
            entry["auc"] = entry["agg_value"]
    return log


def write_log(folder: Path, path: Path, numbers: Mapping[str, Mapping[str, Any]]) -> Path:
    """The path of the TOFU_EVAL.json that now holds the evaluation in `folder`; `numbers` as for `log_of`."""
    text = json.dumps(log_of(measure.read_sets(folder), numbers), indent=4)
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
    return path


def _set_entries(name: str, measured: Measured, how: measure.Convention) -> dict[str, Any]:
    start = measure.prefix(name)
    entries: dict[str, Any] = {}
    for key, item in measure.per_item(name, measured, how).items():
        if key.endswith("_PERT_Prob"):
            rows = [_prob(part) for part in measured.perturbed]
            joined = [{f: [row[i][f] for row in rows] for f in ("prob", "avg_loss")} for i in range(len(item))]
            entries[key] = _entry(joined, item)
        elif key.endswith("_ROUGE"):
            entries[key] = _entry(_rouge(measured, how.strip_prompt), item)
        elif key.endswith("_normalised"):
            entries[key] = _entry([{"prob": _plain(value)} for value in item.values], item)
        elif key.endswith("_Prob"):
            loss = measured.paraphrase if "_PARA_" in key and measured.paraphrase is not None else measured.loss
            entries[key] = _entry(_prob(loss), item)
        else:
            entries[key] = _entry(_scores(item), item)
    assert f"{start}_Q_A_Prob" in entries
    return entries


def _rouge(measured: Measured, strip_prompt: bool) -> list[dict[str, Any]]:
    assert measured.generations is not None
    scores = metrics.rouge(measured.generations, strip_prompt)
    texts = measured.generations.select(["prompt", "reference", "generation"]).to_pylist()
    return [
        {
            **{name: _plain(item.values[index]) for name, item in scores.items()},
            "input": text["prompt"],
            "ground_truth": text["reference"],
            "generation": text["generation"],
        }
        for index, text in enumerate(texts)
    ]


def _prob(loss: PerItem) -> list[dict[str, Any]]:
    return [{"prob": _plain(math.exp(-value)), "avg_loss": _plain(value)} for value in loss.values.tolist()]


def _scores(item: PerItem) -> list[dict[str, Any]]:
    return [{"score": _plain(value)} for value in item.values]


def _entry(rows: Sequence[Mapping[str, Any]], item: PerItem) -> dict[str, Any]:
    return {"agg_value": _plain(item.aggregate), "value_by_index": {str(i): dict(row) for i, row in enumerate(rows)}}


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _values(log: Mapping[str, Any], path: Sequence[str], field: str) -> PerItem | None:
    node: Any = log
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    rows = node.get("value_by_index") if isinstance(node, Mapping) else None
    if not isinstance(rows, Mapping) or not rows:
        return None
    ids = sorted(rows, key=lambda name: (not str(name).isdigit(), int(name) if str(name).isdigit() else 0, str(name)))
    values = [rows[name].get(field) if isinstance(rows[name], Mapping) else None for name in ids]
    if all(value is None for value in values):
        return None
    array = np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)
    return PerItem(tuple(map(str, ids)), ("",) * len(ids), array)
