"""The recipe: every setting of a run, its default and its meaning. Defaults < YAML file < dotted overrides.

All faults of a recipe are reported at once; an unknown key is an error with a suggestion.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from expunge.errors import RecipeError

PositiveInt = Annotated[int, Field(gt=0)]
Text = str | None


class Section(BaseModel):
    """One level of the recipe: unknown keys are refused, values are checked, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class FreshModel(Section):
    """A small Llama with random weights, and a byte-level BPE tokenizer fitted on the training text."""

    hidden_size: PositiveInt = Field(256, description="width of the hidden states")
    intermediate_size: PositiveInt = Field(704, description="width of the feed-forward layers")
    num_hidden_layers: PositiveInt = Field(4, description="number of layers")
    num_attention_heads: PositiveInt = Field(4, description="attention heads a layer")
    vocab_size: PositiveInt = Field(4096, description="size of the tokenizer that is fitted")
    max_position_embeddings: PositiveInt = Field(512, description="longest text, in tokens")
    tie_word_embeddings: bool = Field(True, description="share the embedding with the head")


class Model(Section):
    """Which model, and how it is loaded. Names and folders as in transformers."""

    model_name_or_path: Text = Field(None, description="hub name or folder of the model to change")
    model_revision: Text = Field(None, description="branch, tag or commit on the hub")
    tokenizer_name_or_path: Text = Field(None, description="another tokenizer than the model's own")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="type of the weights")
    attn_implementation: Text = Field(None, description="sdpa, eager, flash_attention_2; the library's choice if not set")
    allow_pickle: bool = Field(False, description="accept weights in pickle files, which can run code")
    fresh: FreshModel | None = Field(None, description="make a small model from scratch instead of loading one")


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


class Data(Section):
    """The records to forget, to keep, and never to be trained on; and how they become tokens."""

    forget: Source | None = Field(None, description="what the model must forget")
    retain: Source | None = Field(None, description="what the model must keep")
    holdout: Source | None = Field(None, description="like the forget set, never trained on; for membership tests")
    template: str = Field("auto", description="auto, chat, or text with {prompt} and {answer}")
    system_prompt: Text = Field(None, description="system message of the chat template")
    date_string: Text = Field(None, description="date given to chat templates that print one")
    max_length: PositiveInt = Field(512, description="longest text in tokens; longer ones are cut and counted")
    score_eos: bool = Field(True, description="the end-of-text token counts as a token of the answer")
    boundary: Literal["any", "all"] = Field("any", description="a token is in a span if any, or all, of its characters are")


class TermSpec(Section):
    """One term of the loss: an objective on the tokens that a score and a selector weight."""

    objective: str | dict[str, Any] = Field(description="such as ga, npo:beta=0.1, nll, kl")
    on: Literal["forget", "retain", "general"] = Field("forget", description="which batch the term reads")
    score: str | dict[str, Any] = Field("uniform", description="which tokens carry the knowledge")
    select: str | dict[str, Any] = Field("raw", description="how scores become weights")
    tokens: Literal["selected", "unselected", "all"] = Field("selected", description="which tokens the term reads")
    modulate: str | dict[str, Any] | None = Field(None, description="a score that multiplies the selected weights")
    coef: float = Field(1.0, description="factor of the term")


class Method(Section):
    """A preset by name, or the terms of the loss; and what replaces the weights in a control run."""

    preset: Text = Field(None, description="a published method by name; `expunge list` prints them")
    forget_coef: float | None = Field(None, description="replaces the preset's factor of the forget terms")
    retain_coef: float | None = Field(None, description="replaces the preset's factor of the retain terms")
    terms: tuple[TermSpec, ...] = Field((), description="the terms of the loss; instead of a preset")
    control: Literal["none", "random", "shuffle", "invert"] = Field(
        "none", description="random: other tokens, same weights; shuffle: weights permuted; invert: the others"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Method:
        if self.preset is not None and self.terms:
            raise ValueError("give either a preset or terms, not both")
        return self


class Train(Section):
    """How the weights are updated. Names and meanings as in transformers' TrainingArguments."""

    num_train_epochs: float = Field(10.0, gt=0, description="passes over the forget set (fine-tuning: over all records)")
    max_steps: int = Field(-1, description="stop after so many updates; -1: as many as the epochs need")
    per_device_train_batch_size: PositiveInt = Field(8, description="forget records in a micro-batch")
    gradient_accumulation_steps: PositiveInt = Field(4, description="micro-batches an update")
    learning_rate: float = Field(1e-5, gt=0, description="peak step size of AdamW")
    weight_decay: float = Field(0.01, ge=0, description="decoupled; none on biases and norms")
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    max_grad_norm: float = Field(1.0, ge=0, description="gradients are scaled down to this norm; 0: never")
    warmup_epochs: float = Field(0.0, ge=0, description="epochs until the peak step size")
    warmup_steps: int = Field(0, ge=0, description="updates until the peak step size; replaces warmup_epochs")
    lr_scheduler_type: Literal["linear", "constant", "cosine"] = Field("linear", description="after the warm-up")
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, more time")
    bf16: bool = Field(False, description="mixed precision in bfloat16")
    head: Literal["fused", "naive"] = Field("fused", description="chunked vocabulary work, or whole logits in memory")
    trainable: Text = Field(None, description="regular expression: only parameters whose name it finds are trained")
    logging_steps: PositiveInt = Field(1, description="updates between two lines of the log")
    save_steps: int = Field(0, ge=0, description="updates between two checkpoints; 0: one an epoch")
    save_total_limit: PositiveInt = Field(2, description="checkpoints kept")
    report_to: tuple[str, ...] = Field((), description="accelerate trackers, such as tensorboard")


class Evaluation(Section):
    """What is measured before and after."""

    suite: Literal["none", "tofu"] = Field("tofu", description="which evaluation is run after training")
    data_dir: Text = Field(None, description="folder with the suite's files; the hub if not set")
    forget_split: str = Field("forget01", description="TOFU's forget split: forget01, forget05, forget10")
    limit: PositiveInt | None = Field(None, description="at most so many records of each evaluation set")
    max_new_tokens: PositiveInt = Field(200, description="longest generated answer")
    generate: bool = Field(True, description="generate answers for ROUGE; without it the metrics that need it are absent")
    token_budget: PositiveInt = Field(2048, description="tokens of one scoring batch, padding included")
    resamples: PositiveInt = Field(2000, description="bootstrap resamples of each interval")
    oracle: Text = Field(None, description="model retrained without the forget set, or its run folder")


class Recipe(Section):
    """One run of expunge, completely described."""

    name: str = Field("run", description="name of the run")
    seed: int = Field(0, ge=0, description="all that is random follows from it")
    output_dir: str = Field("runs/run", description="the run folder")
    overwrite: bool = Field(False, description="replace another run in output_dir")
    device: str = Field("auto", description="auto, cpu, cuda, mps")
    plugins: tuple[str, ...] = Field((), description="Python files with your own methods")
    model: Model = Field(default_factory=Model)
    reference: Text = Field(None, description="frozen model that losses compare with; the starting weights if not set")
    data: Data = Field(default_factory=Data)
    method: Method = Field(default_factory=Method)
    train: Train = Field(default_factory=Train)
    finetune: Train | None = Field(None, description="make the target, and its oracle, from `model` first, so trained")
    evaluation: Evaluation = Field(default_factory=Evaluation)


def load(source: str | Path | Mapping[str, Any] | None = None, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a YAML file (or a mapping) with `a.b=c` overrides applied; RecipeError names every fault."""
    name = "recipe"
    tree: dict[str, Any] = {}
    if isinstance(source, Mapping):
        tree = {**source}
    elif source is not None:
        name, tree = str(source), _read_yaml(Path(source))
    faults: list[str] = []
    for override in overrides:
        _apply(tree, override, faults)
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        faults += [_fault(e) for e in error.errors()]
        recipe = None
    if faults or recipe is None:
        raise RecipeError(faults, name)
    return recipe


def dump(recipe: Recipe) -> str:
    """The recipe as YAML that `load` reads back to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RecipeError([f"there is no file '{path}'"], str(path))
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError([f"not valid YAML: {' '.join(str(error).split())}"], str(path)) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise RecipeError([f"expected a mapping of settings, found {type(tree).__name__}"], str(path))
    return tree


def _apply(tree: dict[str, Any], override: str, faults: list[str]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        faults.append(f"override '{override}': expected key=value, such as train.learning_rate=1e-5")
        return
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    *parents, last = key.strip().lstrip("-").split(".")
    node = tree
    for part in parents:
        child = node.get(part)
        child = dict(child) if isinstance(child, dict) else {}
        node[part] = child
        node = child
    node[last] = value


def _fault(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"]) or "recipe"
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(error["loc"][-1]), _keys_at(error["loc"][:-1]), n=1, cutoff=0.5)
        hint = f"; did you mean '{close[0]}'?" if close else f". There are: {', '.join(_keys_at(error['loc'][:-1]))}"
        return f"{path}: unknown key{hint}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{path}: {message}" + ("" if isinstance(error["input"], dict) else f" (got {error['input']!r})")


def _keys_at(location: tuple[Any, ...]) -> list[str]:
    section: Any = Recipe
    for part in location:
        if isinstance(part, int):
            continue
        section = _section_of(section.model_fields[part].annotation)
    return list(section.model_fields)


def _section_of(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(s for s in map(_section_of, annotation.__args__) if s is not None) if hasattr(annotation, "__args__") else None
