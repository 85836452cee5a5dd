"""Stealth: can anybody tell by a model's answers that it was unlearned?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from expunge.attacks.scene import Budget, Scene, Tell, row
from expunge.attacks.words import Count
from expunge.data.records import Record
from expunge.errors import DataError
from expunge.evals import scoring, table
from expunge.evals.reductions import Row
from expunge.evals.stats import Sample
from expunge.lm import LM
from expunge.registry import Positive, method

Array = npt.NDArray[np.float64]


@method("attack", "stealth")
@dataclass(frozen=True)
class Stealth:
    """How often a classifier ranks the model above the oracle as 'unlearned' by its view of a record; .5: at random.

    A ridge regression on what each model says of the answer: mean and lowest log-probability, entropy, share of arg
    maxes, and the first token's log-probability and entropy. It learns on some subjects and is asked about the others
    (`folds`). Of holdout records the same, with a classifier of their own: what sets two models apart anyway.

    Source: detection of unlearning from outputs: arXiv 2506.14003. Differs: from scores, not texts.
    """

    folds: Count = 5
    ridge: Positive = 1.0

    leak: ClassVar[bool] = False
    shows: ClassVar[str] = "how often a classifier tells the model from the oracle"
    needs: ClassVar[tuple[str, ...]] = ("oracle",)
    reduction: ClassVar[str] = "best"
    parts: ClassVar[tuple[str, ...]] = ("all",)

    def budget(self, scene: Scene, part: str) -> Budget:
        """A pass of both models over the records."""
        return Budget(read=2 * len(scene.examined()) * scene.size)

    def rows(self, scene: Scene, label: str, part: str, tell: Tell) -> Iterator[Row]:
        """A row a record; none for the oracle, which would be compared with itself."""
        if label == "oracle":
            return
        own, other = scene.load(label), scene.load("oracle")
        for done, split in enumerate(("forget", "holdout")):
            records = [record for record in scene.examined() if record.split == split]
            if len({record.subject or record.id for record in records}) >= self.folds:
                mine, theirs = (viewed(lm, scene, records) for lm in (own, other))
                values = told_apart(mine, theirs, [r.subject for r in records], self.folds, self.ridge)
                yield from (row(record, "classifier", value) for record, value in zip(records, values, strict=True))
            elif split == "forget":
                raise DataError(f"stealth needs records about at least {self.folds} subjects, to learn on some of them")
            tell(done + 1, 2)


def viewed(lm: LM, scene: Scene, records: Sequence[Record]) -> Array:
    """(n, 6) what a model says of each record's answer."""
    scores = scoring.score(lm, scene.encoder(lm), records, ("answer",), token_budget=scene.token_budget)
    answers = table.answers(scores)
    rows = []
    for start, end in zip(answers.offsets[:-1], answers.offsets[1:], strict=True):
        logp, entropy, top1 = (part[start:end] for part in (answers.logp, answers.entropy, answers.top1))
        rows.append(
            [logp.mean(), logp.min(), entropy.mean(), top1.mean(), logp[0], entropy[0]] if end > start else [0.0] * 6
        )
    return np.array(rows, dtype=np.float64)


def told_apart(own: Array, other: Array, subjects: Sequence[str], folds: int, ridge: float) -> list[float]:
    """For each record, the share of the other model's records in its fold that score below it, by a line that learned
    on the other folds; .5 is chance.

    >>> apart = np.arange(12.0)[:, None]
    >>> set(told_apart(apart + 50, apart, [""] * 12, 3, 0.01)), set(told_apart(apart * 0, apart * 0, [""] * 12, 3, 1.0))
    ({1.0}, {0.5})
    """
    units = Sample.of(subjects, minimum=folds).units % folds
    values = np.full(len(own), np.nan)
    for fold in range(folds):
        test, learn = units == fold, units != fold
        x = np.concatenate([own[learn], other[learn]])
        centre, scale = x.mean(0), np.maximum(x.std(0), 1e-9)
        z = (x - centre) / scale
        y = np.repeat([1.0, -1.0], [int(learn.sum())] * 2)
        line = np.linalg.solve(z.T @ z + ridge * np.eye(z.shape[1]), z.T @ y)
        mine, theirs = (((side[test] - centre) / scale) @ line for side in (own, other))
        if len(theirs):
            values[test] = ((theirs < mine[:, None]) + 0.5 * (theirs == mine[:, None])).mean(1)
    found: list[float] = values.tolist()
    return found
