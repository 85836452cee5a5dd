"""What the processes of a run do together: sums, gatherings, decisions. With one process each is the thing itself.

Sums of gradients are taken here and not by a wrapper around the module, because what is summed is normalised already
by counts over the whole global batch, and because parts of a gradient may be kept apart (see `combine`).
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from expunge import ranks
from expunge.errors import TrainingError

T = TypeVar("T")
_BUCKET = 16_777_216
"""Numbers that are sent at once: 64 MiB in float32."""
_PATIENCE = timedelta(hours=12)
"""How long one process waits for another: torchrun sees a dead one, and the main one may have tables to judge."""


def summed(values: Sequence[float]) -> list[float]:
    """The sums of each value over all processes, in float64."""
    if not _joined():
        return list(values)
    total = torch.tensor(list(values), dtype=torch.float64)
    dist.all_reduce(total)
    return [float(value) for value in total]


def sum_gradients(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor | None]:
    """The sum of each gradient over all processes; None where no process has one. `like` are the parameters."""
    if not _joined():
        return list(gradients)
    present = summed([float(g is not None) for g in gradients])
    whole = [
        None if not count else torch.zeros_like(p) if g is None else g
        for g, p, count in zip(gradients, like, present, strict=True)
    ]
    for bucket in _buckets([g for g in whole if g is not None]):
        flat = torch.cat([g.reshape(-1) for g in bucket])
        dist.all_reduce(flat)
        for own, total in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
            own.copy_(total.view_as(own))
    return whole


def gathered(value: T) -> list[T]:
    """What every process brings, in their order; tensors in it come to the CPU where there are several."""
    if not _joined():
        return [value]
    out: list[T] = [value] * ranks.here().size
    dist.all_gather_object(out, _on_cpu(value))
    return out


def agreed(value: T) -> T:
    """What the main process says."""
    if not _joined():
        return value
    said = [value]
    dist.broadcast_object_list(said, src=0, device=torch.device("cpu"))
    return said[0]


def any_of(flag: bool) -> bool:
    """True if any process says so."""
    return summed([float(flag)])[0] > 0


def wait() -> None:
    """Returns when every process is here: what the main one wrote before is there for all."""
    if _joined():
        dist.barrier()


def require_alike(numbers: Iterable[float], what: str) -> None:
    """TrainingError unless all processes have the same numbers, to the bit. One alone does not look at them."""
    if not _joined():
        return
    found = gathered(tuple(numbers))
    if any(other != found[0] for other in found):
        raise TrainingError(f"the processes have come apart: {what} differs among them. Run again from a checkpoint")


def _on_cpu(value: Any) -> Any:
    """The value with its tensors, and those inside it, on the CPU."""
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, Mapping):
        return {key: _on_cpu(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_on_cpu(inner) for inner in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _on_cpu(getattr(value, f.name)) for f in fields(value)})
    return value


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Neighbours of one type, as many as are sent at once."""
    out: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        if not out or tensor.dtype != out[-1][0].dtype or tensor.numel() > room:
            out.append([])
            room = _BUCKET
        out[-1].append(tensor)
        room -= tensor.numel()
    return out


def _joined() -> bool:
    return ranks.here().size > 1 and _join()


@cache
def _join() -> bool:
    """Joins the group that torchrun's environment describes, once."""
    own = ranks.here()
    if not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(own.local)
        dist.init_process_group(timeout=_PATIENCE)  # a backend for each kind of device: gloo here, nccl on CUDA
        atexit.register(dist.destroy_process_group)
    if dist.get_world_size() != own.size:
        raise TrainingError(
            f"{own.size} processes were to join and {dist.get_world_size()} did. Start all of them with torchrun"
        )
    return True
