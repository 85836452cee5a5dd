"""A run that is killed in the middle goes on where it was, and ends with the same file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from expunge.data import annotations as files
from tests.identifiers.chatserver import Say, serving
from tests.identifiers.test_chat import asked_about

pytest.importorskip("openai", reason="needs the extra llm")
RUN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started deaf to it
from expunge.data.records import Record
from expunge.identifiers import annotate, build
url, out, cache = sys.argv[1:]
records = [Record(f"r{i}", "Q?", f"Trade {i}: florist.") for i in range(12)]
identifier = build({"name": "chat", "model": "m", "base_url": url, "cache": cache, "concurrency": 2})
summary = annotate(records, identifier, out)
print(summary.new, summary.resumed)
"""


@pytest.mark.parametrize("cached", [False, True])
def test_a_kill_in_mid_run_costs_at_most_what_was_under_way(tmp_path: Path, cached: bool) -> None:
    out, cache = tmp_path / "a.jsonl", str(tmp_path / "cache") if cached else "none"
    held = True

    def script(number: int, asked: dict[str, Any]) -> Say:
        while held and number >= 6:
            time.sleep(0.02)
        return Say('{"spans": ["florist"]}')

    with serving(script) as server:
        command = [sys.executable, "-c", RUN, server.url, str(out), cache]
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            deadline = time.monotonic() + 120
            while len(server.requests) < 8 and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
        assert first.returncode == -signal.SIGKILL
        assert not out.exists()
        (progress,) = (path for path in tmp_path.iterdir() if path.name.endswith(".progress"))
        finished = progress.read_bytes().count(b"\n")
        assert finished >= 4
        before, held = len(server.requests), False
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert done.stdout.split() == [str(12 - finished), str(finished)]
    texts = [asked_about(request) for request in server.requests]
    assert len(set(texts)) == 12
    assert len(texts) - before <= 12 - finished
    assert len(texts) <= 12 + 2  # the two that were under way
    assert [len(annotation.spans) for annotation in files.read(out)] == [1] * 12
    assert not progress.exists()


def test_an_interrupt_does_not_wait_for_a_slow_server(tmp_path: Path) -> None:
    out, held = tmp_path / "a.jsonl", True

    def script(number: int, asked: dict[str, Any]) -> Say:
        while held and number >= 4:
            time.sleep(0.02)
        return Say('{"spans": ["florist"]}')

    with serving(script) as server:
        command = [sys.executable, "-c", RUN, server.url, str(out), "none"]
        run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        try:
            deadline = time.monotonic() + 120
            while len(server.requests) < 6 and time.monotonic() < deadline:
                time.sleep(0.02)
            run.send_signal(signal.SIGINT)
            _, said = run.communicate(timeout=30)  # the requests under way would take 60 s to time out
        finally:
            run.kill()
            held = False
    assert "KeyboardInterrupt" in said
    (progress,) = tmp_path.iterdir()
    assert progress.read_bytes().count(b"\n") == 4
