"""The tutorial, followed to the letter: every command in an empty folder, what it shows, and what it claims."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from expunge.cli import app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(console|yaml)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def follow(folder: Path) -> list[tuple[str, float]]:
    """Every command with its seconds. YAML blocks are saved under the name in their first line, as the page asks."""
    taken = []
    for kind, body in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "yaml":
            name, text = body.split("\n", 1)
            (folder / name.removeprefix("# ")).write_text(text, encoding="utf-8")
            continue
        for part in body.split("$ ")[1:] if body.startswith("$ ") else ():
            command, *shown = part.rstrip("\n").split("\n")
            began = time.perf_counter()
            output = said(command)
            taken.append((command, time.perf_counter() - began))
            for line in shown:
                assert " ".join(line.split()) in output, f"{command}\n{output}"
    return taken


def said(command: str) -> str:
    """What a command prints, white space evened out; expunge in this process, anything else in a shell."""
    if not command.startswith("expunge "):
        path = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(command, shell=True, check=True, capture_output=True, text=True, env=path)
        return " ".join(done.stdout.split())
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"
    return " ".join(result.output.split())


def metric(folder: str, label: str, name: str) -> float:
    metrics = json.loads(Path(folder, "eval", label, "metrics.json").read_text(encoding="utf-8"))
    return float(metrics[name]["agg_value"])


@pytest.mark.timeout(1500)
def test_the_tutorial_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began = time.process_time()
    try:
        taken = follow(tmp_path)
    finally:
        torch.set_num_threads(threads)
    print(*(f"{seconds:6.1f} s  {command[:100]}" for command, seconds in taken), sep="\n")
    print(f"{time.process_time() - began:6.1f} s of processor time in all")

    target, oracle = (metric("runs/etw", label, "forget_Q_A_Prob") for label in ("target", "oracle"))
    assert target > 0.8
    assert oracle < 0.2
    left = {run: metric(f"runs/{run}", "unlearned", "forget_Q_A_Prob") for run in ("etw", "tif", "random")}
    assert max(left["etw"], left["tif"]) < 0.3
    assert left["etw"] < left["random"] < target
    assert min(metric(f"runs/{run}", "unlearned", "retain_Q_A_Prob") for run in left) > 0.6
    secrets = Path("secrets.txt").read_text(encoding="utf-8").splitlines()
    assert len(secrets) == 32
    whole, shared = (Path(page).read_text(encoding="utf-8") for page in ("together.html", "share.html"))
    long = [secret for secret in secrets if len(secret.split()) > 1 and "&" not in secret and "'" not in secret]
    assert any(secret in whole for secret in long)
    assert not [secret for secret in long if secret in shared]
    assert "random" in shared
