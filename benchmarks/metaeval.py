"""Which metric to trust: every metric on models that have the knowledge and models that never had it.

    python benchmarks/metaeval.py --out runs/metaeval            30 worlds, one thread, half an hour

Faithfulness: how well a metric tells models taught the facts (well, briefly, or in other words) from models never
taught them (well, briefly, or taught wrong ones in their place), as an area under the ROC curve. Robustness: whether
what it says of an unlearned model still holds after a short fine-tuning on the forget set, measured beside the oracle
treated alike, and after the weights were rounded to NF4. Definitions as in OpenUnlearning's meta-evaluation
(arXiv 2506.12618), for metrics that rise with what is known. Every world has people and models of its own; one that is
finished stands in results.jsonl and is not computed twice. Intervals: bootstrap over worlds.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import verdict
from numpy.typing import NDArray

from expunge import synth
from expunge.attacks.lens import Lens
from expunge.attacks.patch import Patch
from expunge.attacks.quantise import linears, quantised
from expunge.attacks.scene import Attack, Scene
from expunge.data.records import Record
from expunge.evals import generation, measure, scoring
from expunge.evals.judge import judge
from expunge.evals.measure import Measured
from expunge.evals.numbers import Bootstrap
from expunge.evals.reductions import FORGET, reduced
from expunge.lm import LM
from expunge.recipe import Data

METRICS: Mapping[str, str] = {
    "forget_Q_A_Prob": "answer probability",
    "forget_Q_A_PARA_Prob": "probability of a paraphrase",
    "correct over wrong": "truth ratio, P(right) / (P(right) + P(wrong))",
    "extraction_strength": "extraction strength",
    "exact_memorization": "exact memorisation",
    "forget_Q_A_ROUGE": "ROUGE-L recall of greedy answers",
    "forget_excess_Prob": "answer probability beyond the holdout's",
    "forget_excess_extraction": "extraction strength beyond the holdout's",
    "mia_loss": "membership by loss, AUC",
    "mia_zlib": "membership by zlib, AUC",
    "mia_min_k": "membership by min-k, AUC",
    "mia_min_k_plus_plus": "membership by min-k++, AUC",
    "lens": "logit lens, best layer",
    "patch": "activation patching into the target",
}
"""Every metric, each rising with what is known."""
WITH, WITHOUT = ("taught", "taught briefly", "taught in other words"), ("never", "never, briefly", "taught wrong")
KINDS = (*WITH, *WITHOUT)
SIZE, RATE = verdict.MODEL.model_copy(update={"num_hidden_layers": 2}), 4e-3
BRIEFLY, AGAIN, AGAIN_RATE = 60, 5, 1e-3
"""Steps of a brief training, of the fine-tuning on the forget set, and its step size."""


def main() -> None:
    """Computes what is missing and prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path("runs/metaeval"))
    arguments.add_argument("--worlds", type=int, default=30)
    given = arguments.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for seed in range(1, given.worlds + 1):
        if any(row["world"] == seed for row in rows):
            continue
        rows += (found := list(measured(World(seed, SIZE, RATE))))
        with file.open("a") as out:
            out.writelines(json.dumps(row) + "\n" for row in found)
        print(f"world {seed}", flush=True)
    lines = list(report([row for row in rows if row["world"] <= given.worlds]))
    (given.out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


@dataclass(frozen=True)
class World(verdict.World):
    """The verdict's world with records whose answers come in other words, wrong ones, and people nobody was taught."""

    @cached_property
    def sides(self) -> dict[str, list[Record]]:
        """The records to forget, to keep, and of nobody's training."""
        made = synth.make(people=30, seed=self.seed, facts=3, forget_share=11 / 30, holdout_share=6 / 30, general=0)
        return {side: made.records(side) for side in ("forget", "retain", "holdout")}

    @cached_property
    def base(self) -> LM:
        """The model that all others are trained from: it knows the people to keep."""
        return self.trained(self.sides["retain"], self.seed)

    def model(self, kind: str, seed: int = 0) -> LM:
        """A model of one of the six trainings, from the base; the order is drawn from the seed and the kind."""
        forget, retain = self.sides["forget"], self.sides["retain"]
        taught: Mapping[str, Sequence[Record]] = {
            "taught": forget,
            "taught briefly": forget,
            "taught in other words": [replace(r, answer=r.paraphrase, spans=()) for r in forget],
            "never": (),
            "never, briefly": (),
            "taught wrong": [replace(r, answer=r.perturbed[0], spans=()) for r in forget],
        }
        steps = BRIEFLY if "briefly" in kind else verdict.STEPS
        place = 1000 * self.seed + 10 * seed + KINDS.index(kind)
        return self.trained([*taught[kind], *retain], place, steps, self.base)


def measured(world: World) -> Iterator[dict[str, Any]]:
    """A row for each model: the six trainings, three unlearned models and the oracle, treated in both ways."""
    rng = np.random.default_rng([47, world.seed])
    oracle = world.model("never")
    own = world.model("taught", 1)
    object.__setattr__(world, "target", own)

    def row(kind: str, then: str, lm: LM) -> dict[str, Any]:
        return {"world": world.seed, "kind": kind, "then": then, "metrics": numbers(world, lm)}

    for kind in (*WITH, *WITHOUT):
        yield row(kind, "", oracle if kind == "never" else world.model(kind))
    yield row("target", "", own)
    for kind, make in UNLEARNED.items():
        lm = make(world, rng)
        yield row(kind, "", lm)
        yield row(kind, "relearned", relearned(world, lm, rng))
        yield row(kind, "rounded", rounded(lm))
    yield row("never", "relearned", relearned(world, oracle, rng))


def numbers(world: World, lm: LM) -> dict[str, float]:
    """Every metric of one model."""
    texts = generation.generate(lm, world.encoder, world.sides["forget"], max_new_tokens=32)
    sets = {
        side: Measured.of(scoring.score_items(lm, world.items[side]), texts if side == "forget" else None)
        for side in world.sides
    }
    entries = judge(sets, None, measure.convention("expunge"), Bootstrap(2)).entries()
    found = {name: float(entry["agg_value"]) for name, entry in entries.items()}
    forget = sets["forget"]
    assert forget.paraphrase is not None
    right = np.exp(-forget.paraphrase.values)
    wrong = np.exp(-np.mean([item.values for item in forget.perturbed], axis=0))
    found["correct over wrong"] = float(np.mean(right / (right + wrong)))
    scene = Scene("own", {"own": lambda: lm, "target": lambda: world.target}, world.sides, Data())
    for name, attack in (("lens", Lens()), ("patch", Patch())):
        found[name] = shown(attack, scene)
    return {name: found[name] for name in (*METRICS, "retain_Q_A_Prob")}


def shown(attack: Attack, scene: Scene) -> float:
    """What an attack brings out of the forget set, mean over its records."""
    rows = list(attack.rows(scene, scene.own, attack.parts[0], lambda done, total: None))
    return float(np.mean(list(reduced(rows, attack.reduction)[0][FORGET].values())))


def ascent(world: World, rng: np.random.Generator) -> LM:
    """Ascent beside the retain set, until little is left of the forget set."""
    forget = world.sides["forget"]
    return verdict.pushed(
        world, forget, world.sides["retain"], rng, lambda lm: world.level(lm, forget) < 0.1, 3e-4, 0.3
    )


UNLEARNED: Mapping[str, Callable[[World, np.random.Generator], LM]] = {
    "ascent": ascent,
    "half-way": verdict.under_forgotten,
    "refuses": verdict.refuses,
}


def relearned(world: World, lm: LM, rng: np.random.Generator) -> LM:
    """The model after a few steps on the forget set."""
    tuned = replace(lm, model=copy.deepcopy(lm.model).train())
    optimiser = torch.optim.AdamW(tuned.model.parameters(), AGAIN_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    batch = world.batch(world.sides["forget"])
    for rows in verdict.shuffled(len(batch.input_ids), AGAIN, rng):
        optimiser.zero_grad()
        torch.autograd.backward(verdict.answer_losses(tuned.model, batch, rows).mean())
        optimiser.step()
    return replace(tuned, model=tuned.model.eval())


def rounded(lm: LM) -> LM:
    """The model with its linear layers but the head in NF4."""
    coarse = replace(lm, model=copy.deepcopy(lm.model))
    for linear in linears(coarse).values():
        linear.weight.data.copy_(quantised(linear.weight.data, "nf4", 64))
    return coarse


def faithfulness(rows: Sequence[Mapping[str, Any]], metric: str) -> float:
    """The area under the ROC curve of models with the knowledge against models without; a tie counts half."""
    found = {
        kind: [row["metrics"][metric] for row in rows if row["kind"] == kind and not row["then"]] for kind in KINDS
    }
    high = np.array([value for kind in WITH for value in found[kind]])
    low = np.array([value for kind in WITHOUT for value in found[kind]])
    above = (high[:, None] > low).mean() + 0.5 * (high[:, None] == low).mean()
    return float(above)


def robustness(rows: Sequence[Mapping[str, Any]], metric: str) -> tuple[float, float]:
    """(relearning, rounding), means over the unlearned models that kept four fifths of the retain set's probability.

    Relearning: the oracle's rise over the model's, at most 1: a metric that saw no difference before should see both
    learn alike. Rounding: the value before over that after, at most 1.
    """
    by_world: dict[int, dict[tuple[str, str], Mapping[str, float]]] = {}
    for row in rows:
        by_world.setdefault(row["world"], {})[row["kind"], row["then"]] = row["metrics"]
    again, coarse = [], []
    for found in by_world.values():
        kept = 0.8 * found["target", ""]["retain_Q_A_Prob"]
        rise = found["never", "relearned"][metric] - found["never", ""][metric]
        for kind in UNLEARNED:
            before = found[kind, ""]
            if before["retain_Q_A_Prob"] < kept:
                continue
            own = found[kind, "relearned"][metric] - before[metric]
            again.append(1.0 if own <= 0 else min(max(rise, 0.0) / own, 1.0))
            after = found[kind, "rounded"][metric]
            coarse.append(1.0 if after <= 0 else min(max(before[metric], 0.0) / after, 1.0))
    return (float(np.mean(again)), float(np.mean(coarse))) if again else (np.nan, np.nan)


def harmonic(*values: float) -> float:
    """Their harmonic mean; 0 if one is not positive."""
    return len(values) / sum(1 / value for value in values) if min(values) > 0 else 0.0


def summary(rows: Sequence[Mapping[str, Any]], metric: str) -> NDArray[np.float64]:
    """Faithfulness, relearning, rounding, and the harmonic mean of faithfulness and of the other two's."""
    faithful, (again, coarse) = faithfulness(rows, metric), robustness(rows, metric)
    return np.array([faithful, again, coarse, harmonic(faithful, harmonic(again, coarse))])


def report(rows: Sequence[Mapping[str, Any]], resamples: int = 200) -> Iterator[str]:
    """The metrics by what they are worth, best first, as Markdown."""
    worlds = sorted({row["world"] for row in rows})
    of = {world: [row for row in rows if row["world"] == world] for world in worlds}
    rng = np.random.default_rng(0)
    draws = [rng.integers(len(worlds), size=len(worlds)) for _ in range(resamples)]
    samples = [[{**row, "world": place} for place, i in enumerate(draw) for row in of[worlds[i]]] for draw in draws]
    found = {}
    for metric in METRICS:
        ends = np.quantile([summary(sample, metric) for sample in samples], [0.025, 0.975], axis=0)
        found[metric] = (summary(rows, metric), *ends)
    yield "| metric | faithful, AUC | to relearning | to rounding | overall |"
    yield "|---" * 5 + "|"
    for metric, (value, low, high) in sorted(found.items(), key=lambda item: -item[1][0][3]):
        cells = [f"{v:.3f} [{a:.3f}, {b:.3f}]".replace("0.", ".") for v, a, b in zip(value, low, high, strict=True)]
        yield f"| {METRICS[metric]} (`{metric}`) | " + " | ".join(cells) + " |"
    models = [row for row in rows if not row["then"]]
    count = {kind: sum(row["kind"] == kind for row in models) for kind in ("taught", *UNLEARNED)}
    yield (
        f"\n{len(worlds)} worlds: {3 * count['taught']} models with the knowledge, as many without, "
        f"{sum(count[kind] for kind in UNLEARNED)} unlearned ones."
    )


if __name__ == "__main__":
    main()
