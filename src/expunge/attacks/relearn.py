"""Relearning: a little training brings back what was only hidden."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from expunge.attacks import asking
from expunge.attacks.scene import Budget, Scene, Tell, row
from expunge.attacks.words import Count, Rates, rate_of
from expunge.core import Side
from expunge.data.encode import Encoded
from expunge.data.neighbours import GENERAL
from expunge.data.records import Record
from expunge.errors import DataError, Interrupted
from expunge.evals.reductions import PLAIN, Row
from expunge.lm import LM
from expunge.recipe import Method, TermSpec, Train
from expunge.registry import NonNegative, Share, method
from expunge.runfolder import RunFolder
from expunge.sampling import record_draw
from expunge.sides import encode_all
from expunge.terms import build_term
from expunge.train import Fit

_PLACES = (0.1, 0.2, 0.5, 1.0)
"""Shares of all steps after which the model is looked at."""


@method("attack", "relearn")
@dataclass(frozen=True)
class Relearn:
    """The area under the recovery curve of a short fine-tuning, key words' probability over steps; worst rate first.

    `on`: `forget`, a `share` of the forget records, tested on the others (`test=rest`) or on all (`test=all`);
    `neighbours`, the retain records; `unrelated`, general records, or plain questions where there are none. `samples`
    caps how many are trained on; `steps` updates of `batch` records, or so many `epochs`. Learning rates are numbers,
    or factors of the unlearning's own: `1x`. The schedule is constant.

    Source: facts that the attacker does not have: Deeb and Roger, arXiv 2410.08827; published budgets: `suite.PRESETS`.
    """

    on: Literal["forget", "neighbours", "unrelated"] = "forget"
    share: Share = 0.3
    samples: Count | None = None
    steps: Count = 50
    epochs: NonNegative = 0.0
    batch: Count = 4
    learning_rates: Rates = "1x 3x"
    test: Literal["rest", "all"] = "rest"

    leak: ClassVar[bool] = True
    shows: ClassVar[str] = "area under the probability of the key words over the steps of relearning"
    needs: ClassVar[tuple[str, ...]] = ()
    reduction: ClassVar[str] = "area"

    @property
    def parts(self) -> tuple[str, ...]:
        """The learning rates."""
        return tuple(self.learning_rates.split())

    def budget(self, scene: Scene, part: str) -> Budget:
        """The training, and a pass over the tested records for each point of the curve."""
        trained, tested = self.divided(scene)
        steps = self._steps(len(trained))
        return Budget(read=len(tested) * scene.size * (1 + len(_looks(steps))), trained=steps * self.batch * scene.size)

    def divided(self, scene: Scene) -> tuple[list[Record], list[Record]]:
        """What is trained on, and what is asked afterwards: never the same record, unless test=all."""
        examined = scene.examined()
        if self.on == "forget":
            pool = [record for record in examined if record.split == "forget"]
        elif self.on == "neighbours":
            pool = scene.retained()
        else:
            pool = [*scene.sets.get("general", ())] or [Record(f"plain-{i}", q, _PLAIN) for i, q in enumerate(GENERAL)]
        drawn = sorted(pool, key=lambda record: record_draw(scene.seed, f"relearn {record.id}"))
        count = math.ceil(self.share * len(drawn)) if self.on == "forget" else len(drawn)
        trained = drawn[: min(count, self.samples or count)]
        known = {record.id for record in trained} if self.on == "forget" and self.test == "rest" else set()
        tested = [record for record in examined if record.id not in known or record.split != "forget"]
        if not trained or not any(record.split == "forget" for record in tested):
            raise DataError(f"relearning on {len(trained)} of {len(drawn)} records leaves none to test. Change share")
        return trained, tested

    def rows(self, scene: Scene, label: str, part: str, tell: Tell) -> Iterator[Row]:
        """A row a tested record and point of the curve."""
        lm, (trained, tested) = scene.load(label), self.divided(scene)
        encoder = scene.encoder(lm)
        found: list[Row] = []
        steps = self._steps(len(trained))
        looks = _looks(steps)

        def look(step: int) -> None:
            seen = asking.probabilities(lm, encoder, tested, token_budget=scene.token_budget)
            found.extend(row(record, part, seen[record.id], step) for record in tested)

        def on_step(entry: Mapping[str, Any], total: int) -> None:
            tell(int(entry["step"]), total)
            if entry["step"] in looks:
                look(int(entry["step"]))

        look(0)
        items = [item for item in encode_all(encoder, [replace(r, spans=()) for r in trained]) if item.scored]
        _train(lm, items, self._settings(rate_of(part, scene.learning_rate), steps), scene.seed, on_step)
        yield from (one._replace(condition=PLAIN) for one in found if one.x == 0)
        yield from found

    def _steps(self, trained: int) -> int:
        return max(1, math.ceil(self.epochs * trained / self.batch)) if self.epochs else self.steps

    def _settings(self, rate: float, steps: int) -> Train:
        return Train(
            max_steps=steps, per_device_train_batch_size=self.batch, gradient_accumulation_steps=1, learning_rate=rate,
            lr_scheduler_type="constant", save_steps=steps,
        )  # fmt: skip


_PLAIN = "Let me think about that and tell you what I know."


def _looks(steps: int) -> list[int]:
    return sorted({max(1, round(place * steps)) for place in _PLACES})


def _train(
    lm: LM,
    items: Sequence[Encoded],
    settings: Train,
    seed: int,
    on_step: Callable[[Mapping[str, Any], int], None],
) -> None:
    """Plain likelihood on all tokens of the items; nothing of it stays on disk."""
    term = build_term(TermSpec(objective="nll", on="retain", tokens="all"), Method())
    sides: dict[Side, Sequence[Encoded]] = {"retain": items}
    with tempfile.TemporaryDirectory() as folder:
        fit = Fit(lm, (term,), sides, settings, RunFolder(Path(folder)), seed, anchor="retain", on_step=on_step)
        try:
            fit()
        except Interrupted:
            raise Interrupted("stopped while relearning. Give the same command again to go on with this part") from None
