"""The gate: what a model must show before it may be called unlearned, written down before the run.

A YAML file with a claim, a confidence, conditions on metrics, and commands of one's own. Its hash goes into the run's
manifest when the run begins, so that a verdict can say whether the bar was set before or after the numbers were seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from expunge.errors import RecipeError
from expunge.faults import fault_lines
from expunge.plainyaml import read
from expunge.runfolder import GATE, RunFolder
from expunge.sections import Names, PositiveInt, Section

Claim = Literal["suppression", "non-extraction", "indistinguishable"]
Share = Annotated[float, Field(gt=0.5, lt=1)]

ANSWERS = (
    "forget_Q_A_Prob",
    "forget_reworded_Q_A_Prob",
    "forget_Q_A_PARA_Prob",
    "forget_Q_A_ROUGE",
    "forget_knowmem_ROUGE",
    "forget_excess_Prob",
)
"""Metrics of what the model still says when it is asked."""
EXTRACTS = ("extraction_strength", "exact_memorization", "forget_verbmem_ROUGE", "forget_excess_extraction")
"""Metrics of what a beginning brings back."""


class Condition(Section):
    """One bound on one metric. `of`: the bound is a factor of what that model has, instead of a plain value."""

    metric: str = Field(min_length=1, description="a name of metrics.json")
    at_most: float | None = Field(None, description="the metric must be no more than this")
    at_least: float | None = Field(None, description="the metric must be no less than this")
    of: Literal["value", "target", "oracle"] = Field(
        "value", description="value: the bound is what it says; target, oracle: so many times that model's metric"
    )

    @model_validator(mode="after")
    def _check(self) -> Condition:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give either at_most or at_least")
        return self

    def __str__(self) -> str:
        sign, bound = ("<=", self.at_most) if self.at_most is not None else (">=", self.at_least)
        return f"{self.metric} {sign} {bound:g}" + ("" if self.of == "value" else f" of the {self.of}'s")


class Equivalence(Section):
    """The model must be within a margin of models retrained without the forget set, under at least two seeds."""

    metrics: Names = Field(("forget_Q_A_Prob", "forget_truth_ratio"), description="means of items that must agree")
    margin: float = Field(gt=0, description="largest difference that counts as none, in the metric's unit")
    oracles: Names = Field((), description="run folders of retrained models, or their folders of tables (eval/LABEL)")


class Command(Section):
    """A test of one's own: exit code 0 passes, any other fails. EXPUNGE_RUN and EXPUNGE_MODEL name the folders."""

    name: str = Field(min_length=1, description="what it is called in the verdict")
    run: str = Field(min_length=1, description="program and arguments; no shell")
    timeout: float = Field(3600.0, gt=0, description="seconds after which it counts as undecided")


class Gate(Section):
    """What must hold, with which confidence, for which claim."""

    claim: Claim = Field("suppression", description="what PASS says about the model")
    confidence: Share = Field(0.95, description="of each bound, one-sided")
    min_items: PositiveInt = Field(20, description="fewer items decide nothing")
    few_subjects: bool = Field(
        False, description="accept intervals over items where there are fewer than 8 subjects; they are too narrow"
    )
    conditions: tuple[Condition, ...] = Field((), description="bounds on metrics")
    equivalence: Equivalence | None = Field(None, description="for the claim 'indistinguishable'")
    commands: tuple[Command, ...] = Field((), description="tests of your own")

    @model_validator(mode="after")
    def _check(self) -> Gate:
        faults = list(_missing(self))
        if faults:
            raise ValueError("\n".join(faults))
        return self


def load(path: str | Path) -> Gate:
    """The gate in a YAML file; RecipeError names every fault."""
    file = Path(path)
    try:
        return Gate.model_validate(read(file))
    except ValidationError as error:
        raise RecipeError(fault_lines(Gate, error, {}), str(path)) from None
    except ValueError as error:
        raise RecipeError([str(error)], str(path)) from None


def file_hash(path: str | Path) -> str:
    """SHA-256 of the gate file's bytes."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def keep(run: RunFolder, text: str) -> None:
    """Writes a gate's text into a run that begins, and its hash into the manifest. RecipeError if it is no gate."""
    run.write_text(GATE, text)
    load(run.file(GATE))
    run.update(gate={"hash": file_hash(run.file(GATE)), "registered": run.manifest["created"]})


def _missing(gate: Gate) -> Iterator[str]:
    """What a gate must ask before its PASS can mean its claim."""
    falls = {c.metric for c in gate.conditions if c.at_most is not None}
    if not falls & {*ANSWERS, *EXTRACTS}:
        yield f"conditions: none says that the forget set is gone; bound one of {', '.join((*ANSWERS, *EXTRACTS))}"
    if not any(c.at_least is not None and not c.metric.startswith("forget_") for c in gate.conditions):
        yield "conditions: none says that the rest is kept; set at_least, such as of model_utility"
    if gate.claim == "non-extraction" and not falls & set(EXTRACTS):
        yield f"claim non-extraction: no condition on extraction; bound one of {', '.join(EXTRACTS)}"
    if gate.claim == "indistinguishable":
        if gate.equivalence is None or not gate.equivalence.metrics:
            yield "claim indistinguishable: needs an equivalence section with metrics, margin and oracles"
        elif len(set(gate.equivalence.oracles)) < 2:
            yield (
                "claim indistinguishable: needs at least two oracles, retrained under different seeds; one says "
                f"nothing of how far two retrained models differ (found {len(set(gate.equivalence.oracles))})"
            )
