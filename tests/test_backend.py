"""Which form of the row arithmetic is chosen, and what is said where it is not the kernels."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from expunge import backend, environment

ON_CUDA = cast(Tensor, SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16, is_contiguous=lambda: True))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_kernels_give_the_numbers_of_torch_in_the_interpreter() -> None:
    """In a process of its own: see there."""
    file = Path(__file__).with_name("test_rowkernel.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(file)]
    settings = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    made = subprocess.run(command, env=settings, capture_output=True, text=True, check=False, cwd=file.parent.parent)
    assert made.returncode == 0, made.stdout[-4000:] + made.stderr[-1000:]
    assert " passed" in made.stdout


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with a GPU and Triton, as far as anyone asks."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return monkeypatch


def why_not() -> str | None:
    """Asked anew."""
    return backend.why_not.__wrapped__()


def test_the_kernels_are_in_force_where_they_run_and_agree(cuda: pytest.MonkeyPatch) -> None:
    cuda.setattr(backend, "_trial", lambda device: device == "cuda")
    assert why_not() is None


def test_reasons_against_the_kernels(cuda: pytest.MonkeyPatch) -> None:
    def broken(device: str) -> bool:
        raise RuntimeError("Failed to find C compiler.\nSet CC")

    cuda.setattr(backend, "_trial", broken)
    assert why_not() == "they do not run: RuntimeError: Failed to find C compiler."
    cuda.setattr(backend, "_trial", lambda device: False)
    assert why_not() == "their numbers are not those of torch"
    cuda.setattr(importlib.util, "find_spec", lambda name: None)
    assert why_not() == "triton is not installed"
    cuda.setattr(torch.cuda, "is_available", lambda: False)
    assert why_not() == "no CUDA device"


def test_the_reason_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "why_not", lambda: "the compiler is on holiday")
    with pytest.warns(UserWarning, match="not used: the compiler is on holiday; torch does it"):
        assert not backend._by_kernel(ON_CUDA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not backend._by_kernel(ON_CUDA)


def test_the_kernels_take_what_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not float64, not rows with gaps, not a CPU's; and of those nothing is said."""
    monkeypatch.setattr(backend, "why_not", lambda: None)

    def taken(**other: Any) -> bool:
        return backend._by_kernel(cast(Tensor, SimpleNamespace(**{**vars(ON_CUDA), **other})))

    assert taken()
    assert not taken(dtype=torch.float64)
    assert not taken(is_contiguous=lambda: False)
    assert not taken(device=torch.device("cpu"))


@pytest.mark.parametrize(("reason", "shown"), [(None, "in force"), ("no CUDA device", "not used: no CUDA device")])
def test_env_says_whether_the_kernels_are_in_force(
    reason: str | None, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "why_not", lambda: reason)
    assert environment.facts()["head kernels"] == shown
