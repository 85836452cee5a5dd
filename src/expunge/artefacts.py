"""What would really be shipped in place of the judged weights, asked the same questions: merged, rounded, or served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from expunge import adapters, pipeline, runfolder
from expunge import lm as lms
from expunge.errors import ModelError, RunFolderError, unknown
from expunge.evals import judge as judges
from expunge.evals.hosted import Hosted
from expunge.evals.metrics import PerItem
from expunge.evals.numbers import Bootstrap
from expunge.evals.paired import Paired, compare
from expunge.lm import LM
from expunge.pipeline import MODEL, UNLEARNED
from expunge.progress import Progress
from expunge.recipe import Recipe
from expunge.report import naming, page
from expunge.runfolder import ARTEFACTS, RunFolder
from expunge.studies.sheets import Sheet, Table, keep, shown

MERGED, ENDPOINT = "merged", "endpoint"
ROUNDED = ("int8", "nf4")
KINDS = (MERGED, *ROUNDED, ENDPOINT)
Found = Mapping[str, Sequence[Paired]]


def judge(
    path: str | Path, names: Sequence[str], hosted: Hosted | None = None, progress: Progress | None = None
) -> RunFolder:
    """The run folder with artefacts/NAME, an evaluation of each, and a sheet of how they differ from what was judged.

    `merged`: the adapter, if there is one, folded into the weights; `int8`, `nf4`: rounded by bitsandbytes; `endpoint`:
    as `hosted` answers. An artefact that was judged before is not judged again. MethodError, ModelError or
    RunFolderError say what is missing.
    """
    for name in names:
        if name not in KINDS:
            raise RunFolderError(f"--artefacts: {unknown('artefact', name, KINDS)}")
    if ENDPOINT in names and hosted is None:
        raise ModelError("--artefacts endpoint needs an address. Give --address URL and --served NAME")
    run = runfolder.open(path)
    if not run.has(f"eval/{UNLEARNED}"):
        raise RunFolderError(
            f"run '{path}' was not judged, so artefacts have nothing to differ from. Evaluate it first"
        )
    recipe = _recipe(run)
    before = _items(run.file(f"eval/{UNLEARNED}"))
    found: dict[str, list[Paired]] = {}
    for name in names:
        model = hosted if name == ENDPOINT and hosted is not None else _made(recipe, name)
        folder = pipeline.evaluate(model, recipe, run.file(f"{ARTEFACTS}/{name}"), progress)
        after = _items(folder.file(f"eval/{MODEL}"))
        found[name] = [_paired(metric, after[metric], before[metric]) for metric in before if metric in after]
    run.write_json(
        f"{ARTEFACTS}/differences.json", {name: [one.as_json() for one in own] for name, own in found.items()}
    )
    keep(run, ARTEFACTS, sheet(found))
    if run.manifest["status"] == "finished":
        run.seal()
    page.render([run.path], run.file(runfolder.REPORT))
    return run


def sheet(found: Found) -> Sheet:
    """How each artefact differs from the judged weights, metric by metric."""
    metrics = list(dict.fromkeys(one.name for own in found.values() for one in own))
    by_name = {name: {one.name: one for one in own} for name, own in found.items()}
    rows = []
    for metric in metrics:
        there = [own[metric] for own in by_name.values() if metric in own]
        cells = [_cell(own.get(metric)) for own in by_name.values()]
        rows.append((naming.metric(metric).title, shown(there[0].second), *cells))
    note = "Value, and in brackets the 95 % interval of its paired difference from the judged weights; p by sign flips."
    table = Table("By what is shipped", note, ("metric", "as judged", *found), tuple(rows))
    lede = "The same records asked of what would really be used in place of the weights that were judged."
    return Sheet("As shipped", lede, (table,), ())


def _cell(one: Paired | None) -> str:
    if one is None:
        return "n/a"
    gap = one.difference
    if not np.isfinite(gap.value):
        return "n/a"
    return f"{one.first.value:.3f} ({gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}], p {one.p:.3f})"


def _recipe(run: RunFolder) -> Recipe:
    """The run's recipe with its result as the model; target and oracle are not judged again."""
    own = run.recipe
    model = own.model.model_copy(
        update={"model_name_or_path": str(run.file("model")), "model_revision": None, "fresh": None}
    )
    evaluation = own.evaluation.model_copy(update={"oracle": None, "gate": None, "kl": False})
    return own.model_copy(update={"model": model, "evaluation": evaluation, "finetune": None})


def _made(recipe: Recipe, name: str) -> LM:
    settings = recipe.model.model_copy(update={"quantization": name if name in ROUNDED else "none"})
    lm = lms.load(settings, device=lms.device_of(recipe.device))
    if name == MERGED and adapters.attached(lm.model):
        adapters.fold(lm.model)
    return lm


def _items(folder: Path) -> Mapping[str, PerItem]:
    return judges.judge_folder(folder, None, bootstrap=Bootstrap(2)).items


def _paired(metric: str, after: PerItem, before: PerItem) -> Paired:
    """The artefact's values beside those of the judged weights, by record."""
    there = dict(zip(after.ids, after.values.tolist(), strict=True))
    first = [there.get(key, float("nan")) for key in before.ids]
    return compare(metric, first, before.values.tolist(), before.subjects)
