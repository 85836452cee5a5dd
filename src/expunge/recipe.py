"""The recipe: every setting of a run, its default and its meaning. Defaults < YAML file < dotted overrides.

All faults of a recipe are reported at once; an unknown key is an error with a suggestion. The schema decides what a
value is: a text field keeps `no` and `012` as they were written, a number field reads `1e-5`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from expunge import presets
from expunge.errors import MethodError, RecipeError, unknown
from expunge.evaluation import Evaluation
from expunge.faults import fault_lines
from expunge.plainyaml import override, read
from expunge.search import Sweep
from expunge.sections import Adapter, FreshModel, Names, PositiveInt, Section, Spec, Text

Verb = Literal["run", "finetune"]
_S = TypeVar("_S", bound=BaseModel)

_ARM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_OTHER_NAMES = {
    "lr": "train.learning_rate",
    "epochs": "train.num_train_epochs",
    "batch_size": "train.per_device_train_batch_size",
    "steps": "train.max_steps",
    "torch_dtype": "model.dtype",
    "gamma": "method.forget_coef",
    "alpha": "method.retain_coef",
    "output": "output_dir",
}
"""Names that people bring along from other tools, and where they are here."""


class Model(Section):
    """Which model, and how it is loaded. Names and folders as in transformers."""

    model_name_or_path: Text = Field(None, description="hub name or folder of the model to change")
    model_revision: Text = Field(None, description="branch, tag or commit on the hub")
    tokenizer_name_or_path: Text = Field(None, description="another tokenizer than the model's own")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="type of the weights")
    attn_implementation: Text = Field(
        None, description="sdpa, eager, flash_attention_2; the library's choice if not set"
    )
    allow_pickle: bool = Field(False, description="accept weights in pickle files, which can run code")
    quantization: Literal["none", "int8", "nf4"] = Field(
        "none", description="quantise the weights while loading (bitsandbytes); an adapter is trained beside them"
    )
    fresh: FreshModel | None = Field(None, description="make a small model from scratch instead of loading one")

    @model_validator(mode="after")
    def _check(self) -> Model:
        if self.fresh is not None and self.model_name_or_path is not None:
            raise ValueError("give either model_name_or_path or fresh, not both")
        return self


class Source(Section):
    """Where records come from: a file or folder, or a data set of the hub."""

    path: Text = Field(None, description="file (JSON, JSONL, CSV, Parquet) or folder")
    dataset_name: Text = Field(None, description="data set on the hub, such as locuslab/TOFU")
    dataset_config: Text = Field(None, description="configuration of the hub data set, such as forget01")
    dataset_split: str = Field("train", description="split of the hub data set")
    columns: dict[str, str] = Field(default_factory=dict, description="our field: your column; guessed where not given")
    annotations: Text = Field(None, description="annotation file whose spans go to the scorer 'given'")
    skip: int = Field(0, ge=0, description="records left out at the beginning")
    limit: PositiveInt | None = Field(None, description="at most so many records")

    @model_validator(mode="after")
    def _check(self) -> Source:
        if (self.path is None) == (self.dataset_name is None):
            raise ValueError("give either path (a file or folder) or dataset_name (on the hub)")
        if self.dataset_config is not None and self.dataset_name is None:
            raise ValueError("dataset_config belongs to dataset_name, and path is given")
        return self


class Neighbours(Section):
    """A retain set that the model writes itself before it forgets: its answers to like questions about others."""

    per_record: PositiveInt = Field(2, description="questions about others for each forget record that names somebody")
    names: Names = Field((), description="whom to ask about; names of nobody in particular if not given")
    general: bool = Field(True, description="also ask some general questions")
    max_new_tokens: PositiveInt = Field(128, description="longest answer; longer ones are not kept")


class Alternatives(Section):
    """Other answers that the model writes itself before it forgets, for objectives with alternatives=own."""

    per_record: PositiveInt = Field(5, description="answers sampled for each record")
    temperature: float = Field(1.0, gt=0, description="of the sampling")
    max_new_tokens: PositiveInt = Field(200, description="longest answer")


class Data(Section):
    """The records to forget, to keep, and never to be trained on; and how they become tokens."""

    forget: Source | None = Field(None, description="what the model must forget")
    retain: Source | None = Field(None, description="what the model must keep")
    holdout: Source | None = Field(None, description="like the forget set, never trained on; for membership tests")
    training: Source | None = Field(None, description="what the model was trained on: retain is drawn from it if unset")
    neighbours: Neighbours | None = Field(
        None, description="let the model write a retain set; where neither retain nor training can be given"
    )
    refusals: Text = Field(None, description="text file of refusals, one a line; built in if not set")
    alternatives: Alternatives = Field(
        default_factory=Alternatives, description="how the model writes other answers where records bring none"
    )
    general: Source | None = Field(None, description="what else a target is trained on, and the model must keep")
    template: str = Field("auto", description="auto, chat, or text with {prompt} and {answer}")
    system_prompt: Text = Field(None, description="system message of the chat template")
    date_string: Text = Field(None, description="date given to chat templates that print one")
    max_length: PositiveInt = Field(512, description="longest text in tokens; longer ones are cut and counted")
    score_eos: bool = Field(True, description="the end-of-text token counts as a token of the answer")
    boundary: Literal["any", "all"] = Field(
        "any", description="a token is in a span if any, or all, of its characters are"
    )

    @model_validator(mode="after")
    def _check(self) -> Data:
        if self.template not in ("auto", "chat") and not ("{prompt}" in self.template and "{answer}" in self.template):
            raise ValueError("template must be auto, chat, or a text with {prompt} and {answer}")
        given = [name for name in ("retain", "training") if getattr(self, name) is not None]
        if self.neighbours is not None and given:
            raise ValueError(f"neighbours stand in for a retain set, and data.{given[0]} is given; leave one out")
        return self


class Constraint(Section):
    """A term held below a level: its factor rises while its mean is above, falls while it is below (primal-dual)."""

    at_most: float = Field(description="the level, in the objective's unit")
    start: float = Field(1.0, ge=0, description="the factor (dual variable) at first")
    rate: float = Field(1.0, gt=0, description="how far the factor moves in an update for each unit above the level")
    warmup_epochs: float = Field(0.0, ge=0, description="epochs in which the factor does not move")


class TermSpec(Section):
    """One term of the loss: an objective on the tokens that a score and a selector weight."""

    objective: Spec = Field(description="such as ga, npo:beta=0.1, nll, kl")
    on: Literal["forget", "retain", "general"] = Field("forget", description="which batch the term reads")
    score: Spec = Field("uniform", description="which tokens carry the knowledge")
    select: Spec = Field("raw", description="how scores become weights")
    tokens: Literal["selected", "unselected", "all"] = Field("selected", description="which tokens the term reads")
    modulate: Spec | None = Field(None, description="a score that multiplies the selected weights")
    coef: float = Field(1.0, description="factor of the term")
    constraint: Constraint | None = Field(None, description="hold the term below a level, in place of a fixed factor")


class Method(Section):
    """A preset by name, or the terms of the loss; and what replaces the weights in a control run."""

    preset: Text = Field(None, description="a published method by name; `expunge list` prints them")
    forget_coef: float | None = Field(None, description="replaces the preset's factor of the forget terms")
    retain_coef: float | None = Field(None, description="replaces the preset's factor of the retain terms")
    terms: tuple[TermSpec, ...] = Field((), description="the terms of the loss; instead of a preset")
    negate: float | None = Field(
        None, ge=0, description="after training, go as far from the start the other way, times this (task vectors)"
    )
    combine: Literal["sum", "project", "sago"] = Field(
        "sum",
        description="how the gradients of what forgets and of the other terms meet; project: without the part of the "
        "former against the latter; sago: the former where their signs agree, else the latter",
    )
    control: Literal["none", "random", "shuffle", "invert", "grad-matched", "update-matched"] = Field(
        "none",
        description="random: other tokens, same weights; shuffle: weights permuted; invert: the others; "
        "grad-matched, update-matched: uniform weights, as strong as the method",
    )
    paired_run: Text = Field(
        None, description="for update-matched: the method's run folder, or the arm of this recipe that is it"
    )

    @model_validator(mode="after")
    def _check(self) -> Method:
        if self.preset is not None and self.terms:
            raise ValueError("give either a preset or terms, not both")
        if self.preset is None and (self.forget_coef is not None or self.retain_coef is not None):
            raise ValueError("forget_coef and retain_coef replace a preset's factors; a term has a coef of its own")
        if self.paired_run is not None and self.control != "update-matched":
            raise ValueError(f"paired_run belongs to control update-matched, and control is {self.control}")
        return self


class Train(Section):
    """How the weights are updated. Names and meanings as in transformers' TrainingArguments."""

    num_train_epochs: float = Field(
        10.0, gt=0, description="passes over the forget set (fine-tuning: over all records)"
    )
    max_steps: int = Field(-1, ge=-1, description="stop after so many updates; -1: as many as the epochs need")
    per_device_train_batch_size: PositiveInt = Field(8, description="forget records in a micro-batch")
    gradient_accumulation_steps: PositiveInt = Field(4, description="micro-batches an update")
    group_by_length: bool = Field(False, description="texts of like length in one step: less padding, less mixing")
    learning_rate: float = Field(1e-5, gt=0, description="peak step size of AdamW")
    weight_decay: float = Field(0.01, ge=0, description="decoupled; none on biases and norms")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="decay of AdamW's mean of gradients")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="decay of AdamW's mean of squared gradients")
    adam_epsilon: float = Field(1e-8, gt=0, description="keeps AdamW's division finite")
    max_grad_norm: float = Field(1.0, ge=0, description="gradients are scaled down to this norm; 0: never")
    sam_radius: float = Field(
        0.0, ge=0, description="differentiate what forgets so far up its gradient, where it is worst (SAM); 0: off"
    )
    warmup_epochs: float = Field(0.0, ge=0, description="epochs until the peak step size")
    warmup_steps: int = Field(0, ge=0, description="updates until the peak step size; replaces warmup_epochs")
    lr_scheduler_type: Literal["linear", "constant", "cosine"] = Field("linear", description="after the warm-up")
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, more time")
    bf16: bool = Field(False, description="mixed precision in bfloat16")
    head: Literal["fused", "naive"] = Field("fused", description="chunked vocabulary work, or whole logits in memory")
    adapter: Adapter | None = Field(None, description="train a low-rank adapter in place of the weights")
    trainable: Text = Field(None, description="regular expression: only parameters whose name it finds are trained")
    logging_steps: PositiveInt = Field(1, description="updates between two lines of the log")
    save_steps: int = Field(0, ge=0, description="updates between two checkpoints; 0: one an epoch")
    save_total_limit: PositiveInt = Field(2, description="checkpoints kept")
    trace: bool = Field(True, description="keep token weights and the drift of some records, epoch by epoch")
    report_to: Names = Field((), description="accelerate trackers, such as tensorboard")
    num_processes: PositiveInt | None = Field(
        None, description="how many processes torchrun must have started; as many as there are if not set"
    )

    @model_validator(mode="after")
    def _check(self) -> Train:
        if self.max_steps == 0:
            raise ValueError("max_steps must be -1 or at least 1")
        if self.max_steps < 0 and self.warmup_epochs > self.num_train_epochs:
            raise ValueError(f"warmup_epochs must not be beyond num_train_epochs (got {self.warmup_epochs:g})")
        if self.trainable is not None:
            _check_pattern(self.trainable)
        return self


class Finetune(Section):
    """How target and oracle are made from `model` before anything is forgotten."""

    output_dir: str = Field("runs/models", min_length=1, description="folder for the runs target/ and oracle/")
    oracle: bool = Field(True, description="also train one model without the forget set, to compare with")
    seed: int | None = Field(None, ge=0, lt=2**32, description="seed of target and oracle; the recipe's if not set")
    train: Train = Field(default_factory=Train)


class _Plugins(Section):
    """The one key that must be read before method names can be judged."""

    plugins: Names = ()


class Recipe(Section):
    """One run of expunge, completely described."""

    name: str = Field("run", description="name of the run")
    seed: int = Field(0, ge=0, lt=2**32, description="all that is random follows from it")
    seeds: PositiveInt = Field(1, description="so many runs, of seed, seed + 1, ..., beside each other in output_dir")
    arms: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="variants by name, each a list of key=value; run beside each other"
    )
    output_dir: str = Field("runs/run", min_length=1, description="the run folder")
    overwrite: bool = Field(False, description="replace another run in output_dir")
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:1, mps")
    plugins: Names = Field((), description="Python files with your own methods")
    model: Model = Field(default_factory=Model)
    reference: Literal["auto", "cache", "live", "adapter-off"] = Field(
        "auto",
        description="how the frozen reference is kept; cache: its numbers; live: a second model; adapter-off: the "
        "model without its adapter; auto: by what is read of it and what it takes",
    )
    reference_model: Text = Field(
        None, description="frozen model that losses compare with; the starting weights if not set"
    )
    published: Text = Field(
        None, description="settings of a paper, such as npo/tofu; `expunge show npo` names them. The recipe's own count"
    )
    data: Data = Field(default_factory=Data)
    method: Method = Field(default_factory=Method)
    train: Train = Field(default_factory=Train)
    finetune: Finetune | None = Field(None, description="make the target, and its oracle, from `model` first")
    evaluation: Evaluation = Field(default_factory=Evaluation)
    sweep: Sweep | None = Field(None, description="how `expunge sweep` tunes every arm before it runs them")

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        faults = list(_across(self))
        if faults:
            raise ValueError("\n".join(faults))
        return self


def load(
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
    also: Callable[[Method, tuple[str, ...]], Iterable[str]] | None = None,
) -> Recipe:
    """The recipe of a YAML file (or a mapping) with `a.b=c` overrides applied; RecipeError names every fault.

    `also` gets the method section and the plugins, if these are in order, and may find further faults.
    """
    name = str(source) if isinstance(source, (str, Path)) else "recipe"
    faults: list[str] = []
    tree: dict[Any, Any] = {}
    try:
        tree = copy.deepcopy(dict(source)) if isinstance(source, Mapping) else read(Path(source)) if source else {}
    except ValueError as error:
        raise RecipeError([str(error)], name) from None
    try:
        tree = _over_published(tree)
    except MethodError as error:
        faults.append(f"published: {error}")
    for assignment in overrides:
        try:
            for each in _spread(assignment):
                override(tree, each)
        except (ValueError, MethodError) as error:
            faults.append(f"override {error}")
    recipe = _validated(Recipe, tree, faults)
    method = _validated(Method, tree.get("method") or {}, [])
    if also is not None and method is not None:
        plugins = _validated(_Plugins, {"plugins": tree.get("plugins") or ()}, [])
        faults += also(method, plugins.plugins if plugins is not None else ())
    if faults or recipe is None:
        raise RecipeError(faults, name)
    return recipe


def _spread(assignment: str) -> list[str]:
    """The assignment; behind `published=NAME` those that the published settings of that name stand for."""
    key, _, name = assignment.partition("=")
    if key.strip().lstrip("-") != "published":
        return [assignment]
    return [assignment, *(f"{place}={value}" for place, value in presets.published(name.strip()).items())]


def _over_published(tree: dict[Any, Any]) -> dict[Any, Any]:
    """The tree, and beneath it what the published settings say that it names."""
    if not isinstance(tree.get("published"), str):
        return tree
    beneath: dict[Any, Any] = {}
    for place, value in presets.published(tree["published"]).items():
        override(beneath, f"{place}={value}")
    return _laid_over(beneath, tree)


def _laid_over(lower: Mapping[Any, Any], upper: Mapping[Any, Any]) -> dict[Any, Any]:
    """The keys of both; where both have one, the upper's, mappings again key by key."""
    out = {**lower, **upper}
    for key in lower.keys() & upper.keys():
        if isinstance(lower[key], Mapping) and isinstance(upper[key], Mapping):
            out[key] = _laid_over(lower[key], upper[key])
    return out


def variants(recipe: Recipe) -> list[Recipe]:
    """The single runs that a recipe with arms or seeds stands for; the recipe alone if it has neither.

    Each has its own folder in output_dir: ARM, ARM-SEED or seed-SEED. All share the target and the oracle of the first
    seed, so that what differs between seeds is the unlearning. RecipeError names every fault of every arm.
    """
    if not recipe.arms and recipe.seeds == 1:
        return [recipe]
    tree = recipe.model_dump(mode="json", exclude={"arms", "seeds", "sweep"})
    if recipe.finetune is not None and recipe.finetune.seed is None:
        tree["finetune"]["seed"] = recipe.seed
    found, faults = [], []
    for arm, overrides in (recipe.arms or {"": ()}).items():
        for seed in range(recipe.seed, recipe.seed + recipe.seeds):
            folder = "-".join(filter(None, (arm or "seed", str(seed) if recipe.seeds > 1 else "")))
            own = {"name": arm or recipe.name, "seed": seed, "output_dir": str(Path(recipe.output_dir) / folder)}
            try:
                found.append(load({**tree, **own}, overrides))
            except RecipeError as error:
                faults += [f"arms.{arm}: {fault}" for fault in error.faults if seed == recipe.seed]
    paired = [_paired(variant, found) for variant in found]
    faults += dict.fromkeys(fault for _, fault in paired if fault)
    if faults:
        raise RecipeError(faults, recipe.name)
    return [variant for variant, _ in paired]


def _paired(variant: Recipe, found: Sequence[Recipe]) -> tuple[Recipe, str]:
    """The variant with the folder of the arm that its paired_run names, or is; and what is wrong with that."""
    method = variant.method
    if method.control != "update-matched":
        return variant, ""
    same_seed = [other for other in found if other.seed == variant.seed]
    if method.paired_run is not None:
        alike = [o for o in same_seed if o is not variant and o.name == method.paired_run]
    else:
        bare = variant.model_copy(update={"method": method.model_copy(update={"control": "none"})})
        alike = [o for o in same_seed if o == bare.model_copy(update={"name": o.name, "output_dir": o.output_dir})]
    if not alike:
        return variant, ""  # a folder, or nothing: both are judged where the run starts
    if same_seed.index(alike[0]) > same_seed.index(variant):
        return variant, f"arms.{variant.name}: its pair, {alike[0].name}, runs after it; put that arm first"
    update = {"method": method.model_copy(update={"paired_run": alike[0].output_dir})}
    return variant.model_copy(update=update), ""


def dump(recipe: Recipe) -> str:
    """The recipe as YAML that `load` reads back to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def missing(recipe: Recipe, verb: Verb) -> list[str]:
    """What a recipe must still say before `verb` can run; empty if nothing."""
    faults = []
    if recipe.model.model_name_or_path is None and recipe.model.fresh is None:
        faults.append("model.model_name_or_path: not set; name the model to change, on the hub or a folder")
    if recipe.data.forget is None:
        faults.append("data.forget: not set; say what must be forgotten, such as data.forget.path=mine.jsonl")
    if verb == "run":
        if recipe.method.preset is None and not recipe.method.terms:
            faults.append("method: neither a preset nor terms; `expunge list` names the presets")
        if recipe.method.control == "update-matched" and recipe.method.paired_run is None:
            faults.append("method.paired_run: not set; update-matched needs the run folder of the method itself")
        if recipe.model.fresh is not None and recipe.finetune is None:
            faults.append("model.fresh: a model with random weights has nothing to forget; add a finetune section")
    return faults


def _across(recipe: Recipe) -> Iterator[str]:
    """Faults that only several sections together show."""
    for arm in recipe.arms:
        if not _ARM.fullmatch(arm):
            yield f"arms: '{arm}' is not a folder name; use letters, digits, '.', '_', '-'"
    each_epoch = recipe.evaluation.each_epoch
    if each_epoch is not None and each_epoch.keep_best is not None and recipe.method.negate is not None:
        yield "evaluation.each_epoch.keep_best: no epoch's model is the result where method.negate goes the other way"
    for arm in recipe.sweep.arm_space if recipe.sweep is not None else ():
        if arm not in recipe.arms:
            yield f"sweep.arm_space: {unknown('arm', arm, recipe.arms)}"
    fresh, data = recipe.model.fresh, recipe.data
    if fresh is not None and fresh.max_position_embeddings < data.max_length:
        yield f"data.max_length: {data.max_length} is beyond model.fresh.max_position_embeddings"
    if recipe.train.bf16 and recipe.model.dtype == "float16":
        yield "train.bf16: mixed precision in bfloat16 does not go with model.dtype float16"
    adapter = recipe.train.adapter
    if adapter is not None and adapter.save == "merged" and recipe.model.quantization != "none":
        yield (
            f"train.adapter.save: nothing can be merged into weights in {recipe.model.quantization}; set it to adapter"
        )
    if recipe.reference == "adapter-off" and adapter is None:
        yield "reference: adapter-off needs train.adapter: without one there is nothing to switch off"
    if recipe.reference == "adapter-off" and recipe.reference_model is not None:
        yield "reference: adapter-off is the model before the adapter, and reference_model names another"
    if recipe.finetune is not None and recipe.finetune.train.sam_radius:
        yield "finetune.train.sam_radius: sharpness-aware steps are for what forgets; set it in train"
    for side, source in (("retain", data.retain), ("holdout", data.holdout)):
        if source is not None and source == data.forget:
            yield f"data.{side}: reads the same records as data.forget"


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"trainable is not a regular expression: {error}") from None


def _validated(section: type[_S], tree: Any, faults: list[str]) -> _S | None:
    try:
        return section.model_validate(tree)
    except ValidationError as error:
        faults += fault_lines(section, error, _OTHER_NAMES)
    return None
