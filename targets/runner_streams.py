"""Throughput of a model in its runner: several streams of calls at a time.

Standard library only; runs on Python 3.9 and later. Used by runner_common.py.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # only for annotations, which nothing evaluates
    from targets.energy import Meter

CALLS_A_WINDOW = 3  # of a stream, at least, going by its call before the window


class Streams:
    """One thread a call in `calls`, which calls again and again until `close`. A window is a while in the midst of
    that, so that it begins and ends in the midst of calls: those that end within are counted, and neither the first
    nor the last of them is favoured."""

    def __init__(self, calls: Sequence[Callable[[], object]]) -> None:
        self._ends: list[list[float]] = [[] for _ in calls]
        self._first = threading.Semaphore(0)
        self._stop = threading.Event()
        self._errors: list[Exception] = []
        self._begin = time.perf_counter()
        self._threads = [
            threading.Thread(target=self._run, args=pair, daemon=True)
            for pair in zip(calls, self._ends)  # noqa: B905  (strict= is newer than Python 3.9)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, call: Callable[[], object], ends: list[float]) -> None:
        try:
            while not self._stop.is_set():
                call()
                ends.append(time.perf_counter())
                if len(ends) == 1:
                    self._first.release()
        except Exception as error:  # raised again by `window`, which waits
            self._errors.append(error)
            self._stop.set()
        finally:
            if not ends:
                self._first.release()

    def window(self, seconds: float, meter: Meter | None) -> dict[str, Any]:
        """The noun Window: at least `seconds`, longer where calls take long. Raises what a call raised."""
        for _ in self._threads:
            self._first.acquire()
        slowest = max((ends[0] - self._begin for ends in self._ends if ends), default=0.0)
        if meter is not None:
            meter.start()
        opened = time.perf_counter()
        self._stop.wait(max(seconds, CALLS_A_WINDOW * slowest))
        closed = time.perf_counter()
        joules = None if meter is None else meter.stop()
        self.close()
        if self._errors:
            raise self._errors[0]
        calls = sum(opened < end <= closed for ends in self._ends for end in ends)
        return {"seconds": closed - opened, "calls": calls, "joules": joules}

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def run_window(calls: Sequence[Callable[[], object]], seconds: float, meter: Meter | None) -> dict[str, Any]:
    """One window of `calls`, each in a thread of its own."""
    gc.disable()  # as for latency: Python's collector is no cost of the model
    try:
        return Streams(calls).window(seconds, meter)
    finally:
        gc.enable()
