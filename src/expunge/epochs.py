"""What a model has after each epoch of its training, with intervals, and which epoch's weights are kept by which rule.

A line an epoch in epochs.jsonl of the run folder. Nothing is drawn from a global random state, so that training goes on
as if nobody had looked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from expunge import ranks, runfolder
from expunge.data.encode import Encoder
from expunge.data.records import Record
from expunge.errors import DataError, unknown
from expunge.evals import numbers
from expunge.evals.metrics import PerItem
from expunge.evals.numbers import Bootstrap
from expunge.evaluation import EachEpoch, KeepBest
from expunge.lm import LM, Scored
from expunge.recipe import Recipe
from expunge.runfolder import EPOCHS, RunFolder
from expunge.stopping import answer_metrics

_WEIGHTS = "checkpoints/best-{:04d}.safetensors"
Line = Mapping[str, Any]


@dataclass(frozen=True)
class Epochs:
    """An `on_epoch` callback: measures the model on `sets`, and keeps its weights if no epoch before was better."""

    settings: EachEpoch
    folder: Path
    encoder: Encoder
    sets: Mapping[str, Sequence[Record]]
    token_budget: int
    bootstrap: Bootstrap

    def __call__(self, epoch: int, module: Scored) -> None:
        """Adds the epoch's line; lines of this and later epochs, from before a resume, are dropped.

        Of several processes, which have the same weights, the main one alone looks, keeps and chooses.
        """
        if not ranks.here().main:
            return
        run = runfolder.open(self.folder)
        old = run.read_lines(EPOCHS) if epoch and run.has(EPOCHS) else []
        lines = [line for line in old if line["epoch"] < epoch]
        lines.append({"epoch": epoch, "metrics": self.measure(module)})
        run.write_lines(EPOCHS, lines)
        rule = self.settings.keep_best
        if rule is not None and epoch and chosen(lines, rule)["epoch"] == epoch:
            _keep(run, epoch, module)

    def measure(self, module: Scored) -> dict[str, dict[str, Any]]:
        """{metric: {value, low, high, n}} of the answers in every set, with 95% intervals."""
        found: dict[str, PerItem] = {}
        for name, records in self.sets.items():
            found |= answer_metrics(module, self.encoder, name, records, self.token_budget)
        made = {name: numbers.mean(item, "", self.bootstrap).interval for name, item in found.items()}
        return {name: {"value": i.value, "low": i.low, "high": i.high, "n": i.n} for name, i in made.items()}

    def finish(self, lm: LM, run: RunFolder) -> None:
        """Puts the weights of the chosen epoch in place of the last, and says in the manifest which and why."""
        rule = self.settings.keep_best
        if rule is None or not ranks.here().main:
            return
        lines = [line for line in run.read_lines(EPOCHS) if not line["epoch"] or _file(run, line["epoch"]).is_file()]
        best = chosen(lines, rule)
        tensors = load_file(_file(run, best["epoch"]))
        with torch.no_grad():
            for name, parameter in lm.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[name])
        run.update(
            best={
                "epoch": best["epoch"], "of": len(run.read_lines(EPOCHS)) - 1, "rule": str(rule),
                "kept_enough": _enough(best, lines[0], rule), "records": {n: len(r) for n, r in self.sets.items()},
                "metrics": {name: best["metrics"][name] for name in (rule.minimise, rule.metric)},
            }
        )  # fmt: skip


def chosen(lines: Sequence[Line], rule: KeepBest) -> Line:
    """The line that the rule names: lowest in what is minimised among the epochs that keep enough, the first of equals.

    Where none keeps enough, the one that keeps most. The first line is the model before training, which is never
    chosen.

    >>> def line(epoch, forget, retain):
    ...     return {"epoch": epoch, "metrics": {"f": {"value": forget}, "r": {"value": retain}}}
    >>> rule = KeepBest(minimise="f", metric="r", at_least=0.9)
    >>> chosen([line(0, 0.9, 0.8), line(1, 0.5, 0.76), line(2, 0.3, 0.73), line(3, 0.1, 0.6)], rule)["epoch"]
    2
    >>> chosen([line(0, 0.9, 0.8), line(1, 0.5, 0.5), line(2, 0.3, 0.4)], rule)["epoch"]
    1
    """
    start, trained = lines[0], lines[1:]
    enough = [line for line in trained if _enough(line, start, rule)]
    if enough:
        return min(enough, key=lambda line: float(_value(line, rule.minimise)))
    return max(trained, key=lambda line: float(_value(line, rule.metric)))


def watching(recipe: Recipe, sets: Mapping[str, Sequence[Record]], encoder: Encoder) -> Epochs | None:
    """The callback of a recipe, on the sets and records that it names; None if it asks for none."""
    settings, e = recipe.evaluation.each_epoch, recipe.evaluation
    if settings is None:
        return None
    for name in settings.sets:
        if name not in sets:
            raise DataError(f"evaluation.each_epoch.sets: {unknown('evaluation set', name, sets)}")
    part = {name: _part(sets[name], settings) for name in settings.sets}
    return Epochs(settings, Path(recipe.output_dir), encoder, part, e.token_budget, Bootstrap(e.resamples, recipe.seed))


def _part(records: Sequence[Record], settings: EachEpoch) -> list[Record]:
    """Every second record or subject if so asked for; then evenly spaced, as many as there may be."""
    subjects = {subject: number for number, subject in enumerate(dict.fromkeys(r.subject for r in records))}
    places = range(len(records)) if len(subjects) == 1 else [subjects[record.subject] for record in records]
    kept = [r for place, r in zip(places, records, strict=True) if settings.split == "all" or place % 2 == 0]
    count = min(settings.records, len(kept)) if settings.records is not None else len(kept)
    return [kept[place * len(kept) // count] for place in range(count)]


def _enough(line: Line, start: Line, rule: KeepBest) -> bool:
    return bool(_value(line, rule.metric) >= rule.at_least * _value(start, rule.metric))


def _value(line: Line, metric: str) -> float:
    if metric not in line["metrics"]:
        raise DataError(f"evaluation.each_epoch.keep_best: {unknown('metric of an epoch', metric, line['metrics'])}")
    return float(line["metrics"][metric]["value"])


def _keep(run: RunFolder, epoch: int, module: Scored) -> None:
    """Writes the weights; the best before stays too, because a resumed run may go back behind this epoch."""
    file = _file(run, epoch)
    file.parent.mkdir(exist_ok=True)
    staged = file.with_suffix(".staged")
    trained = {name: p for name, p in module.model.named_parameters() if p.requires_grad}
    save_file({name: p.detach().cpu().contiguous() for name, p in trained.items()}, staged)
    staged.replace(file)
    for old in sorted(file.parent.glob("best-*.safetensors"))[:-2]:
        old.unlink()


def _file(run: RunFolder, epoch: int) -> Path:
    return run.file(_WEIGHTS.format(epoch))
