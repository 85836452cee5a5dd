"""Run folders and evidence of models that were never trained: tables drawn from what such a model would say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from expunge import runfolder
from expunge.evals import stats
from expunge.evals.judge import judge_folder
from expunge.evals.metrics import PerItem
from expunge.evals.numbers import Bootstrap, mean
from expunge.evals.tofu import items_table
from expunge.evals.verdict import Evidence
from expunge.runfolder import RunFolder
from tests.evals import tiny

WORDS = ("river", "harbour", "teacher", "garden", "winter", "letter")


@dataclass(frozen=True)
class Kind:
    """What a model does: probability of forget answers, share of their ends that a beginning brings, utility.

    `forgotten`: the share of the people that this holds for; the others it knows as the target does.
    """

    forget: float
    extraction: float
    utility: float
    forgotten: float = 1.0


TARGET = Kind(0.9, 0.8, 0.75)
ORACLE = Kind(0.12, 0.06, 0.75)
FAKES: Mapping[str, Kind] = {
    "untouched": TARGET,
    "hardly suppressed": Kind(0.22, 0.06, 0.75),
    "half forgotten": Kind(0.12, 0.06, 0.75, 0.5),
    "silent but extractable": Kind(0.12, 0.3, 0.75),
    "gibberish": Kind(0.001, 0.01, 0.02),
    "worn": Kind(0.12, 0.06, 0.62),
}


def shares(rng: np.random.Generator, level: float, people: int, each: int) -> np.ndarray:
    """(people * each,) shares around `level`: people differ, and so do their items."""
    spread = 12.0
    person = rng.beta(level * spread + 1e-3, (1 - level) * spread + 1e-3, people)
    item = np.repeat(np.clip(person, 0.002, 0.998), each)
    return np.asarray(rng.beta(item * spread, (1 - item) * spread), dtype=np.float64)


def evidence(kind: Kind, seed: int, *, people: int = 60, each: int = 3, resamples: int = 400) -> Evidence:
    """Per-item values of three metrics, for a model of this kind and its target; no tables, so that it is quick."""
    rng = np.random.default_rng([23, seed])
    names = tuple(f"person-{i // each}" for i in range(people * each))
    ids = tuple(f"item-{i}" for i in range(people * each))
    how = Bootstrap(resamples, 0, 0.9)

    def numbers(whose: Kind) -> dict[str, dict[str, object]]:
        known = np.repeat(np.arange(people) >= round(whose.forgotten * people), each)
        found = {}
        for metric, level, before in (
            ("forget_Q_A_Prob", whose.forget, TARGET.forget),
            ("extraction_strength", whose.extraction, TARGET.extraction),
            ("model_utility", whose.utility, whose.utility),
        ):
            own, old = (shares(rng, value, people, each) for value in (level, before))
            values = np.where(known, old, own)
            found[metric] = mean(PerItem(ids, names, values), "worse", how).entry()
        return found

    return Evidence(numbers(kind), numbers(TARGET), numbers(ORACLE), {}, {})


def upper_bound(passed: int, tried: int) -> float:
    """The rate that, with 95 % confidence, is not exceeded (Clopper and Pearson)."""
    return 1.0 if passed == tried else float(stats.special.betaincinv(passed + 1, tried - passed, 0.95))


def run(folder: Path, kind: Kind, *, people: int = 10, each: int = 4, seed: int = 0) -> RunFolder:
    """A finished run whose tables are those of a model of this kind, beside target and oracle."""
    made = runfolder.create(folder, "unlearn")
    for label, whose in (("oracle", ORACLE), ("target", TARGET), ("unlearned", kind)):
        tables(made.file(f"eval/{label}"), whose, people, each, seed if label == "unlearned" else len(label))
        judged = judge_folder(made.file(f"eval/{label}"), made.file("eval/oracle"), bootstrap=Bootstrap(20))
        made.write_json(f"eval/{label}/metrics.json", judged.entries())
        made.write_table(f"eval/{label}/items.parquet", items_table(judged))
    made.finish()
    return made


def tables(folder: Path, kind: Kind, people: int, each: int, seed: int) -> Path:
    """Score and generation tables of forget, retain and holdout."""
    rng = np.random.default_rng([29, seed])
    for name in ("scores", "generations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    broken = kind.utility < 0.1
    for name in ("forget", "retain", "holdout"):
        level = {"forget": kind.forget, "retain": kind.utility, "holdout": 0.1}[name]
        ends = kind.extraction if name == "forget" else level
        probability = np.clip(shares(rng, level, people, each), 1e-4, 0.999)
        rows = [row for i, p in enumerate(probability) for row in _rows(rng, name, i, i // each, float(p), ends)]
        pq.write_table(tiny.scores(rows), folder / "scores" / f"{name}.parquet")
        if name != "holdout":
            pq.write_table(_texts(rng, name, probability, broken), folder / "generations" / f"{name}.parquet")
    return folder


def _rows(
    rng: np.random.Generator, name: str, index: int, person: int, p: float, ends: float
) -> list[dict[str, object]]:
    tokens = 8
    right = int(rng.binomial(tokens - 1, min(max(ends, 0.0), 1.0)))
    top1 = [False] * (tokens - 1 - right) + [True] * (right + 1)
    losses = {"answer": -math.log(p), "paraphrase": -math.log(p) + 0.1}
    losses |= {f"perturbed:{k}": min(-math.log(p), 3.0) + rng.random() + (0.5 if p > 0.3 else 0) for k in (0, 1)}
    return [
        {
            "id": f"{name}-{index}", "subject": f"{name}-person-{person}", "variant": variant,
            "text": " ".join(rng.choice(WORDS, 4)), "logp": [-loss] * tokens, "top1": top1,
        }
        for variant, loss in losses.items()
        if name != "holdout" or variant == "answer"
    ]  # fmt: skip


def _texts(rng: np.random.Generator, name: str, probability: np.ndarray, broken: bool) -> pa.Table:
    def said(p: float) -> str:
        return "zz zz zz zz zz zz" if broken else " ".join(w if rng.random() < p else "other" for w in WORDS)

    return tiny.generations([(f"{name}-{i}", " ".join(WORDS), said(float(p))) for i, p in enumerate(probability)])
