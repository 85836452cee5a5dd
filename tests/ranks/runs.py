"""What the processes of these tests run: small fits of every preset, and a fit that is broken off and goes on.

Called by torchrun as `python -m tests.ranks.runs FOLDER METHOD...`, and imported by the test that compares.
"""

from __future__ import annotations

import copy
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from expunge import collective, presets, ranks, runfolder
from expunge.alternatives import Alternatives
from expunge.combine import combine_of
from expunge.core import Side
from expunge.data.encode import Encoded
from expunge.errors import Interrupted
from expunge.learned import learned_of
from expunge.lm import LM, Scored
from expunge.recipe import Method, Train
from expunge.refcache import Reference
from expunge.terms import build_terms, coupled, worded
from expunge.train import Fit
from tests.contract import harness as h
from tests.fixtures.models import tiny
from tests.fixtures.tokenizers import bpe

FORGET, RETAIN = h.items(7), h.items(5, seed=9, prefix="r")
METHODS: Mapping[str, Method] = {
    **{name: Method(preset=name) for name in presets.PRESETS if name != "task-vector"},
    "graddiff, sago": Method(preset="graddiff", combine="sago"),
    "npo, project": Method(preset="npo", combine="project"),
    "etw, grad-matched": Method(preset="etw", control="grad-matched"),
    "etw, random": Method(preset="etw", control="random"),
}
STOPPED = "pdu"
"""Its dual variable is state of the run too."""


class Others:
    """Another answer to any record, the same in every epoch."""

    def at(self, record_id: str, epoch: int) -> Encoded:
        return h.other_answer(record_id)


def fit(folder: Path, method: Method, batch: int, accumulate: int, **more: Any) -> Fit:
    """A run of three steps of seven records; the folder is made if it is not there."""
    lm = LM(tiny("llama"), bpe(), "tiny")
    terms = worded(build_terms(method), lambda text: [3, 4])
    if ranks.here().main and not runfolder.is_run(folder):
        runfolder.create(folder, "unlearn")
    collective.wait()
    sides: dict[Side, list[Encoded]] = {"forget": FORGET, "retain": RETAIN}
    frozen = Reference(Scored(copy.deepcopy(lm.model).eval().requires_grad_(False)))
    settings = {
        "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulate, "num_train_epochs": 3,
        "learning_rate": 1e-3, "lr_scheduler_type": "constant",
    }  # fmt: skip
    others: dict[Side, Alternatives] = {side: cast(Alternatives, Others()) for side in sides}
    return Fit(
        lm,
        terms,
        {side: items for side, items in sides.items() if any(t.on == side for t in terms)},
        Train.model_validate({**settings, **more}),
        runfolder.open(folder),
        seed=5,
        reference=frozen if any(t.needs.any_reference for t in terms) else None,
        alternatives={side: other for side, other in others.items() if any(t.on == side for t in terms)},
        combine=combine_of(terms, method.combine),
        learned=learned_of(terms, lm),
    )


def couples(method: Method) -> bool:
    """True if the rows of a micro-batch enter one another's loss."""
    return bool(coupled(build_terms(method)))


def weights(made: Fit) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in made.lm.model.named_parameters()}


def stopped_by_another(folder: Path) -> Fit:
    """A run whose last process is told to stop after the second step, and that went on."""
    first = fit(folder, METHODS[STOPPED], 2, 2)
    last = ranks.here().rank == ranks.here().size - 1
    first.on_step = lambda entry, total: signal.raise_signal(signal.SIGTERM) if last and entry["step"] == 2 else None
    with pytest.raises(Interrupted):
        first()
    second = fit(folder, METHODS[STOPPED], 2, 2)
    second()
    return second


def main(folder: Path, names: Sequence[str]) -> None:
    """Makes a run of each method, of micro-batches of four; the weights after it are in FOLDER/METHOD.safetensors."""
    torch.set_num_threads(1)
    for name in names:
        _keep(folder, name, fit(folder / name, METHODS[name], 4, 1))
    _keep(folder, "straight", fit(folder / "straight", METHODS[STOPPED], 2, 2))
    made = stopped_by_another(folder / "stopped")
    _keep(folder, "stopped", made, run=False)


def _keep(folder: Path, name: str, made: Fit, *, run: bool = True) -> None:
    if run:
        made()
    if ranks.here().main:
        save_file(weights(made), folder / f"{name}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
