"""When the next request may be sent, and how long to wait after one that failed."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

import numpy as np


class Stopped(Exception):
    """Another request failed for good, or the user stopped the run: this one was not sent."""


@dataclass
class Gate:
    """Lets requests through one after another, at most `per_minute` of them (0: no limit), and none while paused."""

    per_minute: float
    stop: threading.Event
    _next: float = 0.0
    _paused: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def enter(self) -> None:
        """Returns when the next request may be sent; raises Stopped if the run ends before."""
        while True:
            with self._lock:
                now = time.monotonic()
                at = max(now, self._next, self._paused)
                self._next = at + (60.0 / self.per_minute if self.per_minute else 0.0)
            if self.stop.wait(at - now):
                raise Stopped
            with self._lock:
                if self._paused <= time.monotonic():
                    return

    def pause(self, seconds: float) -> None:
        """Nobody enters for so many seconds."""
        with self._lock:
            self._paused = max(self._paused, time.monotonic() + seconds)


def backoff(failed: int, key: str, longest: float) -> float:
    """Seconds to wait after the `failed`-th failure: doubling from half a second, times 0.5 to 1 drawn from `key`."""
    seed = int.from_bytes(hashlib.sha256(f"{key}\x1f{failed}".encode()).digest()[:8], "big")
    return float(min(longest, 0.5 * 2.0 ** (failed - 1)) * np.random.default_rng(seed).uniform(0.5, 1.0))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: a number, or a date; None if it does not say."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
