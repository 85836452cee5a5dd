"""The group of all verbs: where errors become messages and exit codes, and what `expunge --help` shows."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from expunge import ranks
from expunge.errors import ExpungeError, Interrupted

USER_ERROR = 2
STOPPED = 75

PREPARE, MAKE, MEASURE, LOOK_UP = SECTIONS = ("Prepare", "Make and judge", "Measure", "Look up")
"""What the verbs are listed under, in this order."""


class Verbs(TyperGroup):
    """The one place where errors become messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """The verb's result; ExpungeError and Ctrl-C end in a message and an exit code.

        Of several processes of a run only the main one prints results; all print errors.
        """
        try:
            if ranks.here().main:
                return super().invoke(ctx)
            with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
                return super().invoke(ctx)
        except KeyboardInterrupt:
            _complain("stopped. What was done is on disk; give the same command again to go on")
            raise typer.Exit(STOPPED) from None
        except ExpungeError as error:
            if ctx.params.get("traceback"):
                raise
            _complain(str(error))
            raise typer.Exit(STOPPED if isinstance(error, Interrupted) else USER_ERROR) from None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The page of all verbs as plain text: to load and draw the boxes of the verbs' own pages takes .2 s of CPU."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        self.format_options(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """A list of verbs for each section."""
        verbs: dict[str, Any] = {**self.commands}
        for title in SECTIONS:
            listed = [(name, verb) for name, verb in verbs.items() if verb.rich_help_panel == title]
            with formatter.section(title):
                formatter.write_dl([(name, verb.get_short_help_str(limit=200)) for name, verb in listed])


def _complain(message: str) -> None:
    from rich.console import Console

    from expunge import terminal

    terminal.error(message, Console(stderr=True))
