"""Which form of `rowwise` works on a chunk of logits: its Triton kernels on CUDA where they run, else torch's.

Both forms give the same numbers to rounding. The kernels are tried once a process, on a few small rows beside torch's
form; where they are not installed, do not run or do not agree, torch's form is used and the reason is said once.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings

import torch
from torch import Tensor

from expunge import rowwise
from expunge.rowwise import Asked


def statistics(raw: Tensor, targets: Tensor, asked: Asked, gradient: bool) -> list[Tensor]:
    """What `rowwise.statistics` gives."""
    if not _by_kernel(raw):
        return rowwise.statistics(raw, targets, asked, gradient)
    from expunge import rowkernel

    return rowkernel.statistics(raw, targets, asked, gradient)


def surplus(
    raw: Tensor, targets: Tensor, lse: Tensor, logp: Tensor, asked: Asked, lead: Tensor, more: Tensor | None = None
) -> None:
    """What `rowwise.surplus` does."""
    if not _by_kernel(raw):
        return rowwise.surplus(raw, targets, lse, logp, asked, lead, more)
    from expunge import rowkernel

    return rowkernel.surplus(raw, targets, lse, logp, asked, lead, more)


@functools.cache
def why_not() -> str | None:
    """Why the kernels are not used on CUDA here; None if they are. Tried once a process."""
    if not torch.cuda.is_available():
        return "no CUDA device"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    try:
        agree = _trial("cuda")
    except Exception as error:  # whatever a compiler or a driver may raise: torch's form does the same work
        first = (str(error).strip().splitlines() or [""])[0]
        return f"they do not run: {type(error).__name__}: {first}"
    return None if agree else "their numbers are not those of torch"


def _by_kernel(raw: Tensor) -> bool:
    """True for CUDA tensors that the kernels can take, where they run; float64 is left to torch."""
    if raw.device.type != "cuda" or raw.dtype == torch.float64 or not raw.is_contiguous():
        return False
    reason = why_not()
    if reason is not None:
        _warn(reason)
    return reason is None


@functools.cache
def _warn(reason: str) -> None:
    warnings.warn(f"the Triton kernels of the vocabulary head are not used: {reason}; torch does it", stacklevel=2)


def _trial(device: str) -> bool:
    """True if both forms agree on four small rows with everything asked for, and leave the same gradient behind."""
    from expunge import rowkernel

    raw = torch.linspace(-4.0, 4.0, 4 * 37, device=device).sin_().mul_(6.0).reshape(4, 37)
    targets = torch.tensor([0, 9, 18, 36], device=device)
    asked = Asked((1.0, 2.0), True, 0.5, 20.0)
    left, right = raw.clone(), raw.clone()
    found = [*rowkernel.statistics(left, targets, asked, True), left]
    expected = [*rowwise.statistics(right, targets, asked, True), right]
    return all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, expected, strict=True))
