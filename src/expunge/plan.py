"""What a recipe would load and train, and what that takes: computed without weights, without a run folder.

Counts are exact where the records and the tokenizer are on this machine and estimates elsewhere (marked so). Memory is
that of weights, gradients, AdamW's two moments, the start kept for the drift, a reference's copy, activations, logits
and libraries, within 15 % of what runs took on a CPU (benchmarks/memory.py); time is floating-point operations at a
share of the speed that this machine shows in a matrix product. What is read before the first step stands in
`groundwork`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from expunge.data import load
from expunge.data.neighbours import ask
from expunge.data.records import Record, Split
from expunge.errors import DataError
from expunge.footprint import EFFICIENCY, Amount, Shape, disk, measure_speed, memory, shape_of, total
from expunge.groundwork import Work, groundwork, kept
from expunge.recipe import Model, Recipe, Source, Train
from expunge.refcache import Choice, Kept
from expunge.sampling import Sampler
from expunge.terms import Term, build_terms

_TOFU_SIZES = {
    "forget01": 40,
    "forget05": 200,
    "forget10": 400,
    "holdout01": 40,
    "holdout05": 200,
    "holdout10": 400,
    "retain99": 3960,
    "retain95": 3800,
    "retain90": 3600,
    "full": 4000,
}
_TOFU_TOKENS = 60
_CHARACTERS_A_TOKEN = 4
_SAMPLE = 200


@dataclass(frozen=True)
class SidePlan:
    """One set of records: where it comes from, how many, and the tokens of all of them."""

    name: str
    where: str
    records: Amount
    tokens: Amount


@dataclass(frozen=True)
class Stage:
    """One training: what is trained, on what, in how many steps, and what that takes; `disk` in bytes, 0 if unknown."""

    name: str
    steps: Amount
    steps_per_epoch: int | None
    memory: Mapping[str, int]
    seconds: float | None
    disk: int = 0


@dataclass(frozen=True)
class Plan:
    """All of a recipe's run."""

    model: str
    shape: Shape
    sides: Mapping[str, SidePlan]
    terms: tuple[str, ...]
    reference: Choice
    groundwork: tuple[Work, ...]
    stages: tuple[Stage, ...]
    evaluation: str
    output_dir: str


def plan(recipe: Recipe, flops_a_second: float | None = None) -> Plan:
    """The plan of a recipe. Reads local data and configurations, never weights; loads nothing from the hub.

    `flops_a_second` replaces the measurement of this machine.
    """
    terms = build_terms(recipe.method)
    tokenizer = tokenizer_of(recipe.model)
    sources: dict[str, tuple[Source | None, Split]] = {
        "forget": (recipe.data.forget, "forget"),
        "retain": (recipe.data.retain, "retain"),
        "holdout": (recipe.data.holdout, "holdout"),
        "general": (recipe.data.general, "general"),
    }
    sides = {name: _side(name, s, split, recipe, tokenizer) for name, (s, split) in sources.items() if s is not None}
    if recipe.data.retain is None:
        sides.update(_stand_in(recipe, sides, tokenizer))
    shape = shape_of(recipe.model)
    low = recipe.train.bf16 or recipe.model.dtype == "bfloat16"
    speed = measure_speed(low) if flops_a_second is None else flops_a_second
    tokens = {name: side.tokens for name, side in sides.items()}
    reference = kept(recipe, terms, tokens, shape)
    stages = tuple(_stages(recipe, terms, sides, shape, reference.kept, speed))
    return Plan(
        model=_model_name(recipe.model),
        shape=shape,
        sides=sides,
        terms=tuple(_term_text(term) for term in terms),
        reference=reference,
        groundwork=tuple(groundwork(recipe, terms, tokens, stages[-1].steps, shape, speed * EFFICIENCY)),
        stages=stages,
        evaluation=_evaluation(recipe),
        output_dir=recipe.output_dir,
    )


def _stages(
    recipe: Recipe, terms: Sequence[Term], sides: Mapping[str, SidePlan], shape: Shape, reference: Kept, speed: float
) -> Iterator[Stage]:
    general, forget, retain = (sides.get(name, _NOTHING) for name in ("general", "forget", "retain"))
    tuned = recipe.finetune
    for name, read in (("target", (forget, retain, general)), ("oracle", (retain, general))):
        if tuned is not None and (name == "target" or tuned.oracle):
            rows, tokens = total(*(s.records for s in read)), total(*(s.tokens for s in read))
            length = _ratio(tokens, rows)
            yield _stage(f"fine-tune the {name}", recipe, tuned.train, rows, length, shape, "nothing", speed)
    lengths = [_ratio(s.tokens, s.records) for s in sides.values() if any(term.on == s.name for term in terms)]
    together = None if None in lengths else sum(length for length in lengths if length is not None)
    yield _controlled(
        _stage("unlearn", recipe, recipe.train, forget.records, together, shape, reference, speed),
        recipe.method.control,
        recipe.method.combine,
    )


def _controlled(stage: Stage, control: str, combine: str) -> Stage:
    """The stage with what a control matched in strength, or a meeting of gradients, holds and computes beside it."""
    weights = stage.memory.get("weights", 0)
    if combine != "sum":
        return replace(stage, memory={**stage.memory, "gradients kept apart": 2 * weights})
    if control == "update-matched":
        return replace(stage, memory={**stage.memory, "parameters before the step": weights})
    if control != "grad-matched":
        return stage
    seconds = None if stage.seconds is None else stage.seconds * 8 / 6  # the forget batch is gone back over twice
    return replace(stage, memory={**stage.memory, "gradients kept apart": 2 * weights}, seconds=seconds)


def _stage(
    name: str, recipe: Recipe, train: Train, rows: Amount, tokens_a_row: float | None, shape: Shape, reference: Kept,
    speed: float,
) -> Stage:  # fmt: skip
    batch, micro = train.per_device_train_batch_size, train.gradient_accumulation_steps
    per_epoch = Sampler("rows", {"rows": rows.value}, batch, micro, 0).steps_per_epoch if rows.value else None
    steps = train.max_steps if train.max_steps > 0 else None
    if steps is None and per_epoch is not None:
        steps = math.ceil(train.num_train_epochs * per_epoch)
    in_batch = int(batch * (tokens_a_row or recipe.data.max_length))
    seconds = None
    if steps is not None and per_epoch and tokens_a_row is not None and shape.parameters.value is not None:
        passes = 6 + 2 * (reference in ("copied", "adapter off")) + 2 * train.gradient_checkpointing
        tokens = steps / per_epoch * (rows.value or 0) * tokens_a_row
        seconds = passes * shape.parameters.value * tokens / (speed * EFFICIENCY)
    sizes = memory(shape, recipe.model, train, in_batch, reference == "copied")
    return Stage(name, Amount(steps, rows.exact or train.max_steps > 0), per_epoch, sizes, seconds, disk(sizes, train))


def _side(name: str, source: Source, split: Split, recipe: Recipe, tokenizer: Any) -> SidePlan:
    if source.path is None:
        where = f"{source.dataset_name} ({source.dataset_config or 'default'}, {source.dataset_split}), from the hub"
        known = _TOFU_SIZES.get(source.dataset_config or "") if source.dataset_name == "locuslab/TOFU" else None
        rows = None if known is None else max(0, min(known - source.skip, source.limit or known))
        return SidePlan(name, where, Amount(rows), Amount(None if rows is None else rows * _TOFU_TOKENS, exact=False))
    records = load.load(source, split)
    if not records:
        raise DataError(f"data.{name}: '{source.path}' has no records")
    return SidePlan(name, source.path, Amount(len(records)), _tokens(records, recipe, tokenizer))


def _stand_in(recipe: Recipe, sides: Mapping[str, SidePlan], tokenizer: Any) -> dict[str, SidePlan]:
    """The retain set that is drawn from training data, or that the model will write; empty if neither is asked for."""
    data = recipe.data
    if data.training is not None:
        whole = _side("training", data.training, "retain", recipe, tokenizer)
        return {"retain": SidePlan("retain", f"drawn from {whole.where}", _about(whole.records), _about(whole.tokens))}
    if data.neighbours is None or data.forget is None or data.forget.path is None:
        return {}
    settings, forget = data.neighbours, sides["forget"]
    records = load.load(data.forget, "forget")
    asked = len(ask(records, settings.per_record, names=settings.names, general=settings.general))
    tokens = int(asked * (_ratio(forget.tokens, forget.records) or 0))
    where = "written by the model, those that may be kept of"
    return {"retain": SidePlan("retain", where, Amount(asked, exact=False), Amount(tokens, exact=False))}


def _about(amount: Amount) -> Amount:
    return Amount(amount.value, exact=False)


def _tokens(records: Sequence[Record], recipe: Recipe, tokenizer: Any) -> Amount:
    """Tokens of all records, prompts included: counted on a sample of them, or from characters without a tokenizer."""
    sample = records[:: max(1, len(records) // _SAMPLE)]
    if tokenizer is None:
        lengths = [len(r.prompt + r.body) // _CHARACTERS_A_TOKEN for r in sample]
    else:
        from expunge.data.encode import Encoder

        encoder = Encoder.from_recipe(tokenizer, recipe.data)
        lengths = [len(encoder.encode(r).input_ids) for r in sample]
    counted = tokenizer is not None and len(sample) == len(records)
    return Amount(round(mean(lengths) * len(records)), exact=counted)


def tokenizer_of(model: Model) -> Any:
    """The tokenizer if its folder is on this machine, else None."""
    folder = Path(model.tokenizer_name_or_path or model.model_name_or_path or "")
    if not (folder / "tokenizer_config.json").is_file():
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _model_name(model: Model) -> str:
    if model.fresh is not None:
        return "a Llama from scratch, with a tokenizer fitted on the records"
    name = model.model_name_or_path or "not set"
    if Path(name).is_dir():
        return f"{name} (a folder)"
    return f"{name}{'@' + model.model_revision if model.model_revision else ''} (from the hub)"


def _term_text(term: Term) -> str:
    """'0.1 * ga on forget, score entropy, select normalised'."""
    factor = f"{term.coef:g} *" if term.constraint is None else f"held at {term.constraint.at_most:g} or below:"
    parts = [f"{factor} {term.objective} on {term.on}"]
    if term.tokens == "all" or term.on != "forget":
        return parts[0]
    parts += [f"score {term.score}", f"select {term.select}"]
    parts += [f"tokens {term.tokens}"] if term.tokens != "selected" else []
    parts += [f"modulated by {term.modulate}"] if term.modulate is not None else []
    parts += [f"control {term.control}"] if term.control != "none" else []
    return ", ".join(parts)


def _evaluation(recipe: Recipe) -> str:
    settings = recipe.evaluation
    if settings.suite == "none":
        return "none"
    if settings.suite == "own":
        return "the recipe's own records"
    where = settings.data_dir or "the hub"
    part = settings.corpus if settings.suite == "muse" else settings.forget_split
    return f"{settings.suite} ({part}) from {where}; " + (
        f"oracle {settings.oracle}" if settings.oracle else "the oracle is made" if recipe.finetune else "no oracle"
    )


def _ratio(tokens: Amount, rows: Amount) -> float | None:
    return tokens.value / rows.value if tokens.value is not None and rows.value else None


_NOTHING = SidePlan("", "nowhere", Amount(0), Amount(0))
