"""Attacks on a run, on all runs of a study, or on any model: who stands beside whom, and with which records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from expunge import adapters, comparison, pipeline, registry, runfolder, runs
from expunge import lm as lms
from expunge import progress as progresses
from expunge.attacks import suite
from expunge.attacks.scene import Scene, Tell, measured_speed
from expunge.attacks.suite import Planned
from expunge.attacks.writer import Writer
from expunge.data.chunks import chunk_all
from expunge.data.encode import Encoder
from expunge.errors import DataError, RunFolderError
from expunge.evals.attacked import Result
from expunge.evals.hosted import Hosted
from expunge.evals.table import ENTAILMENT
from expunge.lm import LM
from expunge.pipeline import MODEL, ORACLE, TARGET, UNLEARNED
from expunge.progress import Progress
from expunge.recipe import Recipe
from expunge.report import page
from expunge.runfolder import RunFolder

TellPlan = Callable[[Sequence[Planned]], None]
Attacked = tuple[RunFolder, dict[str, Result]]


@dataclass(frozen=True)
class Asked:
    """Which attacks, with how many records of each set at most (all if None), and who writes rewordings, if asked."""

    names: tuple[str, ...] = ("standard",)
    limit: int | None = None
    writer: Hosted | None = None


def of_run(path: str | Path, asked: Asked, tell_plan: TellPlan, progress: Progress | None = None) -> list[Attacked]:
    """The judged attacks of a run that unlearned, or of each run of a study; results in each run's attacks.json."""
    run = runfolder.open(path)
    kind = run.manifest["kind"]
    if kind == "study":
        inner = [run.path / name for name in run.manifest.get("runs", ())]
        every = [found for each in inner for found in of_run(each, asked, tell_plan, progress)]
        page.render([run.path], run.file(runfolder.REPORT), comparing=comparison.for_page)
        return every
    if kind != "unlearn":
        raise RunFolderError(
            f"'{path}' is a run of kind '{kind}', which unlearned nothing. Give --recipe to attack the model in it"
        )
    return [_attack(run, run.recipe, UNLEARNED, run.file("model"), asked, tell_plan, progress)]


def of_model(
    model: str | Path,
    recipe: Recipe,
    out: str | Path,
    asked: Asked,
    tell_plan: TellPlan,
    progress: Progress | None = None,
) -> Attacked:
    """The judged attacks of any model beside the recipe's own model and its oracle, in the run folder `out`."""
    own = recipe.model_copy(update={"output_dir": str(out)})
    folder, _ = runs.begin(own, "evaluate")
    with runfolder.recording(folder):
        path = Path(model) / "model" if runfolder.is_run(model) else model
        return _attack(folder, own, MODEL, path, asked, tell_plan, progress)


def _attack(
    run: RunFolder,
    recipe: Recipe,
    label: str,
    model: str | Path,
    asked: Asked,
    tell_plan: TellPlan,
    progress: Progress | None,
) -> Attacked:
    for plugin in recipe.plugins:
        registry.load_plugin(plugin)
    suite.chosen(asked.names)  # a misspelt name is told before a model is loaded
    models = {label: partial(_load, recipe, model)}
    models |= {name: partial(_load, recipe, folder) for name, folder in beside(run, recipe).items()}
    found = suite.attack(
        run,
        scene_of(run, recipe, models, asked),
        asked.names,
        partial(_stage, progress or progresses.automatic()),
        tell_plan,
        pipeline.settings_of(recipe).bootstrap,
    )
    page.render([run.path], run.file(runfolder.REPORT))
    return run, found


def beside(run: RunFolder, recipe: Recipe) -> dict[str, str | Path]:
    """Where target and oracle of a run are, as far as there are any."""
    found: dict[str, str | Path] = {}
    named = {TARGET: recipe.model.model_name_or_path, ORACLE: recipe.evaluation.oracle}
    for label, path in named.items():
        elsewhere = (run.manifest.get("compared_with") or {}).get(label)
        if elsewhere is not None:
            found[label] = (run.path / elsewhere).resolve() / "model"
        elif path is not None and not path.endswith(".json"):
            found[label] = Path(path) / "model" if runfolder.is_run(path) else path
    return found


def scene_of(run: RunFolder, recipe: Recipe, models: Mapping[str, Callable[[], LM]], asked: Asked) -> Scene:
    """The scene of a run: its records as the evaluation has them, and how fast its model is here."""
    label = next(iter(models))
    lm = models[label]()
    encoder = Encoder.from_recipe(lm.tokenizer, recipe.data)
    sets = {name: chunk_all(rs, encoder)[: asked.limit] for name, rs in pipeline.sets_of(recipe, run).items()}
    if not sets.get("forget"):
        raise DataError("an attack needs the forget records. Set data.forget")
    speed, size = measured_speed(lm, encoder, sets["forget"])
    return Scene(
        own=label,
        models=models,
        sets=sets,
        data=recipe.data,
        seed=recipe.seed,
        learning_rate=recipe.train.learning_rate,
        max_new_tokens=min(recipe.evaluation.max_new_tokens, recipe.data.max_length),
        token_budget=recipe.evaluation.token_budget,
        size=size,
        layers=int(lm.model.config.get_text_config().num_hidden_layers),
        speed=speed,
        entails=_entails(recipe),
        writer=None if asked.writer is None else Writer(asked.writer, run),
        beneath=_beneath(recipe, models),
    )


def _entails(recipe: Recipe) -> Callable[[Sequence[str], Sequence[str]], Sequence[float]] | None:
    """How surely texts entail answers, by the recipe's classifier; None if it names none."""
    settings = recipe.evaluation.entailment
    if settings is None:
        return None
    from expunge.evals import classifier

    judge = classifier.load(settings, ENTAILMENT, lms.device_of(recipe.device))
    return judge.probabilities


def _beneath(recipe: Recipe, models: Mapping[str, Callable[[], LM]]) -> dict[str, Callable[[], LM]]:
    """The bases of the models that are adapters beside one."""
    folders = {label: Path(load.args[1]) for label, load in models.items() if isinstance(load, partial)}
    return {
        label: partial(_load, recipe, adapters.base_of(folder))
        for label, folder in folders.items()
        if (folder / adapters.CONFIG).is_file()
    }


def _load(recipe: Recipe, model: str | Path) -> LM:
    """A model as one without an adapter: what stands beside a base is folded into it."""
    settings = {"model_name_or_path": str(model), "model_revision": None, "fresh": None, "quantization": "none"}
    lm = lms.load(recipe.model.model_copy(update=settings), device=lms.device_of(recipe.device))
    if adapters.attached(lm.model):
        adapters.fold(lm.model)
    return lm


@contextmanager
def _stage(progress: Progress, name: str) -> Iterator[Tell]:
    with progress.stage(name) as bar:
        yield lambda done, total: bar(done, total)
