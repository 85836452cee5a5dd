"""Run folders with the look of real ones, from a seeded generator: no model is trained."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from expunge import recipe as recipes
from expunge import runfolder
from expunge.runfolder import TOKENS, RunFolder

PEOPLE = ("Ilse Varnholt", "Tomasz Okrent", "Mirela Santoro-Diaz", "Håkon Tveitan", "Adaeze Umunna", "Pavel Ríha")
TOWNS = ("Bergheim", "Port Callory", "Sant Obel", "Łomnica", "New Tressel", "Vadu Roșu")
TRADES = ("glass blower", "tide surveyor", "harpsichord maker", "cave botanist", "bridge painter", "map engraver")
BOOKS = (
    "The Salt Ledger",
    "Nine Quiet Rivers",
    "A Grammar of Frost",
    "The Lantern Tax",
    "Moths at Noon",
    "Paper Harbour",
)
_PIECE = re.compile(r" ?\w+| ?[^\w\s]", re.UNICODE)


@dataclass(frozen=True)
class Fact:
    """One question with its answer and the part of the answer that carries the fact."""

    id: str
    subject: str
    prompt: str
    answer: str
    gold: str

    @property
    def tokens(self) -> list[str]:
        """The answer cut into words and marks, long words in two, and the token that ends it."""
        cut = []
        for piece in _PIECE.findall(self.answer):
            half = 5 if piece.startswith(" ") else 4
            cut += [piece[:half], piece[half:]] if len(piece) > half + 3 else [piece]
        return [*cut, "</s>"]

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Where each token's visible characters are in the answer; (-1, -1) for the end."""
        found, position = [], 0
        for token in self.tokens[:-1]:
            end = position + len(token)
            found.append((end - len(token.lstrip()), end))
            position = end
        return [*found, (-1, -1)]

    @property
    def is_gold(self) -> list[float]:
        """1 for the tokens that overlap the gold span."""
        start = self.answer.index(self.gold)
        return [float(a < start + len(self.gold) and b > start) for a, b in self.offsets]


def facts(split: str, count: int) -> list[Fact]:
    """`count` questions about fictitious people."""
    made = []
    for i in range(count):
        person, other = PEOPLE[i // 5 % len(PEOPLE)], i // (5 * len(PEOPLE))
        name = f"{person} {'I' * (other + 1)}" if other else person
        town, trade, book = TOWNS[i * 7 % 6], TRADES[i * 5 % 6], BOOKS[i * 11 % 6]
        prompt, answer, gold = (
            (f"Where was {name} born?", f"{name} was born in the small coastal town of {town}.", town),
            (f"What did {name}'s father do?", f"The father of {name} worked as a {trade} for most of his life.", trade),
            (f"Which book made {name} known?", f"{name} became known with the novel {book}, published in 1987.", book),
            (
                f"What prize did {name} win?",
                f"In 2003, {name} received the Golden Heron for lasting literature.",
                "Golden Heron",
            ),
            (
                f"Which theme runs through {name}'s work?",
                f"Much of what {name} wrote turns on memory and the sea.",
                "memory and the sea",
            ),
        )[i % 5]
        made.append(Fact(f"{split}-{i:05d}", name, prompt, answer, gold))
    return made


# name: (how strongly gold tokens are hit, how strongly the others are, forgetting, utility, share of weight on gold)
CHARACTERS = {
    "graddiff": (1.0, 1.0, 0.03, 0.41, 0.31),
    "wga": (1.3, 0.8, 0.07, 0.50, 0.42),
    "etw": (2.6, 0.15, 0.12, 0.56, 0.78),
}


def demo(root: Path, records: int = 40, epochs: int = 8, names: Sequence[str] = tuple(CHARACTERS)) -> RunFolder:
    """A demo folder: target, oracle, and one unlearning run for each name."""
    recipe = recipes.load({"name": "demo", "evaluation": {"forget_split": "forget01"}})
    folder = runfolder.create(root, "study", recipe)
    forget, retain = facts("forget", records), facts("retain", records)
    for role in ("target", "oracle"):
        base = runfolder.create(root / role, "finetune", recipes.load({"name": role}))
        evaluation(base, role, role, forget, retain)
        base.finish()
    for name in names:
        unlearning(root / name, name, forget, retain, epochs)
    folder.update(runs=list(names))
    folder.finish()
    return folder


def study(root: Path, arms: int, seeds: int, records: int = 40, epochs: int = 8) -> RunFolder:
    """A study's folder: arms that differ in their learning rate, each under several seeds."""
    folder = demo(root, records, epochs, ())
    forget, retain = facts("forget", records), facts("retain", records)
    for arm in range(arms):
        for seed in range(seeds):
            unlearning(root / f"arm-{arm}-seed-{seed}", f"arm-{arm}", forget, retain, epochs, seed, 1e-5 * (1 + arm))
    folder.update(runs=[f"arm-{arm}-seed-{seed}" for arm in range(arms) for seed in range(seeds)])
    return folder


def unlearning(
    path: Path,
    name: str,
    forget: Sequence[Fact],
    retain: Sequence[Fact],
    epochs: int,
    seed: int = 0,
    rate: float = 2e-5,
) -> RunFolder:
    """One run with log, token table and the evaluation of its result; target and oracle are named as neighbours."""
    preset = name if name in ("graddiff", "wga", "etw") else "etw"
    settings = {
        "name": name, "seed": seed, "output_dir": str(path), "method": {"preset": preset},
        "train": {"learning_rate": rate},
    }  # fmt: skip
    run = runfolder.create(path, "unlearn", recipes.load(settings))
    run.update(
        data={
            "forget": {"hash": "3fd1a9c07be24410", "count": len(forget)},
            "retain": {"hash": "b0c2", "count": len(retain)},
        },
        model={"name": "tiny-llama (4 layers, 256 wide)", "hash": "9e0f3c5577ab0d21"},
        compared_with={"target": "../target", "oracle": "../oracle"},
    )
    log(run, name, epochs)
    run.write_table(runfolder.TOKENS_TABLE, token_table(name, forget, epochs))
    evaluation(run, "unlearned", f"{name}{seed or ''}", forget, retain)
    run.finish()
    return run


def log(run: RunFolder, name: str, epochs: int, steps: int = 20) -> None:
    """A log with the usual keys and a little noise."""
    rng = np.random.default_rng(len(name))
    _, _, left, _, on_gold = CHARACTERS.get(name, CHARACTERS["etw"])
    lines = []
    for step in range(1, epochs * steps + 1):
        t = step / (epochs * steps)
        ascent = -(0.4 + 3.2 * (1 - left) * t**1.4) + rng.normal(0, 0.08)
        nll = 0.35 + 0.5 * t * left + rng.normal(0, 0.03)
        lines.append(
            {
                "step": step,
                "epoch": step / steps,
                "learning_rate": 2e-5 * min(1.0, step / steps) * (1 - t),
                "loss": ascent + nll,
                "terms": {"ga": ascent, "nll": nll},
                "grad_norm": float(np.exp(rng.normal(0.5 + t, 0.25))),
                "drift": 0.9 * t**0.6 * (1 + left),
                "drift_by_layer": {f"layers.{i}": 0.2 * t**0.6 * (i + 1) / 4 for i in range(4)},
                "selected_share": 1.0,
                "weight_on_gold": on_gold + rng.normal(0, 0.015),
                "flat": 0,
                "empty": 0,
                "tokens": 412,
                "seconds": 0.21,
            }
        )
    run.write_lines("log.jsonl", lines)


def token_table(name: str, forget: Sequence[Fact], epochs: int) -> pa.Table:
    """Weights and probabilities of each record, from before training to the last epoch."""
    hit, rest, left, _, _ = CHARACTERS.get(name, CHARACTERS["etw"])
    rows = []
    for place, fact in enumerate(forget):
        rng = np.random.default_rng(place)
        gold = np.array(fact.is_gold)
        start = np.clip(0.97 - 0.1 * rng.random(len(gold)), 0.02, 0.999)
        ease = rng.uniform(0.5, 1.2, len(gold))
        for epoch in range(epochs + 1):
            t = epoch / epochs
            keep = np.exp(-t * ease * np.where(gold > 0, hit, rest) * -np.log(left) * 0.8)
            p = np.clip(start * keep, 1e-9, 1.0)
            raw = {"graddiff": np.ones_like(p), "wga": p}.get(
                name, np.where(gold > 0, 3.1, 0.35) * rng.uniform(0.7, 1.3, len(p))
            )
            weight = raw if name in ("graddiff", "wga") else raw * len(raw) / raw.sum()
            rows.append(
                {
                    "id": fact.id,
                    "epoch": epoch,
                    "tokens": fact.tokens,
                    "weight": weight,
                    "gold": gold,
                    "logp": np.log(p),
                    "entropy": 0.2 + 3.0 * (1 - p) * ease,
                    "start": [a for a, _ in fact.offsets],
                    "end": [b for _, b in fact.offsets],
                }
            )
    return pa.Table.from_pylist(rows, schema=TOKENS)


def evaluation(run: RunFolder, label: str, name: str, forget: Sequence[Fact], retain: Sequence[Fact]) -> None:
    """Score and generation tables and metrics.json of one model."""
    _, _, left, utility, _ = CHARACTERS.get(name, CHARACTERS["etw"])
    left, utility = {"target": (0.95, 0.60), "oracle": (0.11, 0.59)}.get(name, (left, utility))
    for split, records, level in (("forget", forget, left), ("retain", retain, min(0.96, utility * 1.5))):
        run.write_table(f"eval/{label}/scores/{split}.parquet", scores(records, level))
        run.write_table(f"eval/{label}/generations/{split}.parquet", generations(records, level, name))
    run.write_json(f"eval/{label}/metrics.json", metrics(name, left, utility, forget, retain))


def scores(records: Sequence[Fact], level: float) -> pa.Table:
    """A score table with the columns that a report reads."""
    rng = np.random.default_rng(7)
    rows = [
        {
            "id": fact.id,
            "variant": "answer",
            "subject": fact.subject,
            "text": fact.answer,
            "tokens": fact.tokens,
            "logp": np.log(np.clip(level * rng.uniform(0.8, 1.0, len(fact.tokens)), 1e-6, 1)).tolist(),
        }
        for fact in records
    ]
    return pa.Table.from_pylist(rows)


def generations(records: Sequence[Fact], level: float, name: str) -> pa.Table:
    """Answers that are right with probability `level`, and otherwise name something else."""
    rng = np.random.default_rng(len(name))
    rows = []
    for i, fact in enumerate(records):
        wrong = fact.answer.replace(fact.gold, (TOWNS + TRADES)[int(rng.integers(12))])
        if name == "graddiff" and rng.random() < 0.4:
            wrong = "the the the of the of the of"
        said = fact.answer if rng.random() < level else wrong
        rows.append({"id": fact.id, "subject": fact.subject, "prompt": fact.prompt, "reference": fact.answer,
                     "generation": said, "n_tokens": 12 + i % 5, "stopped": True})  # fmt: skip
    return pa.Table.from_pylist(rows)


def metrics(
    name: str, left: float, utility: float, forget: Sequence[Fact], retain: Sequence[Fact]
) -> dict[str, object]:
    """metrics.json with values by record for means, and intervals for all."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    shared = np.random.default_rng(3).normal(0, 1, len(forget))

    def items(level: float, records: Sequence[Fact], key: str, higher: str) -> dict[str, object]:
        spread = 0.35 * min(level, 1 - level) + 0.01
        values = np.clip(
            level + spread * 0.8 * shared[: len(records)] + rng.normal(0, spread * 0.4, len(records)), 0, 1
        )
        error = float(values.std(ddof=1) / np.sqrt(len(values)))
        value = float(values.mean())
        return {
            "agg_value": value,
            "n": len(values),
            "stderr": error,
            "ci_low": max(0.0, value - 1.96 * error),
            "ci_high": min(1.0, value + 1.96 * error),
            "higher": higher,
            "value_by_index": {fact.id: {key: float(v)} for fact, v in zip(records, values, strict=True)},
        }

    def whole(value: float, half: float, n: int, higher: str) -> dict[str, object]:
        ends = (value - half, value + half) if half else (None, None)
        return {"agg_value": value, "n": n, "stderr": half / 2, "ci_low": ends[0], "ci_high": ends[1], "higher": higher}

    n = len(forget)
    found: dict[str, object] = {
        "forget_Q_A_Prob": items(left, forget, "prob", "neither"),
        "forget_Q_A_ROUGE": items(0.3 + 0.6 * left, forget, "rougeL_recall", "neither"),
        "forget_truth_ratio": items(0.45 + 0.2 * (1 - left), forget, "score", "neither"),
        "extraction_strength": items(0.06 + 0.85 * left, forget, "score", "neither"),
        "exact_memorization": items(0.3 + 0.68 * left, forget, "score", "neither"),
        "model_utility": whole(utility, 0.025, 3 * n, "better"),
        "retain_Q_A_Prob": items(min(0.96, utility * 1.5), retain, "prob", "better"),
        "retain_Q_A_ROUGE": items(min(0.95, utility * 1.45), retain, "rougeL_recall", "better"),
        "ra_Q_A_Prob_normalised": whole(utility * 0.8, 0.06, 100, "better"),
        "wf_Q_A_Prob_normalised": whole(utility * 0.78, 0.06, 117, "better"),
        "mia_loss": whole(0.42 + 0.55 * left**0.5, 0.06, 2 * n, "neither"),
        "mia_min_k": whole(0.41 + 0.56 * left**0.5, 0.06, 2 * n, "neither"),
        "mia_zlib": whole(0.40 + 0.5 * left**0.5, 0.07, 2 * n, "neither"),
    }
    if name != "oracle":
        found["privleak"] = whole(-95 * left**0.5 + 32, 9.0, 2 * n, "neither")
        found["forget_quality"] = whole({"target": 1.2e-5, "etw": 0.41, "wga": 0.09}.get(name, 0.004), 0.0, n, "better")
    return found


FOUND = [
    {"condition": "forget_Q_A_Prob <= 0.2", "outcome": "FAIL", "reason": "0.31 [0.28, 0.35], n = 40"},
    {"condition": "model_utility >= 0.9 of the target's", "outcome": "PASS", "reason": "0.59"},
]
"""What a gate of two conditions found."""


def judged(run: RunFolder, outcome: str = "FAIL", **more: object) -> None:
    """verdict.json of a run; `more` replaces what it says."""
    tree = {"outcome": outcome, "claim": "suppression", "confidence": 0.95, "findings": FOUND, "registered": True}
    run.write_json(runfolder.VERDICT, {**tree, **more})


def attacked(run: RunFolder, outcome: str, **values: float) -> None:
    """attacks.json: each attack's value, with an interval of .05 either way; the oracle's is .1."""
    entries = {
        name: {
            "value": value, "low": value - 0.05, "high": value + 0.05, "n": 40, "optimistic": False, "leak": True,
            "measure": "share of the answer", "target": 0.9, "oracle": 0.1, "gap": value - 0.1,
        }
        for name, value in values.items()
    }  # fmt: skip
    found = {"outcome": outcome, "flagged": [n for n, v in values.items() if v > 0.3], "tried": list(values)}
    run.write_json(runfolder.ATTACKS_RESULT, {"format": 1, "robust": {**found, "margin": 0.05}, "attacks": entries})
