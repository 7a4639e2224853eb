"""Ctrl-C, SIGTERM (a cancelled CI job, a spot instance) and SIGHUP (the terminal is gone) end a command in one way, at
any moment: cleaned up, with one line and exit code 130. Under nohup SIGHUP stays ignored.

The signal is an exception, KeyboardInterrupt, wherever the program is, but for four places. While an interruption is
cleaned up already, no further signal breaks that off, but a third Ctrl-C. Within `uninterrupted` it comes at the end.
Amid an import other libraries may swallow it, or die of it in their C code, torch of its own: it comes again until it
has an effect; or, where nothing has begun yet, the program ends at once. So it does wherever nobody would catch what
is raised: before kdc's own program has come to its command, and behind it.
"""

import atexit
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

AGAIN_S = 0.2
INSIST = 3
"""So many times Ctrl-C break off the cleaning up, too."""

COMMAND_LINE = ("compressor.cli.app", "compressor.__main__")

Handlers = dict[int, Any]

_caught: list[int] = []
"""The signals that came since `catch`."""

_code: int | None = None
"""The exit code, once it is known."""


def catch() -> Callable[[], None]:
    """From now on signals are interruptions; returns what makes them again what they were."""
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    if signal.getsignal(signal.SIGTERM) is not _interrupt:
        _caught.clear()
    before = {number: signal.signal(number, _interrupt) for number in _wanted()}
    return lambda: _put_back(before)


def ignore(code: int | None = None) -> None:
    """Nothing but the end is left to do, with this exit `code`: no signal is to change how it is reached."""
    global _code
    _code = code
    if threading.current_thread() is threading.main_thread():
        for number in _wanted():
            # Not a handler of Python's: those go first when Python ends, and the default one would kill it then.
            signal.signal(number, signal.SIG_IGN)


def _end_with_code() -> None:
    """Once an interruption has passed through `exec`, as in some library's import, Python would end itself by SIGINT
    whatever exit code it was given (`unhandled_keyboard_interrupt` in CPython's pythonrun.c)."""
    if asked() and _code is not None:
        os._exit(_code)


atexit.register(_end_with_code)  # what is registered first comes last


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


def _interrupt(number: int, frame: FrameType | None) -> None:
    _caught.append(number)
    if _unwinding():
        if number != signal.SIGINT or _caught.count(number) < INSIST:
            return
        raise KeyboardInterrupt
    if _outside_a_command(frame):
        _end_now()
    importing = _importing(frame)
    if importing:
        by = importing[-1].f_back
        if by is not None and _is_command_line(by):
            _end_now()
        again = threading.Timer(AGAIN_S, _send_again, [number])
        again.daemon = True
        again.start()
        if any(map(_loads_c, importing)) or _amid_torch(frame):
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


def _importing(frame: FrameType | None) -> list[FrameType]:
    """The frames of the import system, the one that was entered first last."""
    frames = []
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            frames.append(frame)
        frame = frame.f_back
    return frames


def _amid_torch(frame: FrameType | None) -> bool:
    """Whether torch is being imported, whose C++ calls Python on the way, outside of any module's beginning, and ends
    the process where that raises (`torch._C._c10d_init`)."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and f"{os.sep}torch{os.sep}" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _loads_c(frame: FrameType) -> bool:
    """Whether this frame of the import system runs the beginning of a module in C, which may call Python again."""
    if frame.f_code.co_name not in ("create_module", "exec_module"):
        return False
    return type(frame.f_locals.get("self")).__name__ == "ExtensionFileLoader"


def _is_command_line(frame: FrameType) -> bool:
    """Whether this is kdc's own command line: it imports what a command needs before the command begins."""
    name = frame.f_globals.get("__name__", "")
    package = frame.f_globals.get("__package__") or ""
    return name in COMMAND_LINE or (name == "__main__" and package == "compressor")


def _outside_a_command(frame: FrameType | None) -> bool:
    """Whether this is kdc's own program, which has not come to its command yet, or is behind it."""
    program = False
    while frame is not None:
        name = frame.f_code.co_name
        if name == "_ended" and _is_command_line(frame):
            return False
        program = program or (name == "main" and _is_command_line(frame))
        frame = frame.f_back
    return program


def _send_again(number: int) -> None:
    if signal.getsignal(number) is _interrupt:
        with suppress(ValueError):
            _caught.remove(number)
        signal.pthread_kill(threading.main_thread().ident or 0, number)


def _end_now() -> None:
    with suppress(OSError):
        os.write(2, b"kdc: error: interrupted\n")
    os._exit(130)  # errors.EXIT_INTERRUPTED; this is no moment to import it
