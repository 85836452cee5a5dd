"""What `expunge env` tells: versions, devices, and the variables of the environment that change what happens."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping

from expunge import runfolder
from expunge.runfolder import plain

_VARIABLES = ("HF_HOME", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
_SECRETS = ("HF_TOKEN",)
_EXTRAS: Mapping[str, str] = {"figures": "cairosvg", "llm": "openai", "pii": "presidio_analyzer", "spacy": "spacy"}


def facts() -> dict[str, str]:
    """Names and values, in the order in which they are shown. Secrets are told as set or not set, never quoted."""
    import torch

    from expunge import backend

    versions = dict(runfolder.environment())
    packages = versions.pop("packages")
    out = {**versions, **packages}
    out["device"] = _device()
    reason = backend.why_not()
    out["head kernels"] = "in force" if reason is None else f"not used: {reason}"
    out["threads"] = torch.get_num_threads()
    out["free disk"] = f"{shutil.disk_usage('.').free / 1e9:.0f} GB"
    for extra, module in _EXTRAS.items():
        here = importlib.util.find_spec(module) is not None
        out[f"extra '{extra}'"] = "installed" if here else f"not installed: pip install 'expunge[{extra}]'"
    out |= {name: os.environ.get(name, "not set") for name in _VARIABLES}
    out |= {name: "set" if os.environ.get(name) else "not set" for name in _SECRETS}
    return {str(name): str(plain(value)) for name, value in out.items()}


def _device() -> str:
    import torch

    from expunge.lm import device_of

    name = device_of("auto")
    if name != "cuda":
        return name
    memory = torch.cuda.get_device_properties(0).total_memory
    return f"cuda: {torch.cuda.get_device_name(0)}, {memory / 1e9:.0f} GB, {torch.cuda.device_count()} of them"
