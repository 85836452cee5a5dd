"""What a preset is: terms of the loss under a name, with what was published about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Term = Mapping[str, Any]

_RUN: Mapping[str, Mapping[str, Any]] = {
    "tofu": {
        "train.num_train_epochs": 10,
        "train.per_device_train_batch_size": 8,
        "train.gradient_accumulation_steps": 4,
        "train.learning_rate": 1e-5,
        "train.weight_decay": 0.01,
        "train.warmup_epochs": 1,
        "train.lr_scheduler_type": "linear",
    },
    "muse": {
        "train.num_train_epochs": 10,
        "train.per_device_train_batch_size": 4,
        "train.gradient_accumulation_steps": 8,
        "train.learning_rate": 1e-5,
        "train.weight_decay": 0.01,
        "train.warmup_epochs": 1,
        "train.lr_scheduler_type": "constant",
    },
    "wmdp": {
        "train.max_steps": 80,
        "train.per_device_train_batch_size": 1,
        "train.gradient_accumulation_steps": 16,
        "train.learning_rate": 5e-5,
        "train.lr_scheduler_type": "constant",
    },
}
"""How OpenUnlearning runs each benchmark, which is what published settings leave as it is."""


@dataclass(frozen=True)
class Published:
    """Settings under which a preset was published: those of its spec, and what `also` to write in a recipe.

    `benchmark` is tofu, muse or wmdp, perhaps with a split behind it, such as tofu-forget05; `model` a model and its
    size, '' for any. Steps, batch and step size that `also` does not name are OpenUnlearning's for the benchmark.

    >>> npo = Published("muse", also={"train.learning_rate": 2e-5}, source="nobody")
    >>> npo.recipe("npo")["method.preset"], npo.recipe("npo")["train.learning_rate"], npo.name("npo")
    ('npo', 2e-05, 'npo/muse')
    """

    benchmark: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    also: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def name(self, preset: str) -> str:
        """How a recipe names them: 'simnpo/tofu-forget10/llama-3.2-1b'."""
        return "/".join(filter(None, (preset, self.benchmark, self.model)))

    def spec(self, preset: str) -> str:
        """The preset with these settings: 'simnpo:beta=3.5,delta=1'."""
        return preset + (":" if self.settings else "") + ",".join(f"{k}={v}" for k, v in self.settings.items())

    def recipe(self, preset: str) -> dict[str, Any]:
        """All that they say in a recipe, by dotted name."""
        run = _RUN[self.benchmark.partition("-")[0]]
        return {"method.preset": self.spec(preset), **run, **self.also}


@dataclass(frozen=True)
class Preset:
    """A named method: its terms, where they are published, and how they differ from what its authors ran.

    `settings` names what may be set in the preset's spec (`tif:beta=0.3`) and where it goes: 'TERM.objective.KEY',
    'TERM.coef', or 'TERM.score.mix' for the share of the first of two summed scores; several places with spaces
    between. `published`: settings by benchmark and model. `parity`: what was held against numbers of published code.
    `negate`: method.negate, where the recipe does not set it.
    """

    summary: str
    source: str
    terms: tuple[Term, ...]
    differs: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    published: tuple[Published, ...] = ()
    parity: str = "from the equation"
    negate: float = 0.0


TOFU = Published("tofu", source="OpenUnlearning")
MUSE = Published("muse", source="OpenUnlearning")
EQUAL = "values and gradients of OpenUnlearning"


def forget(objective: str, coef: float = 1.0, score: str = "uniform", select: str = "raw") -> Term:
    """A term on the forget set."""
    return {"objective": objective, "on": "forget", "score": score, "select": select, "coef": coef}


def retain(objective: str = "nll", coef: float = 1.0) -> Term:
    """A term on the retain set."""
    return {"objective": objective, "on": "retain", "coef": coef}
