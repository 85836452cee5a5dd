"""Pauses grow, differ by key, repeat for the same key; the gate spaces requests."""

from __future__ import annotations

import threading
import time
from email.utils import formatdate

import pytest

from expunge.identifiers.pacing import Gate, Stopped, backoff, retry_after


def test_pauses_double_with_jitter_and_have_an_end() -> None:
    for failed in range(1, 12):
        full = min(60.0, 0.5 * 2 ** (failed - 1))
        assert full / 2 <= backoff(failed, "k", 60.0) <= full
    assert backoff(3, "k", 60.0) == backoff(3, "k", 60.0)
    assert len({backoff(3, f"k{i}", 60.0) for i in range(20)}) == 20
    assert backoff(500, "k", 1.0) <= 1.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"retry-after": "7"}, 7.0), ({"retry-after": " 0.5 "}, 0.5), ({}, None),
     ({"retry-after-ms": "250", "retry-after": "9"}, 0.25), ({"retry-after": "soon"}, None),
     ({"retry-after-ms": "x"}, None),
     ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0)],
)  # fmt: skip
def test_what_the_server_asks_is_understood(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_a_date_is_understood() -> None:
    left = retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)})
    assert left is not None
    assert 25 < left <= 31


def test_the_gate_spaces_requests_and_pauses() -> None:
    gate = Gate(per_minute=1200, stop=threading.Event())
    started = time.monotonic()
    for number in range(5):
        gate.enter()
        assert time.monotonic() - started >= number * 0.05 - 1e-3
    gate.pause(0.2)
    paused = time.monotonic()
    gate.enter()
    assert time.monotonic() - paused >= 0.2 - 1e-3


def test_the_gate_lets_nobody_through_after_the_end() -> None:
    stop = threading.Event()
    gate = Gate(per_minute=0, stop=stop)
    gate.pause(60)
    threading.Timer(0.05, stop.set).start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        gate.enter()
    assert time.monotonic() - started < 30
