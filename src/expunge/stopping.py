"""The rule that ends training early: after an epoch, is enough of what should be kept still there?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from expunge import runfolder
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.errors import DataError, unknown
from expunge.evals import measure, scoring
from expunge.evals.metrics import PerItem
from expunge.lm import LM, Scored
from expunge.recipe import Recipe
from expunge.search import Stop as Settings


@dataclass(frozen=True)
class Stop:
    """An `on_epoch` callback: True where the metric has fallen below its share of what it was before training.

    `name` is the evaluation set that the metric is of. What is measured stands in the manifest under `stop`.
    """

    settings: Settings
    folder: Path
    encoder: Encoder
    name: str
    records: Sequence[Record]
    token_budget: int

    def __call__(self, epoch: int, module: Scored) -> bool:
        """True if this epoch was the last."""
        run = runfolder.open(self.folder)
        before = run.manifest.get("stop", {}).get("values", {}) if epoch else {}
        values = {**before, str(epoch): self.measure(module)}
        least = self.settings.below * values["0"]
        over = epoch > 0 and values[str(epoch)] < least
        run.update(
            stop={"metric": self.settings.metric, "least": least, "values": values, "stopped": epoch if over else None}
        )
        return over

    def measure(self, module: Scored) -> float:
        """The metric of the model as it is, which stays in the mode that it was in."""
        found = answer_metrics(module, self.encoder, self.name, self.records, self.token_budget)
        if self.settings.metric not in found:
            raise DataError(f"evaluation.stop.metric: {unknown('metric of answers', self.settings.metric, found)}")
        return found[self.settings.metric].aggregate


def answer_metrics(
    module: Scored, encoder: Encoder, name: str, records: Sequence[Record], token_budget: int
) -> dict[str, PerItem]:
    """The metrics of a set's right answers under a model in training, item by item; its mode stays as it is."""
    lm = LM(module.model, encoder.tokenizer, "in training")
    table = scoring.score(lm, encoder, records, ("answer",), token_budget=token_budget)
    return measure.per_item(name, measure.Measured.of(table), measure.convention("expunge"))


def rule(recipe: Recipe, sets: Mapping[str, Sequence[Record]], encoder: Encoder) -> Stop | None:
    """The rule of a recipe, on its evaluation sets; None if it has none."""
    settings = recipe.evaluation.stop
    if settings is None:
        return None
    named = [name for name in sets if settings.metric.startswith(f"{measure.prefix(name)}_")]
    if not named:
        raise DataError(
            f"evaluation.stop.metric: '{settings.metric}' is of none of the evaluation's sets: {', '.join(sets)}"
        )
    budget = recipe.evaluation.token_budget
    return Stop(settings, Path(recipe.output_dir), encoder, named[0], sets[named[0]], budget)
