"""Several sessions at a time, a thread each: what they report is passed on in the calling thread, one of them that
fails leaves the others alone, and whatever ends the calling thread ends them all."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from compressor.errors import KdcError
from compressor.measure.devices.pipe import end_pipes_of
from compressor.progress import Lane, Progress

__all__ = ["Session", "together"]

T = TypeVar("T")
S = TypeVar("S")

GRACE_S = 1.0
"""For the sessions to end as they do by themselves, at the next word of their device; then their pipes are ended."""
END_S = 30.0
"""For all of that."""

Message = tuple[str, str, tuple[Any, ...]]
"""Whose, what, and with which values."""


@dataclass(frozen=True)
class Session(Generic[S]):
    """What is to be measured, by its `name`."""

    name: str
    of: S


Run = Callable[[S, Progress, threading.Event], T]
"""Measures one. Where the event is set, it is to end at once, by KeyboardInterrupt."""


def together(
    rows: Sequence[Sequence[Session[S]]],
    run: Run[S, T],
    progress: Progress,
    results: dict[str, T | KdcError] | None = None,
) -> dict[str, T | KdcError]:
    """What `run` returns for each session, or the KdcError that it raises. The rows go on at a time, the sessions of a
    row one after the other. Anything else that one raises ends all, and so does an interruption; what had arrived is in
    `results` then."""
    results = {} if results is None else results
    messages: SimpleQueue[Message] = SimpleQueue()
    stop = threading.Event()
    threads = [threading.Thread(target=_work, args=(row, run, messages, stop), daemon=True) for row in rows if row]
    try:
        for thread in threads:
            thread.start()
        going_on = len(threads)
        while going_on:
            name, what, values = messages.get()
            if what == "ended":
                going_on -= 1
            elif what == "broken":
                raise values[0]
            elif what == "result":
                results[name] = values[0]
            else:
                getattr(progress, what)(*values)
    except BaseException:
        _end(threads, stop)
        raise
    finally:
        progress.end()
    return results


def _work(row: Sequence[Session[S]], run: Run[S, T], messages: "SimpleQueue[Message]", stop: threading.Event) -> None:
    try:
        for session in row:
            if stop.is_set():
                break
            result: T | KdcError
            try:
                result = run(session.of, _Relay(session.name, messages), stop)
            except KdcError as error:
                result = error
            messages.put((session.name, "result", (result,)))
    except BaseException as error:
        messages.put(("", "broken", (error,)))
    finally:
        messages.put(("", "ended", ()))


def _end(threads: Sequence[threading.Thread], stop: threading.Event) -> None:
    """Let every session tidy up where it can: a device whose pipe has ended does so by itself."""
    stop.set()
    begun = time.monotonic()
    while any(thread.is_alive() for thread in threads) and time.monotonic() - begun < END_S:
        if time.monotonic() - begun > GRACE_S:
            end_pipes_of({thread.ident for thread in threads if thread.is_alive()})
        for thread in threads:
            if thread.ident is not None:
                thread.join(0.05)


class _Relay:
    """What a session reports, with its name before it, sent to the thread that shows it."""

    def __init__(self, name: str, messages: "SimpleQueue[Message]") -> None:
        self._name, self._messages = name, messages

    def note(self, text: str) -> None:
        self._put("note", f"{self._name}: {text}")

    def warn(self, text: str) -> None:
        self._put("warn", f"{self._name}: {text}")

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        for done, item in enumerate(items, start=1):
            yield item
            self.at(doing, done, total)

    def at(self, doing: str, done: int, total: int) -> None:
        self._put("at", Lane(f"{self._name}: {doing}", self._name), done, total)

    def end(self) -> None:
        pass  # what the others show stays

    def _put(self, what: str, *values: object) -> None:
        self._messages.put((self._name, what, values))
