"""Checkpoints that are whole or absent: staged beside their place, synced, hashed, renamed; safetensors only.

A checkpoint whose bytes do not match its manifest is passed over for the one before it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

_NAME = re.compile(r"step-(\d{8})")
_MANIFEST = "MANIFEST.json"
_FILES = {"model.safetensors", "optimizer.safetensors", "state.json"}
_EXTRA = "extra.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: its folder and the number of steps done."""

    folder: Path
    step: int

    @property
    def extra(self) -> dict[str, Tensor]:
        """The tensors that were saved beside weights and optimiser state; empty if there were none."""
        return load_file(self.folder / _EXTRA) if (self.folder / _EXTRA).is_file() else {}

    def restore(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Loads weights and optimiser state in place; returns the JSON state that was saved with them."""
        tensors = load_file(self.folder / "model.safetensors")
        with torch.no_grad():
            for name, parameter in _trained(module):
                parameter.copy_(tensors[name])
        state = optimizer.state_dict()
        state["state"] = _unflatten(load_file(self.folder / "optimizer.safetensors"))
        optimizer.load_state_dict(state)
        loaded: dict[str, Any] = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        return loaded


def save(
    root: Path,
    step: int,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    keep: int,
    extra: Mapping[str, Tensor] | None = None,
) -> Path:
    """The folder of a new checkpoint after `step` steps; older ones beyond `keep` are removed after it is in place."""
    final = root / f"step-{step:08d}"
    staging = root / f".staging-{step:08d}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    weights = {name: p.detach().cpu().contiguous() for name, p in _trained(module)}
    save_file(weights, staging / "model.safetensors")
    save_file(_flatten(optimizer.state_dict()["state"]), staging / "optimizer.safetensors")
    if extra:
        save_file(dict(extra), staging / _EXTRA)
    (staging / "state.json").write_text(json.dumps({**state, "step": step}), encoding="utf-8")
    files = {f.name: [f.stat().st_size, _sha256(f)] for f in sorted(staging.iterdir())}
    (staging / _MANIFEST).write_text(json.dumps(files), encoding="utf-8")
    for file in staging.iterdir():
        _sync(file)
    _sync(staging)
    shutil.rmtree(final, ignore_errors=True)
    staging.rename(final)
    _sync(root)
    folders = _folders(root)
    ahead = [f for f in folders if f.name > final.name]  # passed over when the run was resumed before them
    for old in ahead + [f for f in folders if f not in ahead][:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint whose bytes match its manifest, and a line for each one that was passed over."""
    skipped: list[str] = []
    for folder in reversed(_folders(root)):
        fault = _fault(folder)
        if fault is None:
            return Checkpoint(folder, int(folder.name.removeprefix("step-"))), skipped
        skipped.append(f"{folder.name}: {fault}")
    return None, skipped


def _trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that training changes: the others are those of the model it began with."""
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad)


def _folders(root: Path) -> list[Path]:
    return sorted(f for f in root.iterdir() if _NAME.fullmatch(f.name)) if root.is_dir() else []


def _fault(folder: Path) -> str | None:
    try:
        files: dict[str, list[Any]] = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if set(files) - {_EXTRA} != _FILES:
            return "its manifest lists other files than a checkpoint has"
        for name, (size, digest) in files.items():
            if (folder / name).stat().st_size != size:
                return f"{name} has another size than its manifest says"
            if _sha256(folder / name) != digest:
                return f"{name} does not match its hash"
    except (OSError, ValueError, TypeError) as error:
        return f"cannot be read ({type(error).__name__})"
    return None


def _flatten(state: Mapping[int, Mapping[str, Any]]) -> dict[str, Tensor]:
    return {
        f"{index}.{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for index, entries in state.items()
        for key, value in entries.items()
    }


def _unflatten(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = value
    return state


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
