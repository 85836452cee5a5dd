"""The command line: one short function a verb. Everything heavy is imported inside the verb that needs it.

Exit codes: 0 done; 1 a fault of expunge itself; 2 something the user can mend; 75 stopped on request, and the same
command goes on.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from expunge import __version__, annotating, judging, ledgering, looking, measuring, preparing, ranks
from expunge.errors import MethodError, ModelError, unknown
from expunge.verbs import LOOK_UP, MAKE, MEASURE, PREPARE, USER_ERROR, Verbs

if TYPE_CHECKING:
    from expunge.recipe import Recipe, Verb

app = typer.Typer(
    name="expunge",
    cls=Verbs,
    help="Remove given knowledge from a language model by updating on the tokens that carry it, and prove it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(rich_help_panel=PREPARE)(preparing.init)
app.command(rich_help_panel=PREPARE)(preparing.synth)
_OPEN = {"ignore_unknown_options": True}

RecipeFile = Annotated[str, typer.Argument(metavar="RECIPE", help="YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[key=value]...", help="Settings that replace the recipe's, such as train.learning_rate=2e-5."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace another run in the output folder.")]


def main() -> None:
    """The console script."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    signal.signal(signal.SIGTERM, _terminated)
    app()


def _terminated(number: int, frame: object) -> None:
    """A scheduler's request to make room ends a verb as Ctrl-C does; training, which ends at a step, has its own."""
    raise KeyboardInterrupt


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"expunge {__version__}")
        raise typer.Exit


@app.callback()
def _everything(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error comes from.")] = False,
) -> None:
    pass


@app.command(rich_help_panel=MAKE)
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demo's runs and its report.html.")] = Path("demo-run"),
    overwrite: Overwrite = False,
) -> None:
    """Forget fictitious people in a small model, offline and on a CPU, and judge it beside the retrained oracle."""
    from expunge import demo as demos

    _judged(demos.run(out, overwrite=overwrite).path)


@app.command(context_settings=_OPEN, rich_help_panel=MAKE)
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Resolve everything; say what would be loaded and trained.")
    ] = False,
    overwrite: Overwrite = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show loss and sentences as they are forgotten.")] = False,
    push_to_hub: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Then push the model and its card, to a private repository."),
    ] = None,
) -> None:
    """Unlearn as a recipe says, evaluate, and write the report. Goes on where it was stopped."""
    resolved = _resolve(recipe, overrides, overwrite, "run")
    if dry_run:
        _print_plan(resolved)
        return
    if resolved.sweep is not None:
        sweep(recipe, overrides, overwrite=overwrite)
        return
    from expunge import pipeline
    from expunge.report import hub
    from expunge.watching import Watch

    if push_to_hub is not None:
        _pushable(resolved, push_to_hub)
    _announce(resolved)
    live = Watch()
    folder = (pipeline.run(resolved, live, live.epoch) if watch else pipeline.run(resolved)).path
    _judged(folder)
    if push_to_hub is not None and ranks.here().main:
        typer.echo(f"Pushed: {hub.push(folder, push_to_hub)}")


@app.command(context_settings=_OPEN, rich_help_panel=MAKE)
def sweep(
    recipe: RecipeFile,
    overrides: Overrides = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that share the runs out among them.")] = 1,
    print_commands: Annotated[
        bool, typer.Option("--print-commands", help="Run nothing; print what can run now, a command a line.")
    ] = False,
    judge: Annotated[bool, typer.Option("--judge", help="Run nothing; judge what is there once more.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Tune every arm with the same budget, run the best of each over the seeds, rank them. Goes on where it stopped."""
    from expunge import sweep as sweeps
    from expunge import terminal

    resolved = _resolve(recipe, overrides, overwrite, "run")
    if print_commands:
        typer.echo("\n".join(sweeps.commands(resolved)), nl=False)
        return
    folder = sweeps.judge(resolved) if judge else sweeps.run(resolved, jobs=jobs)
    _print(terminal.comparison(sweeps.leaderboard(resolved, folder)), sweeps.legend(resolved))
    _done(folder.path)


@app.command(context_settings=_OPEN, rich_help_panel=MAKE)
def finetune(
    recipe: RecipeFile,
    overrides: Overrides = None,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="SIDE", help="Leave out these records: 'forget' makes the oracle."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train the recipe's model on its records: the target, or with --without forget the oracle."""
    from expunge import runs

    resolved = _resolve(recipe, overrides, overwrite, "finetune")
    _done(runs.finetune(resolved, without=set(without or ())).path)


@app.command(context_settings=_OPEN, rich_help_panel=MAKE)
def evaluate(
    model: Annotated[str, typer.Argument(help="Folder or hub name of a model, or a run folder.", show_default=False)],
    overrides: Overrides = None,
    suite: Annotated[str, typer.Option(help="tofu, or own: the recipe's records.")] = "tofu",
    data: Annotated[str | None, typer.Option(help="Folder with the suite's files; the hub if not given.")] = None,
    oracle: Annotated[str | None, typer.Option(help="Model retrained without the forget set, or its run.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe with data.holdout, template and other settings.")] = None,
    out: Annotated[Path, typer.Option(help="Run folder for tables and metrics.")] = Path("runs/evaluation"),
    overwrite: Overwrite = False,
) -> None:
    """Judge a model: one scoring pass and one of generation, then every metric from the tables."""
    from expunge import pipeline

    given = {"evaluation.suite": suite, "evaluation.data_dir": data, "evaluation.oracle": oracle}
    options = [f"{key}={value}" for key, value in given.items() if value is not None]
    resolved = _resolve(recipe, [*options, *(overrides or ())], overwrite, None)
    _judged(pipeline.evaluate(model, resolved, out).path)


@app.command(context_settings=_OPEN, rich_help_panel=MAKE)
def score(
    recipe: RecipeFile,
    overrides: Overrides = None,
    scorer: Annotated[str | None, typer.Option("--score", help="Another score, such as entropy:temperature=2.")] = None,
    select: Annotated[str, typer.Option(help="The selector that goes with --score.")] = "raw",
    records: Annotated[int, typer.Option(min=1, help="Forget records that are shown.")] = 8,
    out: Annotated[Path | None, typer.Option(help="Parquet file for the scores of all forget records.")] = None,
) -> None:
    """Show which tokens a method takes for the knowledge, before anything is trained."""
    import pyarrow.parquet as pq

    from expunge import runs, terminal
    from expunge.sides import records_of
    from expunge.studies import models

    terms = [] if scorer is None else [f"method={{terms: [{{objective: ga, score: '{scorer}', select: '{select}'}}]}}"]
    resolved = _single(_resolve(recipe, [*(overrides or ()), *terms], False, "run"))
    forget = records_of(resolved.data.forget, "forget")
    table = runs.score_tokens(resolved, models.load(resolved), forget if out is not None else forget[:records])
    for row in table.slice(0, records).to_pylist():
        _print(*terminal.tokens(row))
    if out is not None:
        pq.write_table(table, out)
        typer.echo(f"{table.num_rows} records: {out}")


@app.command("list", rich_help_panel=LOOK_UP)
def list_(
    kind: Annotated[
        str | None, typer.Argument(help="preset, scorer, selector, objective, identifier or attack.")
    ] = None,
    plugin: Annotated[list[str] | None, typer.Option(help="Python file with your own methods.")] = None,
    scorers: Annotated[bool, typer.Option("--scorers", help="The scorers alone, and what each needs.")] = False,
) -> None:
    """List presets, scorers, selectors, objectives, identifiers and attacks."""
    from expunge import presets, registry, terminal

    _plugins(plugin)
    kind = "scorer" if scorers else kind
    if kind not in (None, "preset", *registry.KINDS):
        raise MethodError(unknown("kind", str(kind), ["preset", *registry.KINDS]))
    if kind in (None, "preset"):
        _print(terminal.presets(presets.PRESETS), "")
    for each in registry.KINDS:
        if kind in (None, each):
            _print(terminal.methods(each, {name: registry.get(each, name) for name in registry.names(each)}), "")


def _complete_preset(incomplete: str) -> list[str]:
    from expunge.presets import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete)]


@app.command(rich_help_panel=LOOK_UP)
def show(
    name: Annotated[
        str, typer.Argument(help="Of a preset or method.", autocompletion=_complete_preset, show_default=False)
    ],
    plugin: Annotated[list[str] | None, typer.Option(help="Python file with your own methods.")] = None,
) -> None:
    """Say what a preset or method computes, its settings, where it comes from and how it differs from there."""
    from expunge import presets, registry, terminal

    _plugins(plugin)
    known = {kind: registry.names(kind) for kind in registry.KINDS}
    pages = [terminal.preset_page(name, presets.PRESETS[name])] if name in presets.PRESETS else []
    pages += [terminal.method_page(kind, name, registry.get(kind, name)) for kind in known if name in known[kind]]
    if not pages:
        raise MethodError(
            unknown("preset or method", name, [*presets.PRESETS, *(n for ns in known.values() for n in ns)])
        )
    for page in pages:
        _print(*page)


@app.command(context_settings=_OPEN, rich_help_panel=LOOK_UP)
def explain(
    recipe: Annotated[
        str | None, typer.Argument(metavar="[RECIPE]", help="YAML file; without one, all settings.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Print every setting with its value in the recipe, default, type and meaning."""
    from expunge import explain as explaining
    from expunge import recipe as recipes
    from expunge import terminal

    found = None if recipe is None else recipes.load(recipe, _checked(overrides))
    _print(*terminal.explanation(explaining.fields(), found))


@app.command(rich_help_panel=LOOK_UP)
def schema() -> None:
    """Print the recipe's JSON schema, with which editors check and complete recipes."""
    import json

    from expunge.explain import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command(rich_help_panel=LOOK_UP)
def env() -> None:
    """Print versions, devices and what of the environment matters."""
    from expunge import environment, terminal

    _print(terminal.pairs(environment.facts()))


@app.command(rich_help_panel=PREPARE)
def annotate(
    records: Annotated[str, typer.Argument(help="File with the records.", show_default=False)],
    identifier: Annotated[str, typer.Option("--with", help="Identifier, such as phrases:file=F.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The annotation file that is written.")] = Path("spans.jsonl"),
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting key=value, taken as it is.")] = None,
    plugin: Annotated[list[str] | None, typer.Option(help="Python file with your own identifiers.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Send texts to the identifier's service without asking.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an annotation made otherwise.")] = False,
) -> None:
    """Mark which words of the records carry the unwanted information. Goes on where it was stopped."""
    from expunge import identifiers, progress, terminal
    from expunge.data.load import load
    from expunge.recipe import Source

    _plugins(plugin)
    marker = identifiers.build(identifier, settings or ())
    found = load(Source(path=records), "forget")
    estimate = marker.estimate(found)
    agreed = estimate is None or yes or typer.confirm(f"{estimate}. Send them?")
    with progress.automatic().stage("Annotate") as bar:
        made = identifiers.annotate(
            found,
            marker,
            out,
            progress=lambda done, total: bar(done, total),
            confirm=lambda _: agreed,
            overwrite=overwrite,
        )
    _print(terminal.annotated(made))


@app.command(context_settings=_OPEN, rich_help_panel=PREPARE)
def alternatives(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="The records file that is written.")] = Path("alternatives.jsonl"),
) -> None:
    """Let the model write other answers to the forget questions, for several runs. Goes on where it was stopped."""
    from expunge import alternatives as others
    from expunge import progress
    from expunge.sides import records_of
    from expunge.studies import models

    resolved = _single(_resolve(recipe, overrides, False, "run"))
    target, records = models.load(resolved), records_of(resolved.data.forget, "forget")
    with progress.automatic().stage("Alternatives") as bar:
        made = others.write_for(resolved, target, records, out, lambda done, total: bar(done, total))
    typer.echo(f"{sum(len(record.alternatives) for record in made)} answers to {len(made)} records: {out}")


@app.command(context_settings=_OPEN, rich_help_panel=PREPARE)
def plan(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Say what a recipe loads and trains: records, tokens, steps, memory and time, before anything is loaded."""
    _print_plan(_resolve(recipe, overrides, False, "run"))


@app.command(context_settings=_OPEN, rich_help_panel=PREPARE)
def check(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Look for what would spoil the numbers: overlaps, truncation, records without a scored token."""
    from expunge import pipeline, terminal

    findings = pipeline.check(_single(_resolve(recipe, overrides, False, "finetune")))
    _print(*terminal.findings(findings))
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(USER_ERROR)


app.add_typer(annotating.app, name="annotations", rich_help_panel=PREPARE)
app.command(rich_help_panel=MAKE)(looking.report)
app.command(rich_help_panel=MAKE)(looking.compare)
app.command(rich_help_panel=MAKE)(judging.verdict)
app.command(rich_help_panel=MAKE)(judging.diagnose)
app.command(rich_help_panel=MAKE)(judging.reproduce)
app.command(rich_help_panel=MAKE)(judging.attack)
app.command(rich_help_panel=MAKE)(judging.audit)
app.add_typer(ledgering.app, name="ledger", rich_help_panel=MAKE)
app.command(rich_help_panel=MEASURE)(measuring.selectivity)
app.command(rich_help_panel=MEASURE)(measuring.snr)
app.command(rich_help_panel=MEASURE)(measuring.intervene)
app.command(rich_help_panel=MEASURE)(measuring.recall)


def _resolve(recipe: str | None, overrides: Iterable[str] | None, overwrite: bool, verb: Verb | None) -> Recipe:
    from expunge.resolve import resolve

    return resolve(recipe, [*_checked(overrides), *(["overwrite=true"] if overwrite else [])], verb)


def _checked(overrides: Iterable[str] | None) -> list[str]:
    """The overrides; what looks like an option among them is refused, with the option that it may mean."""
    given = list(overrides or ())
    for item in given:
        if item.startswith("-") and "=" not in item:
            commands = typer.main.get_group(app).commands.values()
            options = [option for verb in commands for parameter in verb.params for option in parameter.opts]
            known = [option for option in options if option.startswith("--")]
            raise typer.BadParameter(f"{unknown('option', item, known)} Settings are written key=value")
    return given


def _plugins(files: Iterable[str] | None) -> None:
    from expunge import registry

    for file in files or ():
        registry.load_plugin(file)


def _print(*things: Any) -> None:
    from rich.console import Console

    console = Console()
    for thing in things:
        console.print(thing)


def _single(recipe: Recipe) -> Recipe:
    """The first of the runs that a recipe stands for."""
    from expunge.recipe import variants

    first, *others = variants(recipe)
    if others:
        typer.echo(f"The first of {len(others) + 1} runs: {Path(first.output_dir).name}")
    return first


def _pushable(recipe: Recipe, name: str) -> None:
    """ModelError if what the recipe makes cannot be pushed to the hub under this name."""
    from expunge.recipe import variants
    from expunge.report import hub

    hub.check(name)
    if (count := len(variants(recipe))) > 1:
        raise ModelError(
            f"--push-to-hub pushes one model, but the recipe stands for {count} runs. Push one of them when they are "
            f"done: hf upload {name} RUN/model"
        )


def _announce(recipe: Recipe) -> None:
    """Says what a run will take, before anything is loaded; nothing where that is not known here."""
    from expunge import terminal
    from expunge.plan import plan
    from expunge.recipe import variants

    if not ranks.here().main:
        return
    made = plan(variants(recipe)[0])
    if line := terminal.memory_line(made):
        disk, time = (sum(values) for values in zip(*((s.disk, s.seconds or 0) for s in made.stages), strict=True))
        typer.echo(f"{line}Disk: {terminal.size(int(disk))}. Training: about {terminal.duration(time)}.")


def _print_plan(recipe: Recipe) -> None:
    from expunge import terminal
    from expunge.plan import plan

    _print(*terminal.plan_page(plan(_single(recipe))))


def _done(folder: Path) -> None:
    page = folder / "report.html"
    typer.echo(f"Run folder: {folder}" + (f"\nReport: {page}" if page.is_file() else ""))


def _judged(folder: Path) -> None:
    from expunge import comparison, terminal
    from expunge.report import text
    from expunge.runfolder import open as open_run

    many = open_run(folder).manifest["kind"] == "study"
    _print(terminal.comparison(comparison.compare_runs([folder])) if many else text.headline([folder]))
    _done(folder)
