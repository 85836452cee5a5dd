"""How many processes there are changes nothing: loss, weights, tables, and a run that is stopped goes on to the bit."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from expunge import ranks, runfolder
from expunge.errors import TrainingError
from expunge.ranks import Ranks
from expunge.recipe import Train
from tests.fixtures.models import tiny
from tests.ranks import runs

ROOT = Path(__file__).parents[2]
EXPUNGE = str(Path(sys.executable).with_name("expunge"))
FEW = ("npo", "atwu", "etw", "rmu", "undial", "altpo", "palu", "pdu", "npo, project", "etw, grad-matched")
"""One of each way in which a loss is normalised, compared with a reference, or put together."""


LAUNCH = (sys.executable, "-m", "torch.distributed.run")


def environment() -> dict[str, str]:
    theirs = ("PYTEST", "RANK", "WORLD", "LOCAL", "MASTER")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def torchrun(count: int, *command: str) -> None:
    launch = [*LAUNCH, "--standalone", "--nproc_per_node", str(count)]
    done = subprocess.run([*launch, *command], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def two_nodes(*command: str) -> None:
    """A process on each of two nodes that find each other by an address, here both on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{free.getsockname()[1]}"
    launch = [*LAUNCH, "--nnodes", "2", "--nproc_per_node", "1", "--rdzv_id", "here", "--rdzv_backend", "c10d"]
    nodes = [
        subprocess.Popen(
            [*launch, "--rdzv_endpoint", meeting, *command],
            env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for node in nodes:
        _, told = node.communicate(timeout=600)
        assert node.returncode == 0, told[-4000:]


def compare(folder: Path, names: Sequence[str], *, nodes: bool = False) -> None:
    """Runs in two processes of micro-batches of 4, beside one of 8 and one of 8 x 1, in everything that is logged."""
    command = ("-m", "tests.ranks.runs", str(folder), *names)
    if nodes:
        two_nodes(*command)
    else:
        torchrun(2, *command)
    for name in names:
        many = runfolder.open(folder / name).read_log()
        found = load_file(folder / f"{name}.safetensors")
        for batch, accumulate in ((8, 1), (1, 8)):
            one = runs.fit(folder / f"{name} {batch}", runs.METHODS[name], batch, accumulate)
            one()
            lines = one.run.read_log()
            assert len(lines) == len(many) == 3
            for ours, theirs in zip(lines, many, strict=True):
                assert theirs["terms"] == pytest.approx(ours["terms"], rel=1e-5, abs=1e-6), (name, ours["step"])
                assert theirs["grad_norm"] == pytest.approx(ours["grad_norm"], rel=1e-4), name
                assert theirs["tokens"] == ours["tokens"], name
                assert theirs["selected_share"] == pytest.approx(ours["selected_share"]), name
            for key, expected in runs.weights(one).items():
                # AdamW divides by the size of the gradient: where that is near 0 its rounding decides a part of a step
                assert torch.allclose(found[key], expected, rtol=0, atol=1e-5), (name, key)


def test_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    compare(tmp_path, FEW)
    stopped, straight = (load_file(tmp_path / f"{name}.safetensors") for name in ("stopped", "straight"))
    start = dict(tiny("llama").named_parameters())
    assert all(torch.equal(stopped[key], straight[key]) for key in straight)
    assert not all(torch.equal(straight[key], start[key]) for key in straight)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_nodes_give_the_curve_of_one(tmp_path: Path) -> None:
    compare(tmp_path, ("npo", "etw", "pdu"), nodes=True)


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one_in_every_preset(tmp_path: Path) -> None:
    compare(tmp_path, [name for name, method in runs.METHODS.items() if not runs.couples(method)])


MATERIAL = """
output_dir: {out}
device: cpu
method: {{preset: npo}}
model:
  fresh: {{hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, vocab_size: 320}}
data: {{forget: {{path: {data}/forget.jsonl}}, retain: {{path: {data}/retain.jsonl, limit: 12}}, max_length: 96}}
train: {{max_steps: 2, per_device_train_batch_size: {batch}, gradient_accumulation_steps: 1, num_processes: {count}}}
finetune:
  output_dir: {out}-models
  oracle: false
  train: {{max_steps: 2, per_device_train_batch_size: {batch}, gradient_accumulation_steps: 1}}
evaluation: {{suite: own, limit: 7, resamples: 50, max_new_tokens: 5}}
"""


def test_a_run_of_two_processes_leaves_the_folder_of_one(tmp_path: Path) -> None:
    torchrun(1, "--no-python", EXPUNGE, "synth", "--people", "20", "--facts", "4", "--out", str(tmp_path / "data"))
    for count, batch in ((2, 4), (1, 8)):
        recipe = tmp_path / f"{count}.yaml"
        recipe.write_text(MATERIAL.format(out=tmp_path / str(count), data=tmp_path / "data", batch=batch, count=count))
        torchrun(count, "--no-python", EXPUNGE, "run", str(recipe))
    one, two = (runfolder.open(tmp_path / name) for name in ("1", "2"))
    assert one.labels == two.labels == ["unlearned"]
    assert runfolder.verify(two.path) == []
    for what in ("scores", "generations"):
        for name in one.tables("unlearned", what):
            ours, theirs = (run.read_table(f"eval/unlearned/{what}/{name}.parquet").to_pylist() for run in (one, two))
            assert [row["id"] for row in ours] == [row["id"] for row in theirs]
            key = "logp" if what == "scores" else "generation"
            assert [row[key] for row in theirs] == [pytest.approx(row[key], abs=1e-4) for row in ours]


def test_processes_that_were_not_started_are_missed(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"num_processes=2, and 1 was started.*torchrun --nproc_per_node 2"):
        runs.fit(tmp_path / "run", runs.METHODS["npo"], 4, 1, num_processes=2)
    assert Train(num_processes=2).num_processes == 2


def test_half_an_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(TrainingError, match="2 processes run, and RANK, MASTER_ADDR, MASTER_PORT is not set"):
        ranks.here()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(TrainingError, match="WORLD_SIZE must be a number"):
        ranks.here()


def test_shares_and_blocks_cover_everything_once() -> None:
    items = list(range(11))
    for size in (1, 2, 3, 12):
        own = [Ranks(rank, size) for rank in range(size)]
        assert sorted(i for r in own for i in r.share(items)) == items
        assert [i for r in own for i in r.block(items)] == items
        assert own[0].all_of([r.share(items) for r in own]) == items
