"""Ctrl-C, SIGTERM (a cancelled CI job, a spot instance) and SIGHUP (the terminal is gone) end a command in one way, at
any moment: cleaned up, with one line and exit code 130. Under nohup SIGHUP stays ignored.

The signal is an exception, KeyboardInterrupt, wherever the program is, but for three places. While an interruption is
cleaned up already, no further signal breaks that off, but a third Ctrl-C. Within `uninterrupted` it comes at the end.
Amid an import, where libraries in C swallow exceptions or die of them, it comes again later; or, where nothing has
begun yet, the program ends at once.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

__all__ = ["STOPS", "asked", "catch", "ignore", "uninterrupted"]

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Windows has no SIGHUP."""

AGAIN_S = 0.05
INSIST = 3
"""So many times Ctrl-C break off the cleaning up, too."""

COMMAND_LINE = ("compressor.cli", "compressor.__main__")

Handlers = dict[int, Any]

_caught: list[int] = []
"""The signals that came since `catch`."""


def catch() -> Callable[[], None]:
    """From now on signals are interruptions; returns what makes them again what they were."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    if signal.getsignal(signal.SIGTERM) is not _interrupt:
        _caught.clear()
    before = {number: signal.signal(number, _interrupt) for number in _wanted()}
    return lambda: _put_back(before)


def ignore() -> None:
    """Nothing but the end is left to do: no signal is to change how it is reached."""
    if threading.current_thread() is threading.main_thread():
        for number in _wanted():
            signal.signal(number, _nothing)


def asked() -> bool:
    """Whether a signal came: however the command ended, it was interrupted."""
    return bool(_caught)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A signal that comes inside is dealt with at the end of it: for short work that must not be half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def later(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.signal(number, later) for number in _wanted()}
    try:
        yield
    finally:
        _put_back(before)
        if came:
            signal.raise_signal(came[0])


def _wanted() -> list[int]:
    """Not what is ignored (nohup; a shell's background), nor what a library in C deals with."""
    return [number for number in STOPS if signal.getsignal(number) not in (signal.SIG_IGN, None)]


def _put_back(before: Handlers) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


def _interrupt(number: int, frame: FrameType | None) -> None:
    _caught.append(number)
    if _unwinding():
        if number != signal.SIGINT or _caught.count(number) < INSIST:
            return
    elif (importing := _outermost_import(frame)) is not None:
        by = importing.f_back
        if by is not None and _is_command_line(by):
            _end_now()
        again = threading.Timer(AGAIN_S, _send_again, [number])
        again.daemon = True
        again.start()
        return
    raise KeyboardInterrupt


def _unwinding() -> bool:
    """Whether the program is handling an interruption: in an `except`, a `finally` or an `__exit__`."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def _outermost_import(frame: FrameType | None) -> FrameType | None:
    """The frame of the import system that was entered first, if one was."""
    found = None
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            found = frame
        frame = frame.f_back
    return found


def _is_command_line(frame: FrameType) -> bool:
    """Whether this is kdc's own command line: it imports what a command needs before the command begins."""
    name = frame.f_globals.get("__name__", "")
    package = frame.f_globals.get("__package__") or ""
    return name in COMMAND_LINE or (name == "__main__" and package == "compressor")


def _send_again(number: int) -> None:
    with suppress(ValueError):
        _caught.remove(number)
    signal.pthread_kill(threading.main_thread().ident or 0, number)


def _end_now() -> None:
    with suppress(OSError):
        os.write(2, b"kdc: error: interrupted\n")
    os._exit(130)  # errors.EXIT_INTERRUPTED; this is no moment to import it
