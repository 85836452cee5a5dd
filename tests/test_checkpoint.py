"""Checkpoints are whole or passed over: every byte is checked, and what is restored continues to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from expunge import checkpoint

State = tuple[nn.Module, torch.optim.Optimizer]


def made(seed: int = 0, dtype: torch.dtype = torch.float32) -> State:
    torch_state = torch.get_rng_state()
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)).to(dtype)
    torch.set_rng_state(torch_state)
    return module, torch.optim.AdamW(module.parameters(), lr=0.1)


def train(state: State, steps: int, first: int = 0) -> None:
    module, optimizer = state
    for k in range(first, first + steps):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(k)).to(next(module.parameters()).dtype)
        optimizer.zero_grad()
        module(x).pow(2).sum().backward()
        optimizer.step()


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Checkpoints after 1, 2 and 3 steps."""
    state = made()
    for k in range(3):
        train(state, 1, first=k)
        checkpoint.save(tmp_path, k + 1, *state, {"note": k + 1}, keep=3)
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_restored_run_goes_on_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    straight, interrupted, fresh = made(dtype=dtype), made(dtype=dtype), made(seed=1, dtype=dtype)
    train(straight, 6)
    train(interrupted, 3)
    checkpoint.save(tmp_path, 3, *interrupted, {"total": 6}, keep=1)
    found, skipped = checkpoint.latest(tmp_path)
    assert found is not None
    assert (found.step, skipped) == (3, [])
    assert found.restore(*fresh) == {"total": 6, "step": 3}
    train(fresh, 3, first=3)
    assert equal(fresh[0], straight[0])


def test_what_has_no_optimiser_state_yet_is_kept_too(tmp_path: Path) -> None:
    start, other = made(), made(seed=1)
    checkpoint.save(tmp_path, 0, *start, {}, keep=1)
    found, _ = checkpoint.latest(tmp_path)
    assert found is not None
    found.restore(*other)
    assert equal(start[0], other[0])
    assert not other[1].state_dict()["state"]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    state = made()
    for k in range(5):
        checkpoint.save(tmp_path, k, *state, {}, keep=2)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["step-00000003", "step-00000004"]


def test_nothing_there_is_nothing_found(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "none") == (None, [])
    (tmp_path / "step-1").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    assert checkpoint.latest(tmp_path) == (None, [])


def test_a_half_written_checkpoint_is_not_looked_at_and_gets_written_over(three: Path) -> None:
    (three / ".staging-00000004").mkdir()
    (three / ".staging-00000004" / "model.safetensors").write_bytes(b"half")
    found, skipped = checkpoint.latest(three)
    assert found is not None
    assert (found.step, skipped) == (3, [])
    checkpoint.save(three, 4, *made(), {}, keep=2)
    assert sorted(f.name for f in three.iterdir()) == ["step-00000003", "step-00000004"]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"])
@pytest.mark.parametrize("how", ["truncated", "flipped", "absent", "empty"])
def test_a_damaged_checkpoint_is_passed_over_and_named(three: Path, file: str, how: str) -> None:
    path = three / "step-00000003" / file
    content = path.read_bytes()
    if how == "absent":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]
        path.write_bytes({"truncated": content[:-1], "flipped": flipped, "empty": b""}[how])
    found, skipped = checkpoint.latest(three)
    assert found is not None
    assert found.step == 2
    assert len(skipped) == 1
    assert skipped[0].startswith("step-00000003: ")


@pytest.mark.parametrize("manifest", ["{}", "[]", "null", '{"model.safetensors": [1, "x"]}', "7"])
def test_a_manifest_that_lists_something_else_is_passed_over(three: Path, manifest: str) -> None:
    (three / "step-00000003" / "MANIFEST.json").write_text(manifest)
    found, skipped = checkpoint.latest(three)
    assert found is not None
    assert found.step == 2
    assert "step-00000003" in skipped[0]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_is_noticed_or_means_nothing(three: Path, data: st.DataObject) -> None:
    copy = three.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(three, copy)
    newest = copy / "step-00000003"
    path = data.draw(st.sampled_from(sorted(newest.iterdir())))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    found, _ = checkpoint.latest(copy)
    assert found is not None
    expected, restored = made(), made(seed=1)
    train(expected, found.step)
    assert found.restore(*restored)["note"] == found.step
    assert equal(restored[0], expected[0])
    assert found.step == 2 or path.name == "MANIFEST.json"


def test_all_damaged_is_nothing_found_and_all_named(three: Path) -> None:
    for folder in three.iterdir():
        (folder / "state.json").write_text("{}")
    found, skipped = checkpoint.latest(three)
    assert found is None
    assert [line.split(":")[0] for line in skipped] == ["step-00000003", "step-00000002", "step-00000001"]


@pytest.mark.parametrize("keep", [1, 2])
def test_checkpoints_ahead_of_a_new_one_go_so_that_it_is_the_newest(three: Path, keep: int) -> None:
    """Resumed from step 1 because 2 and 3 were damaged: what is saved next must not be taken for the oldest."""
    for name in ("step-00000002", "step-00000003"):
        (three / name / "state.json").write_text("{}")
    checkpoint.save(three, 2, *made(), {}, keep=keep)
    found, skipped = checkpoint.latest(three)
    assert found is not None
    assert (found.step, skipped) == (2, [])


def test_weights_lie_in_safetensors_and_nothing_is_pickled(three: Path) -> None:
    names = {f.name for f in (three / "step-00000001").iterdir()}
    assert names == {"model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"}
    assert json.loads((three / "step-00000001" / "state.json").read_text()) == {"note": 1, "step": 1}
