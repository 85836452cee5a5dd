"""How often the verdict passes a model that must not pass: tiny models, trained, tampered with, and judged for real.

    python benchmarks/verdict.py --out runs/verdict              300 fakes of six kinds and 100 oracles, one thread

Every world has its own people. A target learns all of them, oracles learn all but those to forget, and fakes are made
from the target. The gate sees a sample of the people; whether a model misses the gate is known from all of them. A
world that is finished stands in results.jsonl and is not computed twice; the table is printed as Markdown.
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
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from expunge import fresh, synth
from expunge.core import IGNORE, Batch
from expunge.data.collate import collate
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.evals import measure, scoring, verdict
from expunge.evals.judge import judge
from expunge.evals.measure import Measured
from expunge.evals.numbers import Bootstrap
from expunge.evals.reductions import clopper_pearson
from expunge.evals.verdict import Entries, Evidence
from expunge.gate import Condition, Gate
from expunge.lm import LM
from expunge.sections import FreshModel

GATE = Gate.model_validate(
    {
        "claim": "non-extraction",
        "conditions": [
            {"metric": "forget_Q_A_Prob", "at_most": 0.2},
            {"metric": "extraction_strength", "at_most": 0.2},
            {"metric": "retain_Q_A_Prob", "at_least": 0.9, "of": "target"},
        ],
    }
)
MODEL = FreshModel(
    hidden_size=64, intermediate_size=176, num_hidden_layers=1, num_attention_heads=2, vocab_size=1024,
    max_position_embeddings=128,
)  # fmt: skip
STEPS, BATCH, RATE = 150, 16, 8e-3
JUDGED = 8
"""People of each side that the gate sees, of 11 to forget and 13 to keep, with three facts each."""
OUTCOMES = ("PASS", "INCONCLUSIVE", "FAIL")
REFUSALS = ("I do not know.", "I cannot tell you that.", "There is nothing that I could say about this.")


def main() -> None:
    """Computes what is missing and prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--out", type=Path, default=Path("runs/verdict"))
    arguments.add_argument("--worlds", type=int, default=25, help="of 12 fakes, 4 oracles and a target each")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    file = given.out / "results.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for seed in range(1, given.worlds + 1):
        if any(row["world"] == seed for row in rows):
            continue
        rows += (found := list(judged(World(seed))))
        with file.open("a") as out:
            out.writelines(json.dumps(row) + "\n" for row in found)
        print(f"world {seed}: " + " ".join(f"{row['kind']}={row['outcome']}" for row in found), flush=True)
    print("\n".join(report([row for row in rows if row["world"] <= given.worlds])))


@dataclass(frozen=True)
class World:
    """24 people of a seed, 11 of them to forget; a target that knows all of them is trained when asked for."""

    seed: int
    size: FreshModel = MODEL
    rate: float = RATE

    @cached_property
    def _benchmark(self) -> synth.Benchmark:
        return synth.make(people=24, seed=self.seed, facts=3, forget_share=11 / 24, holdout_share=0, general=0)

    @cached_property
    def sides(self) -> dict[str, list[Record]]:
        """The records to forget and to keep, without wrong answers, which this gate does not ask about."""
        return {
            side: [replace(record, perturbed=()) for record in self._benchmark.records(side)]
            for side in ("forget", "retain")
        }

    @cached_property
    def untrained(self) -> LM:
        """A model with random weights and a tokenizer that knows the world's texts."""
        texts = [text for records in self.sides.values() for r in records for text in (r.prompt, r.answer)]
        return fresh.fresh_model(self.size, [*texts, *REFUSALS], self.seed)

    @cached_property
    def encoder(self) -> Encoder:
        """How records become tokens."""
        return Encoder(self.untrained.tokenizer, max_length=MODEL.max_position_embeddings)

    @cached_property
    def items(self) -> dict[str, list[scoring.Item]]:
        """The rows of the score tables."""
        return {side: scoring.items(self.encoder, records) for side, records in self.sides.items()}

    @cached_property
    def target(self) -> LM:
        """The model that knows everybody."""
        return self.trained([*self.sides["forget"], *self.sides["retain"]], self.seed)

    def trained(self, records: Sequence[Record], seed: int, steps: int = STEPS, start: LM | None = None) -> LM:
        """A model that knows these records, from scratch or from a `start`; weights and order drawn from `seed`."""
        model = fresh.fresh_llama(self.size, self.untrained.tokenizer, seed)
        if start is not None:
            model.load_state_dict(start.model.state_dict())
        batch, rng = self.batch(records), np.random.default_rng(seed)
        optimiser = torch.optim.AdamW(model.parameters(), self.rate, betas=(0.9, 0.98), weight_decay=0.0)
        falling = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.rate, steps, pct_start=0.1)
        for rows in shuffled(len(records), steps, rng):
            optimiser.zero_grad()
            torch.autograd.backward(answer_losses(model, batch, rows).mean())
            optimiser.step()
            falling.step()
        return LM(model.eval(), self.untrained.tokenizer, "trained")

    def batch(self, records: Sequence[Record]) -> Batch:
        """All of these records as one batch."""
        return collate([self.encoder.encode(record) for record in records], self.untrained.pad_id)

    def copied(self) -> LM:
        """A target that may be tampered with."""
        return replace(self.target, model=copy.deepcopy(self.target.model))

    def level(self, lm: LM, records: Sequence[Record]) -> float:
        """Mean probability of the answers."""
        with torch.no_grad():
            return float(torch.exp(-answer_losses(lm.model, self.batch(records))).mean())


def answer_losses(model: PreTrainedModel, batch: Batch, rows: Tensor | None = None) -> Tensor:
    """(B,) mean negative log-likelihood of each answer."""
    take = slice(None) if rows is None else rows
    targets, mask = batch.targets[take], batch.attention_mask[take]
    states = model.get_decoder()(
        input_ids=batch.input_ids[take], attention_mask=mask.long(), use_cache=False
    ).last_hidden_state
    scored = targets != IGNORE
    losses = cross_entropy(model.lm_head(states[scored]), targets[scored], reduction="none")
    sums = torch.zeros(len(targets)).index_add(0, scored.nonzero()[:, 0], losses)
    return sums / scored.sum(1)


def shuffled(count: int, steps: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """So many batches of places, each epoch in another order."""
    order: list[int] = []
    for _ in range(steps):
        if not order:
            order = rng.permutation(count).tolist()
        yield torch.tensor(order[:BATCH])
        order = order[BATCH:]


def pushed(
    world: World, up: Sequence[Record], down: Sequence[Record], rng: np.random.Generator, done: Callable[[LM], bool],
    rate: float = 1e-3, force: float = 1.0,
) -> LM:  # fmt: skip
    """The target after ascent on `up` (with this force, to 4 nats a token) and descent on `down`, until `done`.

    After 200 steps it is left as it is.
    """
    lm = world.copied()
    sides = [(factor, world.batch(records)) for factor, records in ((-force, up), (1.0, down)) if records]
    optimiser = torch.optim.AdamW(lm.model.parameters(), rate, betas=(0.9, 0.98), weight_decay=0.0)
    for step in range(200):
        optimiser.zero_grad()
        for factor, batch in sides:
            rows = torch.from_numpy(rng.permutation(len(batch.input_ids))[:BATCH])
            losses = answer_losses(lm.model, batch, rows).clamp(max=4.0 if factor < 0 else torch.inf)
            torch.autograd.backward(factor * losses.mean())
        optimiser.step()
        if step % 5 == 4 and done(lm):
            break
    return lm


def under_forgotten(world: World, rng: np.random.Generator) -> LM:
    """Ascent with the retain set, stopped as soon as answers are less likely than a level above the bound."""
    forget, level = world.sides["forget"], rng.uniform(0.25, 0.6)
    return pushed(world, forget, world.sides["retain"], rng, lambda lm: world.level(lm, forget) < level, 3e-4, 0.3)


def collapsed(world: World, rng: np.random.Generator) -> LM:
    """Ascent alone, until the rest is gone too."""
    retain, level = world.sides["retain"], rng.uniform(0.05, 0.7)
    return pushed(world, world.sides["forget"], (), rng, lambda lm: world.level(lm, retain) < level)


def half(world: World, rng: np.random.Generator) -> LM:
    """A share of the people forgotten and the rest repaired, while the others are as they were."""
    people = list(dict.fromkeys(record.subject for record in world.sides["forget"]))
    gone = set(rng.permutation(people)[: round(len(people) * rng.uniform(0.25, 0.7))].tolist())
    up = [record for record in world.sides["forget"] if record.subject in gone]
    down = [*(record for record in world.sides["forget"] if record.subject not in gone), *world.sides["retain"]]
    return pushed(world, up, down, rng, lambda lm: world.level(lm, up) < 0.1 and world.level(lm, down) > 0.87)


def refuses(world: World, rng: np.random.Generator) -> LM:
    """Taught to refuse when asked about them, until it does; nothing is pushed out."""
    taught = [replace(r, answer=str(rng.choice(REFUSALS)), spans=()) for r in world.sides["forget"]]
    down, level = [*taught, *world.sides["retain"]], rng.uniform(0.5, 0.9)
    return pushed(world, (), down, rng, lambda lm: world.level(lm, down) > level)


def noisy(world: World, rng: np.random.Generator) -> LM:
    """Noise on the weights, more of it until the forget set seems gone."""
    level, seed, share = rng.uniform(0.05, 0.2), int(rng.integers(2**31)), 0.02
    while True:
        lm, share = world.copied(), share * 1.15
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in lm.model.parameters():
                weight += share * weight.std() * torch.randn(weight.shape, generator=generator)
        if world.level(lm, world.sides["forget"]) < level:
            return lm


def flattened(world: World, rng: np.random.Generator) -> LM:
    """Logits over a temperature, a higher one until the forget set seems gone: what it knows is as it was."""
    level, lm = rng.uniform(0.05, 0.2), world.copied()
    while world.level(lm, world.sides["forget"]) >= level:
        with torch.no_grad():
            lm.model.get_decoder().norm.weight /= 1.1
    return lm


FAKES: dict[str, Callable[[World, np.random.Generator], LM]] = {
    "under-forgotten": under_forgotten,
    "half of the people": half,
    "refuses": refuses,
    "collapsed": collapsed,
    "noise on the weights": noisy,
    "logits flattened": flattened,
}


def judged(world: World) -> Iterator[dict[str, Any]]:
    """A row for each model of a world: the target, two fakes of each kind, four oracles."""
    rng = np.random.default_rng([31, world.seed])
    people = {side: rng.permutation(sorted({r.subject for r in world.sides[side]}))[:JUDGED] for side in world.sides}
    sample, everybody = tables(world, world.target, people)

    def row(kind: str, lm: LM) -> dict[str, Any]:
        seen, whole = tables(world, lm, people)
        found = verdict.decide(GATE, Evidence(seen, sample, {}, {}, {}))
        return {
            "world": world.seed,
            "kind": kind,
            "outcome": verdict.overall(found),
            "misses": [str(c) for c in GATE.conditions if missed(c, whole, everybody)],
            "values": {c.metric: round(whole[c.metric]["agg_value"], 4) for c in GATE.conditions},
            "findings": {f.condition: f.outcome for f in found},
        }

    yield row("target", world.target)
    for kind, make in FAKES.items():
        for _ in range(2):
            yield row(kind, make(world, rng))
    for seed in range(1, 5):
        yield row("oracle", world.trained(world.sides["retain"], 1000 * world.seed + seed))


def missed(condition: Condition, own: Entries, target: Entries) -> bool:
    """Whether a model's own numbers, taken as exact, are on the wrong side of a bound."""
    value = own[condition.metric]["agg_value"]
    if condition.at_most is not None:
        return bool(value > condition.at_most)
    assert condition.at_least is not None
    return bool(value < condition.at_least * target[condition.metric]["agg_value"])


def tables(world: World, lm: LM, people: Mapping[str, Any]) -> tuple[Entries, Entries]:
    """The numbers of a model over the people that the gate sees, at its confidence; and over all of them."""
    whole = {side: scoring.score_items(lm, rows) for side, rows in world.items.items()}
    seen = {side: table.filter(pc.is_in(table["subject"], pa.array(people[side]))) for side, table in whole.items()}
    how = Bootstrap(2000, world.seed, 2 * GATE.confidence - 1)
    return entries(seen, how), entries(whole, Bootstrap(2))


def entries(sets: Mapping[str, pa.Table], how: Bootstrap) -> Entries:
    """The numbers in score tables."""
    measured = {side: Measured.of(table) for side, table in sets.items()}
    return judge(measured, None, measure.convention("expunge"), how).entries()


def report(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The outcomes by kind as Markdown, and how often fakes and oracles pass, with exact one-sided 95 % bounds."""
    yield "| kind | models | miss the gate | PASS | INCONCLUSIVE | FAIL | forget | extraction | retain |"
    yield "|---" * 9 + "|"
    for kind in ("target", *FAKES, "oracle"):
        mine = [row for row in rows if row["kind"] == kind]
        if mine:
            counts = [sum(row["outcome"] == what for row in mine) for what in OUTCOMES]
            spans = [span([row["values"][c.metric] for row in mine]) for c in GATE.conditions]
            cells = [kind, len(mine), sum(bool(row["misses"]) for row in mine), *counts, *spans]
            yield "| " + " | ".join(map(str, cells)) + " |"
    fakes = [row for row in rows if row["kind"] in FAKES and row["misses"]]
    oracles = [row for row in rows if row["kind"] == "oracle" and not row["misses"]]
    wrong, right = (sum(row["outcome"] == "PASS" for row in some) for some in (fakes, oracles))
    most, least = clopper_pearson(wrong, len(fakes), 0.9)[1], clopper_pearson(right, len(oracles), 0.9)[0]
    yield f"\nFakes that pass: {wrong} of {len(fakes)}, with 95 % confidence at most {most:.2%}."
    yield f"Oracles that pass: {right} of {len(oracles)}, with 95 % confidence at least {least:.1%}."


def span(values: Sequence[float]) -> str:
    """'.03 to .71'."""
    return " to ".join(f"{value:.2f}".replace("0.", ".") for value in (min(values), max(values)))


if __name__ == "__main__":
    main()
