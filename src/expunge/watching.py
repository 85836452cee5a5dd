"""A run in the terminal while it goes: progress, loss, and a few sentences whose colour fades as they are forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from expunge import runfolder
from expunge.progress import Bar
from expunge.report import heat, sentences, words
from expunge.report.sentences import Sentence

SENTENCES, LONGEST, CURVE = 4, 40, 60
_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass
class Watch:
    """A `Progress` that also shows the run being made. `epoch` is for the pipeline's on_epoch.

    It shows forget text, on the screen alone.
    """

    console: Console = field(default_factory=lambda: Console(stderr=True))
    _shown: tuple[Sentence, ...] = ()
    _losses: tuple[float, ...] = ()
    _live: Live | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[Bar]:
        """A live page while the stage lasts; its last state stays on the screen."""
        state = [(0, 0, "")]

        def page() -> RenderableType:
            return self._page(name, *state[-1])

        with Live(get_renderable=page, console=self.console, refresh_per_second=6) as self._live:

            def show(done: int, total: int, words: str = "") -> None:
                state[:] = [(done, total, words)]

            yield show
        self._shown, self._losses, self._live = (), (), None

    def epoch(self, folder: Path, epoch: int) -> None:
        """Takes up what the run in `folder` has written of its tokens and losses so far."""
        run = runfolder.open(folder)
        self._losses = tuple(float(line["loss"]) for line in run.read_log() if line.get("loss") is not None)
        found = sentences.read(run, [one.id for one in self._shown] or None)
        self._shown = tuple(found[one.id] for one in self._shown) or chosen(tuple(found.values()))
        if self._live is not None:
            self._live.refresh()

    def _page(self, name: str, done: int, total: int, said: str) -> RenderableType:
        head = Table.grid(padding=(0, 2))
        head.add_row(Text(name), ProgressBar(total or None, done, width=28), Text(said, style="dim"))
        parts: list[RenderableType] = [head]
        if len(self._losses) > 1:
            parts.append(Text(f"loss  {curve(self._losses)}  {self._losses[-1]:.3f}", style="dim"))
        for one in self._shown:
            parts += lines(one)
        return Group(*parts)


def chosen(found: Sequence[Sentence]) -> tuple[Sentence, ...]:
    """A few sentences to watch: with gold tokens and short, as far as there are such; in the table's order."""
    fit = [one for one in found if any(one.gold) and len(one.tokens) <= LONGEST] or list(found)
    return tuple(fit[:: max(1, len(fit) // SENTENCES)][:SENTENCES])


def lines(one: Sentence) -> list[Text]:
    """The prompt, and the sentence shaded by how probable each token is now; gold tokens underlined, then and now."""
    kept = [place for place, start in enumerate(one.start) if start >= 0] or [*range(len(one.tokens))]
    pieces = sentences.pieces(one.tokens, one.start, one.end, one.text)
    now, gold = np.exp(one.last.logp), np.array(one.gold)
    text = heat.shaded([pieces[i] for i in kept], [float(now[i]) for i in kept], [one.gold[i] for i in kept])
    if gold.any():
        before = np.exp(one.first.logp)
        text.append(f"   {before[gold].mean():.2f} → {now[gold].mean():.2f}", style="dim")
    prompt = [Text(words.visible(one.prompt, 120).replace("\n", " "), style="dim italic")] if one.prompt else []
    return [Text(""), *prompt, text]


def curve(values: Sequence[float]) -> str:
    """The values as a line of blocks, at most 60: the mean of each stretch between the lowest and the highest.

    >>> curve([0, 1, 2, 7])
    '▁▂▃█'
    """
    means = [float(np.mean(part)) for part in np.array_split(np.asarray(values, float), min(CURVE, len(values)))]
    low, high = min(means), max(means)
    if not np.isfinite([low, high]).all() or high == low:
        return _BLOCKS[0] * len(means)
    return "".join(_BLOCKS[round((value - low) / (high - low) * (len(_BLOCKS) - 1))] for value in means)
