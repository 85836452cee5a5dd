"""Bounds on what must stay cheap: ratios of CPU time in one process, medians of five; other work does not count."""

from __future__ import annotations

import importlib
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script of benchmarks/ by its name."""
    if not BENCHMARKS.is_dir():
        pytest.skip("the benchmarks are not here: they are part of the repository, not of the package")
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def within(measure: Callable[[], Mapping[str, float]], bounds: Mapping[str, float]) -> None:
    """All ratios are below their bounds in one of three measurements: processes beside us take turns in our caches."""
    tried = []
    for _ in range(3):
        tried.append(measure())
        if all(tried[-1][name] < bound for name, bound in bounds.items()):
            return
    raise AssertionError(f"{bounds} were asked; found {tried}")


def test_the_head_costs_less_than_whole_logits_and_less_still_with_a_frozen_head(benchmark: Any) -> None:
    """Bounds between what was measured (docs/performance.md) and what a second product or a slow pass would make it."""
    head, clock = benchmark("head"), benchmark("clock")
    works = head.works(128, 256, 8192, head.torch.float32)
    chosen = {name: works[name] for name in ("naive, entropy", "trained, entropy", "frozen, entropy")}
    within(lambda: clock.ratios(chosen, "naive, entropy"), {"trained, entropy": 0.9, "frozen, entropy": 0.75})


def test_a_step_with_a_remembered_reference_costs_little_more_than_plain_fine_tuning(benchmark: Any) -> None:
    step, clock = benchmark("step"), benchmark("clock")
    within(lambda: clock.ratios(step.works(64, 2, 2048, 6), step.PLAIN), {"npo + nll": 1.5, "ga + kl": 1.8})


def test_help_takes_half_a_second_of_cpu_at_most_and_loads_no_torch() -> None:
    """In one of ten starts: beside other work the same instructions take longer, and only longer."""
    call = "app(['--help'], standalone_mode=False)"
    code = f"import sys; from expunge.cli import app; {call}; sys.exit('torch' in sys.modules)"
    spent: list[float] = []
    while len(spent) < 10 and min(spent, default=1.0) >= 0.5:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.5
