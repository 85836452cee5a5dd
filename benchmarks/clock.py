"""What a piece of work costs in CPU time of this thread, so that other work on the machine does not count."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch


def medians(works: Mapping[str, Callable[[], object]], times: int = 5) -> dict[str, float]:
    """The median seconds of CPU time of each piece of work, in turns, after one that is not counted."""
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(times + 1):
        for name, work in works.items():
            began = time.thread_time()
            work()
            if turn:
                seconds[name].append(time.thread_time() - began)
    return {name: statistics.median(found) for name, found in seconds.items()}


def ratios(works: Mapping[str, Callable[[], object]], base: str, times: int = 5) -> dict[str, float]:
    """Each piece of work beside that named `base`; the base itself in seconds."""
    found = medians(works, times)
    return {name: value if name == base else value / found[base] for name, value in found.items()}


def report(rows: list[dict[str, Any]], out: Path | None) -> None:
    """Prints the rows, and writes them with the machine and the versions that they were measured with."""
    for row in rows:
        print(json.dumps(row))
    if out is not None:
        where = {
            "machine": platform.machine(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "torch": torch.__version__,
        }
        out.write_text(json.dumps({**where, "python": platform.python_version(), "rows": rows}, indent=1) + "\n")
