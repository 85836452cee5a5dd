"""The verbs that say whether it worked: a verdict by a gate, a diagnosis of what went wrong, an audit of any model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
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


def show(found: Verdict) -> None:
    """The verdict and each condition with its reason, on the terminal."""
    from rich.console import Console

    from expunge import terminal

    Console().print(*terminal.verdict(found), sep="\n")
