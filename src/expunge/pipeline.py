"""The whole path on disk: make target and oracle if asked for, unlearn, judge all of them, write the report."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from expunge import collective, comparison, epochs, gate, ranks, runfolder, runs, stopping
from expunge import lm as lms
from expunge import progress as progresses
from expunge import recipe as recipes
from expunge.data.chunks import chunk_all
from expunge.data.encode import Encoder
from expunge.data.preflight import Finding
from expunge.data.probes import reworded
from expunge.data.records import Record
from expunge.epochs import Epochs
from expunge.errors import DataError, ModelError
from expunge.evals import beside, harness, hosted, muse, tofu, verdict
from expunge.evals.beside import Other
from expunge.evals.hosted import Hosted, Reach
from expunge.evals.known import unknown_records
from expunge.evals.measure import HOLDOUT
from expunge.evals.numbers import Bootstrap
from expunge.evals.verdict import Verdict
from expunge.lm import LM, Scored
from expunge.neighbours import written_retain
from expunge.progress import Bar, Progress
from expunge.recipe import Recipe
from expunge.report import card, page
from expunge.runfolder import RunFolder
from expunge.shared import Shared
from expunge.sides import records_by_side, records_of, retain_of

UNLEARNED, TARGET, ORACLE, MODEL = "unlearned", "target", "oracle", "model"
Sets = Mapping[str, Sequence[Record]]
Watched = Callable[[Path, int], None]


def run(recipe: Recipe, progress: Progress | None = None, on_epoch: Watched | None = None) -> RunFolder:
    """The run folder of a recipe with everything in it: model, evaluation beside target and oracle, report.html.

    Goes on where an earlier call with the same recipe was stopped; what is finished is not done again. A recipe with
    arms or seeds stands for several runs: the folder holds a run folder of each, and one report of all. `on_epoch` gets
    the folder of the run that is being made and how many epochs it has behind it, when these are on disk.
    """
    show = progress or progresses.automatic()
    if recipes.variants(recipe) != [recipe]:
        folder = begin_study(recipe)
        with runfolder.recording(folder):
            run_variants(recipe, folder, show, on_epoch)
        return folder
    return run_one(recipe, Together(), show, on_epoch)


@dataclass
class Together:
    """What the runs of one study do once: which targets and oracles were judged how, what was read from disk."""

    judged: set[str] = field(default_factory=set)
    shared: Shared = field(default_factory=Shared)


def run_one(recipe: Recipe, together: Together, show: Progress, on_epoch: Watched | None = None) -> RunFolder:
    """One run, beside others that share what is in `together`."""
    made = prepare_models(recipe, show)
    with show.stage(f"Unlearn with {recipe.method.preset or 'the given terms'}") as bar:
        start = made[TARGET].file("model") if TARGET in made else None
        watched, stop = _each_epoch(recipe, start, together.shared)

        def tell(epoch: int, module: Scored) -> bool:
            if watched is not None:
                watched(epoch, module)
            if on_epoch is not None:
                on_epoch(Path(recipe.output_dir), epoch)
            return stop is not None and stop(epoch, module)

        folder = runs.unlearn(
            recipe, start=start, on_step=shown(bar), on_epoch=tell, shared=together.shared,
            on_end=None if watched is None else watched.finish,
        )  # fmt: skip
    if recipe.evaluation.suite != "none":
        sets = sets_of(recipe, folder)
        references(recipe, folder, made, sets, show, together)
        tables = oracle_tables(recipe, folder)
        judge(recipe, folder, UNLEARNED, folder.file("model"), sets, tables, show, together.shared)
    if ranks.here().main:
        _conclude(recipe, folder)
    collective.wait()
    return folder


def _conclude(recipe: Recipe, folder: RunFolder) -> None:
    """Verdict, model card, hashes and page of a run that was judged."""
    if recipe.evaluation.suite != "none" and recipe.evaluation.gate is not None:
        verdict.of_run(folder.path, resamples=recipe.evaluation.resamples, ours=True)
    card.write(folder.path)
    folder.seal()
    page.render([folder.path], folder.file(runfolder.REPORT))


def is_whole(recipe: Recipe) -> bool:
    """True if the recipe's run is over and judged, its report written: nothing is left to do."""
    return runs.is_finished(recipe, "unlearn") and Path(recipe.output_dir, runfolder.REPORT).is_file()


def is_prepared(recipe: Recipe) -> bool:
    """True if the target that the recipe's run begins with is there and judged, or is not the recipe's to make."""
    if recipe.finetune is None:
        return True
    target = runs.finetune_recipe(recipe)
    return runs.is_finished(target, "finetune") and TARGET in runfolder.open(target.output_dir).labels


def _each_epoch(recipe: Recipe, start: Path | None, shared: Shared) -> tuple[Epochs | None, stopping.Stop | None]:
    """What is measured after each epoch, and the rule that may end the run early, as far as the recipe has them."""
    e = recipe.evaluation
    if (e.stop is None and e.each_epoch is None) or runs.is_finished(recipe, "unlearn"):
        return None, None
    encoder = shared.encoder(lms.load_tokenizer(runs.started(recipe.model, start)), recipe.data)
    sets = sets_of(recipe)
    return epochs.watching(recipe, sets, encoder), stopping.rule(recipe, sets, encoder)


def begin_study(recipe: Recipe) -> RunFolder:
    """The folder of a recipe with arms or seeds. One that holds a study already goes on, with the arms as they are now.

    What was run there is kept and checked run by run, so arms and seeds may be added.
    """
    if ranks.here().main:
        _begin_study(recipe)
    collective.wait()
    return runfolder.open(recipe.output_dir)


def _begin_study(recipe: Recipe) -> None:
    root = Path(recipe.output_dir)
    if not recipe.overwrite and runfolder.is_run(root) and runfolder.open(root).manifest["kind"] == "study":
        folder = runfolder.open(root)
        folder.write_text(runfolder.RECIPE, recipes.dump(recipe))
        folder.update(status="running", finished=None, error=None)
    else:
        folder = runfolder.create(root, "study", recipe, recipe.overwrite)
    folder.update(runs=[Path(variant.output_dir).name for variant in recipes.variants(recipe)])


def run_variants(recipe: Recipe, folder: RunFolder, show: Progress, on_epoch: Watched | None = None) -> list[RunFolder]:
    """The runs of a study, one after the other, and its report.html."""
    together = Together(shared=Shared(keep=True))
    variants = [variant.model_copy(update={"overwrite": False}) for variant in recipes.variants(recipe)]
    made = [run_one(variant, together, show, on_epoch) for variant in variants]
    if ranks.here().main:
        page.render([folder.path], folder.file(runfolder.REPORT), comparing=comparison.for_page)
    return made


def prepare_models(recipe: Recipe, show: Progress) -> dict[str, RunFolder]:
    """The runs of target and oracle by label, as far as the recipe's finetune section asks for them."""
    if recipe.finetune is None:
        return {}
    wanted: dict[str, set[str]] = {TARGET: set(), ORACLE: {"forget"}}
    if not recipe.finetune.oracle:
        del wanted[ORACLE]
    names = {TARGET: "Train the target", ORACLE: "Train the oracle, without the forget set"}
    made = {}
    for label, without in wanted.items():
        if runs.is_finished(runs.finetune_recipe(recipe, without), "finetune"):
            made[label] = runs.finetune(recipe, without=without)
            continue
        with show.stage(names[label]) as bar:
            made[label] = runs.finetune(recipe, without=without, on_step=shown(bar))
    return made


def references(
    recipe: Recipe, folder: RunFolder, made: Mapping[str, RunFolder], sets: Sets, show: Progress, together: Together
) -> None:
    """Judges target and oracle: in their own runs where they have one, so that several methods share the tables."""
    folder.update(compared_with={label: os.path.relpath(other.path, folder.path) for label, other in made.items()})
    collective.wait()
    if ORACLE in made:
        _judge_once(recipe, made[ORACLE], ORACLE, sets, None, show, together)
    elif recipe.evaluation.oracle is not None and not recipe.evaluation.oracle.endswith(".json"):
        judge(recipe, folder, ORACLE, _model_in(recipe.evaluation.oracle), sets, None, show)
    oracle = oracle_tables(recipe, folder)
    if TARGET in made:
        _judge_once(recipe, made[TARGET], TARGET, sets, oracle, show, together)
    elif recipe.model.model_name_or_path is not None:
        judge(recipe, folder, TARGET, recipe.model.model_name_or_path, sets, oracle, show)


def _judge_once(
    recipe: Recipe, made: RunFolder, label: str, sets: Sets, oracle: Path | None, show: Progress, together: Together
) -> None:
    """Judges a model in its own run, unless that was done just so before."""
    texts = runfolder.text_hash(f"{name} {r.id} {r.text_hash}" for name, records in sets.items() for r in records)
    done = f"{made.path} {oracle and oracle.resolve()} {recipe.evaluation.model_dump_json()} {texts}"
    if done not in together.judged:
        judge(recipe, made, label, made.file("model"), sets, oracle, show, together.shared)
        made.seal()
        together.judged.add(done)


def oracle_tables(recipe: Recipe, folder: RunFolder) -> Path | None:
    """Where the oracle's evaluation is: a folder of tables, or a peer's log; None without an oracle."""
    if recipe.evaluation.oracle is not None and recipe.evaluation.oracle.endswith(".json"):
        return Path(recipe.evaluation.oracle)
    elsewhere = folder.manifest.get("compared_with", {}).get(ORACLE)
    root = folder.path if elsewhere is None else folder.path / elsewhere
    tables = root / "eval" / ORACLE
    return tables if tables.is_dir() else None


def judge(
    recipe: Recipe,
    folder: RunFolder,
    label: str,
    model: LM | str | Path,
    sets: Sets,
    oracle: Path | None,
    show: Progress,
    shared: Shared | None = None,
) -> None:
    """Writes tables and metrics of a model to eval/LABEL of the run; tables that are there already are kept."""
    with show.stage(f"Judge {label} ({folder.path.name})" if label == UNLEARNED else f"Judge {label}") as bar:
        lm = model if isinstance(model, LM) else _loaded(recipe, model)
        encoder = (shared or Shared()).encoder(lm.tokenizer, recipe.data)
        fitting = sets if recipe.evaluation.suite == "muse" else _fitting(sets, encoder)
        target = None if label in (ORACLE, TARGET) else verdict.tables_of(folder, TARGET)

        def tell(what: str, done: int, total: int) -> None:
            bar(done, total, what)

        unknown = _beside(recipe, folder, label, lm, encoder, fitting, {ORACLE: oracle, TARGET: target}, tell)
        tofu.evaluate(
            lm,
            encoder,
            fitting,
            folder,
            label,
            reference=oracle,
            target=target,
            settings=settings_of(recipe),
            unknown=unknown,
            progress=tell,
        )
        if recipe.evaluation.harness is not None and ranks.here().main:
            harness.evaluate(lm, recipe.evaluation.harness, folder, label, settings_of(recipe).bootstrap)


def _beside(
    recipe: Recipe,
    folder: RunFolder,
    label: str,
    lm: LM,
    encoder: Encoder,
    sets: Sets,
    tables: Mapping[str, Path | None],
    progress: tofu.OnProgress,
) -> dict[str, str]:
    """Writes how far the model is from oracle and target, if asked for; why a number of it cannot be had."""
    compared = {UNLEARNED: (ORACLE, TARGET), MODEL: (ORACLE, TARGET), TARGET: (ORACLE,)}.get(label, ())
    names = compared if recipe.evaluation.kl else ()
    scored = {name: records for name, records in sets.items() if name not in (*settings_of(recipe).tasks, HOLDOUT)}
    others = [_other(recipe, folder, name, tables[name]) for name in names]
    budget = recipe.evaluation.token_budget
    return beside.make_tables(lm, encoder, scored, folder, label, others, token_budget=budget, progress=progress)


def _other(recipe: Recipe, folder: RunFolder, name: str, tables: Path | None) -> Other:
    """The oracle or the target, by where its tables are: in a run that made it, or in this one, beside its name."""
    named = {ORACLE: recipe.evaluation.oracle, TARGET: recipe.model.model_name_or_path}[name]
    if tables is None or not tables.is_dir():
        return Other(name, None, f"no weights of the {name} to compare with")
    run = tables.parents[1]
    where = _model_in(named) if named is not None and run.resolve() == folder.path.resolve() else str(run / "model")
    return Other(name, partial(_loaded, recipe, where))


def _loaded(recipe: Recipe, name: str | Path) -> LM:
    settings = recipe.model.model_copy(update={"model_name_or_path": str(name), "fresh": None})
    return lms.load(settings, device=lms.device_of(recipe.device))


def evaluate(
    model: LM | Hosted | str | Path, recipe: Recipe, out: str | Path, progress: Progress | None = None
) -> RunFolder:
    """The run folder `out` with the tables and metrics of a model, beside the recipe's oracle if it names one.

    A second call for the same model, data and settings computes nothing. `model` may also be a run folder. A `Hosted`
    one is judged by what its server says, with the tokenizer of the recipe's model.
    """
    show = progress or progresses.automatic()
    own = recipe.model_copy(update={"output_dir": str(out)})
    folder, _ = runs.begin(own, "evaluate")
    with runfolder.recording(folder):
        sets = sets_of(own)
        references(own, folder, {}, sets, show, Together()) if own.evaluation.oracle else None
        if isinstance(model, Hosted):
            _judge_hosted(own, folder, model, _reach(own, model, folder), sets, show)
        else:
            named = model if isinstance(model, LM) else _model_in(model)
            judge(own, folder, MODEL, named, sets, oracle_tables(own, folder), show)
    page.render([folder.path], folder.file(runfolder.REPORT))
    return folder


def audit(
    candidate: str | Path | Hosted,
    recipe: Recipe,
    out: str | Path,
    *,
    gate_text: str | None = None,
    salt: str | None = None,
    progress: Progress | None = None,
) -> tuple[RunFolder, Verdict]:
    """The run folder and the verdict of somebody else's model, beside the recipe's, which is what it was made from.

    A `Hosted` candidate is judged by what its server says. Nothing is trained. The forget records are also asked in
    frames that the salt decides; it is drawn if not given, and stands in the manifest with the gate, both before the
    first model is loaded.
    """
    show = progress or progresses.automatic()
    if recipe.model.model_name_or_path is None:
        raise ModelError("the audit needs the model that the candidate was made from. Set model.model_name_or_path")
    own = recipe.model_copy(update={"output_dir": str(out)})
    folder, _ = runs.begin(own, "evaluate")
    with runfolder.recording(folder):
        sets = sets_of(own)
        drawn = collective.agreed((folder.manifest.get("audit") or {}).get("salt") or salt or secrets.token_hex(8))
        facts: dict[str, object] = {"salt": drawn, "candidate": str(candidate)}
        reach = None
        if isinstance(candidate, Hosted):
            reach, facts["candidate"] = _reach(own, candidate, folder), f"{candidate.base_url} {candidate.model}"
            facts["endpoint"] = asdict(reach)
        folder.update(audit=facts)
        asked = reworded(sets["forget"], drawn)
        sets |= {"forget_reworded": asked} if asked else {}
        if not folder.has(runfolder.GATE):
            gate.keep(folder, gate_text or audit_gate(sets, scored=reach is None or reach.scores))
        references(own, folder, {}, sets, show, Together())
        if isinstance(candidate, Hosted):
            assert reach is not None
            _judge_hosted(own, folder, candidate, reach, sets, show)
        else:
            judge(own, folder, MODEL, _model_in(candidate), sets, oracle_tables(own, folder), show)
    found = verdict.of_run(folder.path, resamples=own.evaluation.resamples, ours=True)
    page.render([folder.path], folder.file(runfolder.REPORT))
    return folder, found


def _reach(recipe: Recipe, candidate: Hosted, folder: RunFolder) -> Reach:
    """What the candidate's server can do, tried on a text that has nothing to do with the data."""
    ids = lms.load_tokenizer(recipe.model).encode("The days of the week are Monday, Tuesday, Wednesday.")
    with hosted.asking(candidate, folder, recipe.evaluation.max_new_tokens) as server:
        return server.reach(ids)


def _judge_hosted(
    recipe: Recipe, folder: RunFolder, candidate: Hosted, reach: Reach, sets: Sets, show: Progress
) -> None:
    """As `judge`, by what a server says. What the base has and the server does not tell is absent, with the reason."""
    settings = settings_of(recipe)
    encoder = Encoder.from_recipe(lms.load_tokenizer(recipe.model), recipe.data)
    with show.stage(f"Ask {candidate.model}") as bar:
        with hosted.asking(candidate, folder, settings.max_new_tokens) as server:
            hosted.make_tables(
                server, reach, encoder, _fitting(sets, encoder), folder, MODEL, settings,
                lambda what, done, total: bar(done, total, what),
            )  # fmt: skip
        base = f"eval/{TARGET}/metrics.json"
        known = folder.read_json(base) if folder.has(base) else {}
        unknown = {} if reach.scores else dict.fromkeys(known, reach.why)
        tofu.write_judgement(
            folder, MODEL, oracle_tables(recipe, folder), verdict.tables_of(folder, TARGET), settings, unknown
        )


def audit_gate(sets: Sets, scored: bool = True) -> str:
    """The gate of an audit that brings none: half of the base's knowledge at most, nine tenths of the rest at least.

    Knowledge is the probability of the right answers, and membership by loss where there are holdout records; where
    only texts are known (not `scored`), ROUGE.
    """
    if not sets.get("retain"):
        raise DataError(
            "an audit needs records that the model should still know, or a broken one would pass: set data.retain, or "
            "bring a gate of your own"
        )
    what = "Q_A_Prob" if scored else "Q_A_ROUGE"
    bounds = [f"{{metric: forget_{what}, at_most: 0.5, of: target}}"]
    if sets.get("forget_reworded"):
        bounds.append(f"{{metric: forget_reworded_{what}, at_most: 0.5, of: target}}")
    if sets.get("holdout") and scored:
        bounds.append("{metric: forget_excess_Prob, at_most: 0.1}")
        bounds.append("{metric: mia_loss, at_most: 0.85}")  # what holds up best: docs/evaluation.md, which to trust
    bounds.append(f"{{metric: retain_{what}, at_least: 0.9, of: target}}")
    return "claim: suppression\nconditions:\n" + "".join(f"- {bound}\n" for bound in bounds)


def check(recipe: Recipe) -> list[Finding]:
    """What would spoil the numbers of a recipe: defects of its data, and records that its model does not know.

    The latter needs the model; where the recipe makes its model first, or names none, only the data is looked at.
    """
    found = runs.findings(recipe, _probes(recipe))
    if recipe.finetune is not None or recipe.model.model_name_or_path is None:
        return found
    lm = lms.load(recipe.model, device=lms.device_of(recipe.device))
    encoder = Encoder.from_recipe(lm.tokenizer, recipe.data)
    forget = records_by_side(recipe, encoder)["forget"]
    holdout = records_of(recipe.data.holdout, "holdout")
    return [*found, *unknown_records(lm, encoder, forget, holdout, token_budget=recipe.evaluation.token_budget)]


def _probes(recipe: Recipe) -> list[Record]:
    """What the suite asks about and nothing is trained on."""
    if recipe.evaluation.suite not in ("tofu", "muse"):
        return []
    trained = ("forget", "retain", "holdout")
    return [record for name, records in sets_of(recipe).items() if name not in trained for record in records]


def sets_of(recipe: Recipe, folder: RunFolder | None = None) -> dict[str, list[Record]]:
    """The evaluation sets of a recipe by name: TOFU's, or the recipe's own records, with what a run's model wrote."""
    settings, data = recipe.evaluation, recipe.data
    holdout = records_of(data.holdout, "holdout")
    if settings.suite == "muse":
        return muse.load_suite(settings.data_dir, settings.corpus, limit=settings.limit)
    if settings.suite == "tofu":
        return tofu.load_suite(settings.data_dir, settings.forget_split, limit=settings.limit, holdout=holdout or None)
    sets = {
        "forget": records_of(data.forget, "forget"),
        "retain": (written_retain(folder) if folder else []) or retain_of(recipe),
        "general": records_of(data.general, "general"),
        "holdout": holdout,
    }
    return {name: records[: settings.limit] for name, records in sets.items() if records}


def _fitting(sets: Sets, encoder: Encoder) -> dict[str, list[Record]]:
    """Long texts as pieces. MUSE's stay whole and are cut off, as published: its items are texts."""
    return {name: chunk_all(records, encoder) for name, records in sets.items()}


def settings_of(recipe: Recipe) -> tofu.Settings:
    """How the recipe's evaluation is made."""
    e = recipe.evaluation
    bootstrap = Bootstrap(resamples=e.resamples, seed=recipe.seed)
    return tofu.Settings(
        generate=e.generate,
        max_new_tokens=e.max_new_tokens,
        token_budget=e.token_budget,
        grad_norm=e.grad_norm,
        variants=e.variants,
        tasks=muse.TASKS if e.suite == "muse" else {},
        classifiers={what: one for what, one in (("fluency", e.fluency), ("entailment", e.entailment)) if one},
        bootstrap=bootstrap,
        generator=e.generator,
    )


def shown(bar: Bar) -> Callable[[Mapping[str, Any], int], None]:
    """A step listener that moves a bar."""
    return lambda entry, total: bar(int(entry["step"]), total, progresses.step_words(entry))


def _model_in(path: str | Path) -> str:
    """The model that a path names: a run's own model if it is a run folder."""
    return str(Path(path) / "model") if runfolder.is_run(path) else str(path)
