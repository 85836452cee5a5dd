"""The verbs that say whether it worked: a verdict by a gate, a diagnosis, attacks, an audit, a second run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from expunge.attacks.suite import Planned
    from expunge.evals.hosted import Hosted
    from expunge.evals.verdict import Verdict

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.", show_default=False)]
GateFile = Annotated[Path | None, typer.Option("--gate", help="YAML file that says what must hold.")]
Resamples = Annotated[int, typer.Option(min=1, help="Bootstrap resamples of each interval.")]


def verdict(run: Run, gate: GateFile = None, resamples: Resamples = 2000) -> None:
    """PASS, FAIL or INCONCLUSIVE by a gate file, or by the gate the run began with. Exit code 0, 1 or 2."""
    from expunge.evals import verdict as verdicts

    found = verdicts.of_run(run, gate, resamples=resamples)
    show(found)
    raise typer.Exit(found.exit_code)


def diagnose(run: Run) -> None:
    """Name what went wrong: collapse, under-forgetting, over-forgetting, an inconsistent identifier."""
    from rich.console import Console

    from expunge import runfolder, terminal
    from expunge.evals import diagnose as signs

    Console().print(terminal.signs(signs.diagnose(runfolder.open(run))))


def audit(
    candidate: Annotated[str, typer.Option(help="The model to judge: folder, hub name, run folder, or its address.")],
    base: Annotated[str, typer.Option(help="The model that it was made from.")],
    data: Annotated[str, typer.Option(help="File with the records that should be gone.")],
    retain: Annotated[str | None, typer.Option(help="File with records that should be left.")] = None,
    holdout: Annotated[str | None, typer.Option(help="File with records that neither model has read.")] = None,
    gate: GateFile = None,
    salt: Annotated[str | None, typer.Option(help="Decides the held-out probes; drawn if not given.")] = None,
    served: Annotated[str, typer.Option(help="Of a candidate by its address: the name it is served under.")] = "",
    key_env: Annotated[str, typer.Option(help="Environment variable that holds the key of the address.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Send texts unencrypted to another machine.")] = False,
    recipe: Annotated[str | None, typer.Option(help="Recipe with template and other settings.")] = None,
    out: Annotated[Path, typer.Option(help="Run folder of the audit.")] = Path("runs/audit"),
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[key=value]...", help="Further settings.")] = None,
) -> None:
    """Judge somebody else's model, with no training: probes no method has seen, the numbers, the verdict."""
    from expunge import pipeline
    from expunge.evals.hosted import Hosted
    from expunge.resolve import resolve

    files = {"forget": data, "retain": retain, "holdout": holdout}
    given = [f"data.{side}.path={path}" for side, path in files.items() if path is not None]
    resolved = resolve(recipe, [f"model.model_name_or_path={base}", *given, *(overrides or ())], None)
    text = None if gate is None else gate.read_text(encoding="utf-8")
    whom: str | Hosted = candidate
    if candidate.startswith(("http://", "https://")):
        whom = Hosted(candidate, served, key_env, insecure)
    folder, found = pipeline.audit(whom, resolved, out, gate_text=text, salt=salt)
    show(found)
    typer.echo(f"Run folder: {folder.path}")
    raise typer.Exit(found.exit_code)


def attack(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RUN|MODEL", help="Run or study that unlearned; with --recipe, any model.", show_default=False
        ),
    ],
    suite: Annotated[
        list[str] | None, typer.Option("--suite", help="quick, standard, or an attack such as sampling:k=5; repeat.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many records of each set.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe with the records, the model before and evaluation.oracle.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder, where a model is attacked.")] = Path("runs/attack"),
    plan: Annotated[bool, typer.Option("--plan", help="Say what it would take, and do nothing.")] = False,
    artefacts: Annotated[
        str | None,
        typer.Option(help="Judge what would be shipped instead: merged, int8, nf4, endpoint, joined by commas."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Where the artefact endpoint, or the writer of rewordings, is served.")
    ] = None,
    served: Annotated[str, typer.Option(help="The name that it is served under.")] = "",
    key_env: Annotated[str, typer.Option(help="Environment variable that holds the key of the address.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Send texts unencrypted to another machine.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value]...", help="Settings of the recipe.")
    ] = None,
) -> None:
    """Try to bring back what was unlearned, beside the oracle; worst case first. Goes on where it was stopped."""
    from rich.console import Console

    from expunge import attacking, terminal
    from expunge.evals.hosted import Hosted
    from expunge.resolve import resolve

    console = Console()
    hosted = None if address is None else Hosted(address, served, key_env, insecure)
    if artefacts is not None:
        _ship(target, artefacts, hosted)
        if not suite:
            return
    asked = attacking.Asked(tuple(suite or ("standard",)), limit, hosted)

    def tell(planned: Sequence[Planned]) -> None:
        console.print(terminal.attack_plan(planned))
        if plan:
            raise typer.Exit

    if recipe is None:
        found = attacking.of_run(target, asked, tell)
    else:
        found = [attacking.of_model(target, resolve(recipe, overrides or (), None), out, asked, tell)]
    for run, results in found:
        console.print(*terminal.attacks(results), sep="\n")
        typer.echo(f"Run folder: {run.path}")


def _ship(run: str, names: str, hosted: Hosted | None) -> None:
    """Judges what would be shipped, and prints how it differs."""
    from rich.console import Console

    from expunge import artefacts, terminal
    from expunge.runfolder import ARTEFACTS
    from expunge.studies import sheets

    wanted = [name.strip() for name in names.split(",") if name.strip()]
    folder = artefacts.judge(run, wanted, hosted)
    Console().print(*terminal.sheet(sheets.read(folder, ARTEFACTS)), sep="\n")
    typer.echo(f"Run folder: {folder.path}")


def reproduce(
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder for the second run.", show_default=False)],
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Largest difference of two numbers that count as the same.")
    ] = 0.0,
) -> None:
    """Run a run's recipe once more, from the data on, and compare every number. Exit code 0: all the same; else 1."""
    from rich.console import Console

    from expunge import reproduce as again
    from expunge import terminal

    found = again.run(run, out, tolerance=tolerance)
    Console().print(*terminal.reproduction(found), sep="\n")
    raise typer.Exit(0 if found.same else 1)


def show(found: Verdict) -> None:
    """The verdict and each condition with its reason, on the terminal."""
    from rich.console import Console

    from expunge import terminal

    Console().print(*terminal.verdict(found), sep="\n")
