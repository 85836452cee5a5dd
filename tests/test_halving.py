"""Out of memory: micro-batches are parted, the run goes on to the same model, and what cannot be parted says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from expunge import checkpoint, train
from expunge.errors import Interrupted, TrainingError
from expunge.halving import is_out_of_memory, parted
from expunge.recipe import Method, TermSpec
from tests.test_runs import stop_at
from tests.test_train import fit

COUPLED = Method(terms=(TermSpec(objective="lpl:sigmoid=batch"), TermSpec(objective="nll", on="retain")))


def short_of(monkeypatch: pytest.MonkeyPatch, records: int, error: BaseException) -> list[int]:
    """Memory for micro-batches of so many records, whichever way the fault shows; the sizes that were tried."""
    real, tried = train.accumulate, []

    def accumulate(step: Any, module: Any, micro: Sequence[Mapping[str, Any]], *more: Any) -> Any:
        size = max(len(batch) for batches in micro for batch in batches.values())
        tried.append(size)
        found = real(step, module, micro, *more)  # some of the gradient is there already
        if size > records:
            raise error
        return found

    monkeypatch.setattr(train, "accumulate", accumulate)
    return tried


def ended(run: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in run.module.named_parameters()}


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory: you tried")],
    ids=["cuda", "python", "cpu"],
)
@pytest.mark.parametrize("method", ["npo", "graddiff-kl"])
def test_the_run_goes_on_in_parts_to_the_same_model(
    method: str, error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(tmp_path / "whole", method, "llama", per_device_train_batch_size=5)
    whole()
    tried = short_of(monkeypatch, 2, error)
    short = fit(tmp_path / "short", method, "llama", per_device_train_batch_size=5)
    with pytest.warns(UserWarning, match="parted in two") as told:
        short()
    assert [str(one.message).split(" records")[0] for one in told] == [
        f"out of memory at step 1: micro-batches of {size}" for size in (5, 3)
    ]
    assert tried[:3] == [5, 3, 2]
    assert max(tried[3:]) == 2
    assert (short.parts, short.run.manifest["micro_batches_parted"]) == (4, 4)
    for one, other in zip(whole.run.read_log(), short.run.read_log(), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other["tokens"] == one["tokens"]
    for name, weight in ended(whole).items():
        torch.testing.assert_close(ended(short)[name], weight, rtol=1e-3, atol=2e-4)


def test_a_resumed_run_keeps_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = short_of(monkeypatch, 2, MemoryError())
    first = fit(tmp_path / "run", "npo", "llama", per_device_train_batch_size=4)
    first.on_step = stop_at(2)
    with pytest.warns(UserWarning, match="parted in two"), pytest.raises(Interrupted):
        first()
    found, _ = checkpoint.latest(tmp_path / "run" / "checkpoints")
    assert found is not None
    tried.clear()
    again = fit(tmp_path / "run", "npo", "llama", per_device_train_batch_size=4)
    again()
    assert set(tried) == {2}
    with pytest.warns(UserWarning, match="parted in two"):
        (straight := fit(tmp_path / "straight", "npo", "llama", per_device_train_batch_size=4))()
    assert all(torch.equal(weight, ended(straight)[name]) for name, weight in ended(again).items())


def test_what_cannot_be_parted_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_of(monkeypatch, 0, MemoryError())
    with (
        pytest.warns(UserWarning, match="parted in two"),
        pytest.raises(TrainingError, match=r"one record alone does not fit. Set train\.gradient_checkpointing=true"),
    ):
        fit(tmp_path / "one", "npo", "llama")()
    with pytest.raises(TrainingError, match=r"couples the records of a micro-batch. Set a smaller train\.per_device"):
        fit(tmp_path / "coupled", COUPLED, "llama", gradient_accumulation_steps=1)()


def test_other_faults_are_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short_of(monkeypatch, 0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        fit(tmp_path / "run", "npo", "llama")()
    assert not is_out_of_memory(ValueError("out of memory"))


def test_parts_hold_every_record_once_and_all_sides_alike() -> None:
    micro = [{"forget": list(range(7)), "retain": list(range(10, 17))}, {"forget": [7], "retain": [17]}]
    for parts in (1, 2, 3, 4, 16):
        found = parted(micro, parts)
        assert [row for part in found for row in part["forget"]] == list(range(8))
        assert [row for part in found for row in part["retain"]] == list(range(10, 18))
        assert all(len(part["forget"]) == len(part["retain"]) > 0 for part in found)
        assert max(len(part["forget"]) for part in found) == -(-7 // min(parts, 7))
