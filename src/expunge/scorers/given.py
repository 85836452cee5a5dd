"""Scores that do not look at a model: annotations, uniform, random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from expunge.core import NOTHING, Batch, Forward, Needs, State, random_scores
from expunge.data.records import static_name
from expunge.errors import MethodError
from expunge.registry import method


@method("scorer", "uniform")
@dataclass(frozen=True)
class Uniform:
    """1 on every scored token: with `raw`, the unweighted loss.

    Source: our definition.

    >>> from expunge.testing import forward_from_probabilities
    >>> Uniform()(forward_from_probabilities([[0.5, 0.5]], targets=[0]), None).tolist()
    [[1.0, 0.0]]
    """

    @property
    def needs(self) -> Needs:
        return NOTHING

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return forward.mask.float()


@method("scorer", "random")
@dataclass(frozen=True)
class Random:
    """Uniform in [0, 1), drawn from the run's seed and the record alone: the control of every clever score.

    The same record gets the same scores in every epoch, on any number of devices. The batch must carry `draws`.

    Source: our definition.
    Relations: `control=random` puts the same scores in place of any other scorer's.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]], targets=[0])
    >>> bool((Random()(f, None) == Random()(f, None)).all())
    True
    """

    @property
    def needs(self) -> Needs:
        return NOTHING

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return random_scores(forward.mask, forward.batch.generator)


@method("scorer", "given")
@dataclass(frozen=True)
class Given:
    """The weight of the annotation's spans that cover a token, 0 elsewhere.

    `label='not-general'` turns an annotation of general words round: 1 on every token of the answer that no span with
    the label 'general' touches, 0 on the end token. `source` takes only the spans from one source: one of several
    annotations that were merged, or 'gold', which is left out otherwise.

    Source: TIF (arXiv 2506.03142) and PALU (arXiv 2601.03190) select by such spans; TIF's masked-LM identifier says
    which words are general.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]] * 3, targets=[0, 1, 1], static={"given": [0.0, 1.0, 0.5]})
    >>> Given()(f, None).tolist()
    [[0.0, 1.0, 0.5, 0.0]]
    """

    label: Literal["unwanted", "not-general"] = "unwanted"
    source: str = ""

    @property
    def _name(self) -> str:
        return static_name("given" if self.label == "unwanted" else self.label, self.source)

    @property
    def needs(self) -> Needs:
        return Needs(policy=False, labels=frozenset({self._name}))

    def __call__(self, forward: Forward, state: State) -> Tensor:
        spans = "'unwanted'" if self.label == "unwanted" else "'general'"
        spans += f" from the source '{self.source}'" if self.source else ""
        advice = "set data.forget.annotations, or give records with spans; gold spans are read with source=gold"
        what = f"an annotation with spans labelled {spans}: {advice}"
        return _static(forward.batch, self._name, what)


@method("scorer", "gold")
@dataclass(frozen=True)
class Gold:
    """The weight of the gold spans that cover a token, 0 elsewhere: what a perfect score would say.

    Source: our definition.
    Relations: `given` reads the annotation in use; `gold` only spans whose source is 'gold'.

    >>> from expunge.testing import forward_from_probabilities
    >>> f = forward_from_probabilities([[0.5, 0.5]] * 2, targets=[0, 1], static={"gold": [0.0, 1.0]})
    >>> Gold()(f, None).tolist()
    [[0.0, 1.0, 0.0]]
    """

    @property
    def needs(self) -> Needs:
        return Needs(policy=False, labels=frozenset({"gold"}))

    def __call__(self, forward: Forward, state: State) -> Tensor:
        return _static(forward.batch, "gold", "records with gold spans, as the built-in benchmark makes them")


def _static(batch: Batch, name: str, what: str) -> Tensor:
    if name not in batch.static:
        scorer = "gold" if name == "gold" else "given"
        raise MethodError(f"scorer '{scorer}' needs {what}; this batch has none")
    score = batch.static[name].to(torch.float32)
    return torch.where(batch.mask, score, 0.0)
