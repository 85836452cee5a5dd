"""Requests that are under way at the same time, and their results as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TypeVar

from expunge.identifiers.pacing import Stopped

J = TypeVar("J")
R = TypeVar("R")


def concurrently(
    jobs: Iterator[J], work: Callable[[J], R], threads: int, stop: threading.Event
) -> Iterator[tuple[J, R]]:
    """Jobs with their results as they come. After a failure nothing new is sent, what is under way is still given.

    The threads are daemons and are not waited for when the reader stops: an interrupt does not hang on a slow server.
    """
    results: SimpleQueue[tuple[J, R | BaseException] | None] = SimpleQueue()
    lock = threading.Lock()

    def serve() -> None:
        while not stop.is_set():
            with lock:
                job = next(jobs, None)
            if job is None:
                break
            try:
                results.put((job, work(job)))
            except Stopped:
                break
            except BaseException as error:
                stop.set()
                results.put((job, error))
        results.put(None)

    for number in range(threads):
        threading.Thread(target=serve, name=f"expunge-ask-{number}", daemon=True).start()
    failure: BaseException | None = None
    ended = 0
    try:
        while ended < threads:
            result = results.get()
            if result is None:
                ended += 1
            elif isinstance(result[1], BaseException):
                failure = failure or result[1]
            else:
                yield result[0], result[1]
    finally:
        stop.set()
    if failure is not None:
        raise failure
