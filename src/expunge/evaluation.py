"""The sections of a recipe that say what is measured: before and after, after each epoch, and by multiple choice."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from expunge.search import Stop
from expunge.sections import Names, PositiveInt, Section, Text


class Harness(Section):
    """Multiple-choice probes through lm-evaluation-harness, before and after; the accuracies join the other metrics."""

    forget: Names = Field((), description="tasks whose accuracy should fall, such as wmdp_bio, wmdp_cyber")
    retain: Names = Field((), description="tasks whose accuracy should stay, such as mmlu")
    include_path: Text = Field(None, description="folder with further tasks of the harness, as YAML")
    choices: Text = Field(None, description="JSONL file of question, choices, answer (a place), perhaps split")
    letters: bool = Field(False, description="choices: answer by A, B, C or D, not by the likeliest choice")
    num_fewshot: int | None = Field(None, ge=0, description="examples before each question; the task's own if not set")
    limit: PositiveInt | None = Field(None, description="at most so many questions a task")
    batch_size: PositiveInt = Field(8, description="answers scored at once")
    apply_chat_template: bool = Field(False, description="ask through the tokenizer's chat template")

    @model_validator(mode="after")
    def _check(self) -> Harness:
        if not (self.forget or self.retain or self.choices):
            raise ValueError("name tasks under forget or retain, or a file of choices")
        return self


class KeepBest(Section):
    """Which epoch's weights become the model: the lowest in one metric of those that keep enough of another."""

    minimise: str = Field("forget_Q_A_Prob", min_length=1, description="the metric that should fall")
    metric: str = Field("retain_Q_A_Prob", min_length=1, description="a metric of what should be kept")
    at_least: float = Field(0.9, gt=0, description="share of the latter before training that must be left")

    def __str__(self) -> str:
        return f"lowest {self.minimise} with {self.metric} at least {self.at_least:g} of what it was"


class EachEpoch(Section):
    """What is measured before training and after each epoch: the right answers of some records, by teacher forcing."""

    sets: Names = Field(("forget", "retain"), description="evaluation sets by name")
    split: Literal["all", "half"] = Field(
        "all", description="half: of every second subject alone (or record, where there are none)"
    )
    records: PositiveInt | None = Field(64, description="at most so many records of each set, evenly spaced")
    keep_best: KeepBest | None = Field(None, description="keep another epoch's weights than the last one's")


class Classifier(Section):
    """A sequence classifier that reads generated answers."""

    model_name_or_path: str = Field(min_length=1, description="hub name or folder")
    label: Text = Field(None, description="the label that counts; clean for fluency, entailment for entailment")


class Evaluation(Section):
    """What is measured before and after."""

    suite: Literal["none", "own", "tofu", "muse"] = Field(
        "own", description="what is judged after training: the recipe's own records, TOFU's or MUSE's sets, or nothing"
    )
    data_dir: Text = Field(None, description="folder with the suite's files; the hub if not set")
    forget_split: str = Field(
        "forget01", pattern=r"^forget\d\d$", description="TOFU's forget split: forget01, forget05, forget10"
    )
    corpus: Literal["News", "Books"] = Field("News", description="MUSE's corpus on the hub; a folder holds its own")
    limit: PositiveInt | None = Field(None, description="at most so many records of each evaluation set")
    max_new_tokens: PositiveInt = Field(200, description="longest generated answer")
    generate: bool = Field(
        True, description="generate answers for ROUGE; without it the metrics that need it are absent"
    )
    generator: Literal["own", "vllm"] = Field("own", description="who writes the answers; vllm needs a GPU")
    grad_norm: bool = Field(
        False, description="measure gradients of forget and holdout answers, for one more membership attack; slow"
    )
    kl: bool = Field(
        False,
        description="measure how far predictions are from the oracle's and the target's; a second model in memory",
    )
    fluency: Classifier | None = Field(
        None, description="how clean answers read, such as by madhurjindal/autonlp-Gibberish-Detector-492513457"
    )
    entailment: Classifier | None = Field(None, description="whether generated answers entail the right ones")
    variants: Names = Field(
        ("answer", "paraphrase", "perturbed"), description="which answers are scored, as far as records have them"
    )
    each_epoch: EachEpoch | None = Field(None, description="what is measured while training, and which epoch is kept")
    stop: Stop | None = Field(None, description="end training early where too much is lost")
    token_budget: PositiveInt = Field(2048, description="tokens of one scoring batch, padding included")
    resamples: PositiveInt = Field(2000, description="bootstrap resamples of each interval")
    oracle: Text = Field(None, description="model retrained without the forget set, or its run folder")
    gate: Text = Field(None, description="file that says what the result must show; kept in the run before it begins")
    harness: Harness | None = Field(None, description="multiple-choice probes through lm-evaluation-harness")
