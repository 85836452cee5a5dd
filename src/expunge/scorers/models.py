"""Scores from a model other than the one in training, or from it as it was: prepared before the first step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from expunge import registry
from expunge.context import Context, Preparation, Scores, looked_up, prepared_in
from expunge.core import NOTHING, Forward, Needs, Scorer, State
from expunge.errors import MethodError
from expunge.registry import method


@method("scorer", "base-surprise")
@dataclass(frozen=True)
class BaseSurprise:
    """-log p of the token under another model, in nats: how surprising it was before the model had read the forget set.

    `model` is a folder or hub name; its tokenizer must be that of the model in training.

    Source: our definition; SU (arXiv 2506.00876) compares with such a model.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]], targets=[0], static={"base-surprise:model=base": [3.0]})
    >>> BaseSurprise("base")(f, None).tolist()
    [[3.0, 0.0]]
    """

    model: str = ""

    @property
    def needs(self) -> Needs:
        return NOTHING

    @property
    def preparation(self) -> Preparation:
        return Preparation(passes=1.0, model=self.model)

    def prepare(self, context: Context) -> list[Scores]:
        if not self.model:
            raise MethodError(
                "base-surprise needs a model that has not read the forget set: write base-surprise:model=FOLDER"
            )
        return context.read(context.passages, Needs(), lambda f: -f.policy.logp, model=self.model)

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return looked_up(self, forward.batch)


@method("scorer", "mutual-information")
@dataclass(frozen=True)
class MutualInformation:
    """H(mean_s p_s) - mean_s H(p_s) over `samples` passes with dropout, in nats: doubt about the weights, not the text.

    From 0 to log(samples). The dropout of a record follows from the run's seed and the record alone. MethodError for a
    model without dropout.

    Source: our definition, after BALD (arXiv 1112.5745).
    Relations: `entropy` is this plus the mean entropy of the samples.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]], targets=[0], static={"mutual-information": [0.25]})
    >>> MutualInformation()(f, None).tolist()
    [[0.25, 0.0]]
    """

    samples: Annotated[int, Ge(2)] = 8
    refresh: Annotated[int, Ge(0)] = 0

    @property
    def needs(self) -> Needs:
        return NOTHING

    @property
    def preparation(self) -> Preparation:
        return Preparation(passes=float(self.samples), refresh=self.refresh)

    def prepare(self, context: Context) -> list[Scores]:
        return context.disagreement(context.passages, self.samples)

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return looked_up(self, forward.batch)


@method("scorer", "frozen")
@dataclass(frozen=True)
class Frozen:
    """Another score as the model gave it before training; with `refresh=k`, as it gave it at the last k-th step.

    `score` is a spec such as entropy:temperature=2, of one that reads the model's own predictions. Weights then stay
    put while the model forgets, and are known before the forward pass, which saves one under accumulation.

    Source: TokenUnlearn (arXiv 2605.00364) as we read it: scores are made once from the target.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]], targets=[0], static={"frozen:score=confidence": [0.5]})
    >>> Frozen("confidence")(f, None).tolist()
    [[0.5, 0.0]]
    """

    score: str = "entropy"
    refresh: Annotated[int, Ge(0)] = 0

    def __post_init__(self) -> None:
        scorer = self._scorer
        needs = scorer.needs
        if prepared_in(scorer):
            raise MethodError(f"frozen: the score '{self.score}' is prepared before training as it is")
        if not needs.policy or needs.any_reference or needs.hidden or needs.alternative:
            raise MethodError(f"frozen: the score '{self.score}' does not come from the model's own predictions alone")

    @property
    def _scorer(self) -> Scorer:
        scorer: Scorer = registry.build("scorer", self.score)
        return scorer

    @property
    def needs(self) -> Needs:
        return NOTHING

    @property
    def preparation(self) -> Preparation:
        return Preparation(reads=self._scorer.needs, refresh=self.refresh)

    def prepare(self, context: Context) -> list[Scores]:
        scorer = self._scorer
        return context.read(context.passages, scorer.needs, lambda forward: scorer(forward, None))

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return looked_up(self, forward.batch)
