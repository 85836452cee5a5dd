"""Linear probes: can a line through hidden states still tell right answers from wrong ones?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from expunge.attacks import asking, depth
from expunge.attacks.scene import Budget, Scene, Tell, row
from expunge.attacks.words import Count
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.decode import inference
from expunge.errors import DataError
from expunge.evals.reductions import Row
from expunge.lm import LM
from expunge.registry import Positive, method
from expunge.sampling import record_draw

Array = npt.NDArray[np.float64]


@method("attack", "probe")
@dataclass(frozen=True)
class Probe:
    """The share of wrong answers that a linear probe of a layer ranks below the right one; chance .5, worst layer.

    A ridge regression for each layer learns on retain records, which the model knows, to tell the right answer from
    `wrong` wrong ones by the mean hidden state over the answer's tokens, less the mean of the record's answers. It is
    then asked about the forget records, whose answers it never saw. Wrong answers are the record's perturbed ones, else
    others' answers.

    Source: probes for truth: Azaria and Mitchell, arXiv 2304.13734. Differs: what counts is the excess over the oracle.
    """

    wrong: Count = 3
    ridge: Positive = 1.0

    leak: ClassVar[bool] = True
    shows: ClassVar[str] = "share of wrong answers that a linear probe ranks below the right one"
    needs: ClassVar[tuple[str, ...]] = ()
    reduction: ClassVar[str] = "best"
    parts: ClassVar[tuple[str, ...]] = ("all",)

    def budget(self, scene: Scene, part: str) -> Budget:
        """A pass over all answers of the retain records and of those examined."""
        count = len(scene.retained(asked=True)) + len(scene.examined(asked=True))
        return Budget(read=count * (1 + self.wrong) * scene.size)

    def rows(self, scene: Scene, label: str, part: str, tell: Tell) -> Iterator[Row]:
        """A row a record and layer."""
        lm = scene.load(label)
        encoder = scene.encoder(lm)
        with inference(lm):
            known = self._states(lm, encoder, scene.retained(asked=True), scene.seed)
            tell(1, 2)
            asked = self._states(lm, encoder, scene.examined(asked=True), scene.seed)
        if len(known) < 2:
            raise DataError("a probe needs at least two retain records with wrong answers beside the right one")
        records = {record.id: record for record in scene.examined(asked=True)}
        for layer in range(next(iter(known.values())).shape[1]):
            line = fitted([states[:, layer] for states in known.values()], self.ridge)
            for key, states in asked.items():
                scores = states[:, layer] @ line
                beaten = (scores[1:] < scores[0]) + 0.5 * (scores[1:] == scores[0])
                yield row(records[key], f"layer {layer}", float(beaten.mean()))
        tell(2, 2)

    def _states(self, lm: LM, encoder: Encoder, records: Sequence[Record], seed: int) -> Mapping[str, Array]:
        """(answers, layers + 1, D) by record, the right answer first; the mean of the record's answers is 0."""
        asked = [(r, text) for r in records for text in (r.answer, *_wrong(r, records, self.wrong, seed))]
        found: dict[str, list[Array]] = defaultdict(list)
        for one in depth.seen(lm, encoder, [r for r, _ in asked], [text for _, text in asked], own=True):
            found[one.record.id].append(one.states.mean(1).double().cpu().numpy())
        stacked = {key: np.stack(states) for key, states in found.items() if len(states) > 1}
        return {key: states - states.mean(0) for key, states in stacked.items()}


def fitted(groups: Sequence[Array], ridge: float) -> Array:
    """(D,) the ridge direction along which the first row of each group lies above the others; features standardised.

    >>> fitted([np.array([[1.0, 0.0], [-1.0, 0.0]])] * 4, 1.0).round(2).tolist()
    [0.8, 0.0]
    """
    x = np.concatenate(groups)
    y = np.concatenate([[1.0, *[-1.0 / (len(group) - 1)] * (len(group) - 1)] for group in groups])
    scale = np.maximum(x.std(0), 1e-9)
    z = x / scale
    inner = z @ z.T  # dual form: fewer answers than features
    line: Array = z.T @ np.linalg.solve(inner + ridge * z.shape[1] * np.eye(len(z)), y) / scale
    return line


def _wrong(record: Record, others: Sequence[Record], count: int, seed: int) -> list[str]:
    """Wrong answers of a record, of like form: its perturbed ones, else its own with other records' key words."""
    if record.perturbed:
        return list(record.perturbed[:count])
    pool = sorted({text for other in others if (text := _other(record, other)) and text != record.answer})
    first = record_draw(seed, f"wrong {record.id}") % max(1, len(pool))
    return [pool[(first + k) % len(pool)] for k in range(min(count, len(pool)))]


def _other(record: Record, other: Record) -> str:
    mine, theirs = asking.keys(record), asking.phrases(other)
    if len(mine) == 1 and len(theirs) == 1:
        return record.answer[: mine[0].start] + theirs[0] + record.answer[mine[0].end :]
    return other.answer
