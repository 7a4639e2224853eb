"""Ctrl-C, SIGTERM and SIGHUP as requests to stop after the step at hand, so that the state which is saved is whole."""

import signal
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType

from compressor.processes.interruption import STOPS

__all__ = ["stop_requests"]


@contextmanager
def stop_requests(counting: Collection[int] = STOPS) -> Iterator[Callable[[], bool]]:
    """Inside, the yielded function tells whether a stop was asked for. A second Ctrl-C stops at once. Signals that
    are not in `counting` have no effect.

    SIGTERM and SIGHUP ask and no more: a launcher or a shell may send them several times, or beside a Ctrl-C. An
    ignored SIGHUP (nohup) stays ignored.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and asked.is_set():
            raise KeyboardInterrupt
        if number in counting:
            asked.set()

    wanted = [number for number in STOPS if number != getattr(signal, "SIGHUP", None) or not _ignored(number)]
    before = {number: signal.signal(number, ask) for number in wanted}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignored(number: int) -> bool:
    return signal.getsignal(number) is signal.SIG_IGN
