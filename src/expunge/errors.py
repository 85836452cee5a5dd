"""Every error that a user of expunge is meant to read, and the suggestion for a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ExpungeError(Exception):
    """Anything wrong that the user can act on: says what was asked, what was found, what to do."""


class RecipeError(ExpungeError):
    """A recipe does not fit the schema. `faults` holds all of them, one line each."""

    def __init__(self, faults: Iterable[str], source: str = "recipe") -> None:
        self.faults = list(faults)
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        plural = "fault" if len(self.faults) == 1 else "faults"
        super().__init__(f"{source}: {len(self.faults)} {plural}\n{lines}")


class MethodError(ExpungeError):
    """A scorer, selector or objective is unknown, has wrong settings, or does not fit its neighbours."""


class DataError(ExpungeError):
    """Records, annotations or columns are missing, empty, contradictory or cannot be used."""


class ModelError(ExpungeError):
    """A model or tokenizer cannot be found, loaded, or used as a causal language model."""


class RunFolderError(ExpungeError):
    """A run folder holds another run, is damaged, or lacks what was asked of it."""


class TrainingError(ExpungeError):
    """Training stopped because its numbers broke; the last good state is kept."""


class MissingExtraError(ExpungeError):
    """An optional library is needed; the message says how to install it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}'. Install it with: pip install 'expunge[{extra}]'")


class Interrupted(ExpungeError):
    """The user or the system asked to stop; everything done so far is on disk."""


def unknown(kind: str, name: str, choices: Iterable[str]) -> str:
    """'unknown objective 'npoo'. Did you mean: npo?', or the list of what there is.

    >>> unknown("objective", "npoo", ["ga", "npo", "simnpo"])
    "unknown objective 'npoo'. Did you mean: npo, simnpo?"
    >>> unknown("objective", "zzz", ["ga", "npo"])
    "unknown objective 'zzz'. There are: ga, npo."
    """
    choices = sorted(set(choices))
    close = difflib.get_close_matches(name, choices, n=2, cutoff=0.6)
    if close:
        return f"unknown {kind} '{name}'. Did you mean: {', '.join(close)}?"
    return f"unknown {kind} '{name}'. There are: {', '.join(choices)}."
