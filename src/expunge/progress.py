"""How long work takes to go, for people who watch: bars in a terminal, plain lines in a log, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from expunge import ranks


class Bar(Protocol):
    """One stage's bar: how much is done of how much, and a few words."""

    def __call__(self, done: int, total: int, words: str = "") -> None: ...


class Progress(Protocol):
    """Shows the stages of a run one after the other."""

    def stage(self, name: str) -> AbstractContextManager[Bar]: ...


@dataclass(frozen=True)
class Silent:
    """Shows nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Bar]:
        """A bar that shows nothing."""
        yield lambda done, total, words="": None


@dataclass(frozen=True)
class Lines:
    """Two lines a stage, its name and its time: for logs, where a bar would be noise."""

    stream: TextIO = sys.stderr

    @contextmanager
    def stage(self, name: str) -> Iterator[Bar]:
        """A bar that shows nothing between the first line and the last."""
        began = time.perf_counter()
        print(f"{name} ...", file=self.stream, flush=True)
        yield lambda done, total, words="": None
        print(f"{name}: {time.perf_counter() - began:.1f} s", file=self.stream, flush=True)


@dataclass(frozen=True)
class Bars:
    """A bar a stage in the terminal, with the time it took left behind."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Bar]:
        """A live bar."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description:<34}"),
            BarColumn(bar_width=28),
            TimeElapsedColumn(),
            TextColumn("{task.fields[words]}", style="dim"),
        )
        with Progress(*columns, console=Console(stderr=True)) as live:
            task = live.add_task(name, total=None, words="")

            def show(done: int, total: int, words: str = "") -> None:
                live.update(task, completed=done, total=total, words=words)

            yield show
            if live.tasks[0].total is None:
                live.update(task, completed=1, total=1)


def automatic() -> Progress:
    """Bars where a person watches, lines where not; nothing in a process that only helps."""
    if not ranks.here().main:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines(sys.stderr)


def step_words(entry: Mapping[str, Any]) -> str:
    """'loss -0.123  epoch 2.0' of a log line."""
    return f"loss {entry['loss']:.3f}  epoch {entry['epoch']:.1f}"
