"""How kdc looks: progress on stderr (rich on a terminal, else plain lines), results on stdout, errors in a line."""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO, TypeVar

from compressor.errors import KdcError

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from compressor.progress import Progress

__all__ = ["progress_for", "show_error", "show_result", "table"]

T = TypeVar("T")
PLAIN_EVERY_S = 15.0


def progress_for(quiet: bool) -> "Progress":
    """What the package's work reports to: nothing (but warnings), a live bar, or lines for a log."""
    if quiet:
        return _Quiet()
    return _Live() if sys.stderr.isatty() else _Plain()


def show_result(text: str) -> None:
    """Print a command's result, for people or for programs, on stdout."""
    _write(sys.stdout, text if text.endswith("\n") else text + "\n")


def show_error(error: KdcError) -> None:
    """One line for what is wrong, one for what to do."""
    _write(sys.stderr, f"kdc: error: {error.message}\n" + (f"  -> {error.hint}\n" if error.hint else ""))


def _write(stream: TextIO | None, text: str) -> None:
    """Write to a stream that may have been closed (`kdc check … | head`, or `>&-` from the start, which Python makes
    None): the command goes on to its own end."""
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # What is still buffered would raise again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Quiet:
    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        _write(sys.stderr, f"kdc: warning: {text}\n")

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        yield from items

    def at(self, doing: str, done: int, total: int) -> None:
        pass

    def end(self) -> None:
        pass


class _Plain(_Quiet):
    """Lines that last: one when a long thing begins to take long, then one now and then."""

    def __init__(self) -> None:
        self._spoke = time.monotonic()

    def note(self, text: str) -> None:
        _write(sys.stderr, text + "\n")
        self._spoke = time.monotonic()

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        self._spoke = time.monotonic()
        for done, item in enumerate(items):
            self.at(doing, done, total)
            yield item

    def at(self, doing: str, done: int, total: int) -> None:
        if time.monotonic() - self._spoke > PLAIN_EVERY_S:
            self.note(f"{doing}: {done}/{total}")


class _Live(_Quiet):
    """A rich bar for what is going on; notes scroll above it."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Bar | None = None
        self._doing = ""

    def note(self, text: str) -> None:
        self._console.print(text, markup=False)

    def warn(self, text: str) -> None:
        self._console.print(f"warning: {text}", markup=False, style="yellow")

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        bar = self._new_bar()
        with bar:
            task = bar.add_task(doing, total=total)
            for item in items:
                yield item
                bar.advance(task)

    def at(self, doing: str, done: int, total: int) -> None:
        if self._bar is None or doing != self._doing:
            self.end()
            self._bar, self._doing = self._new_bar(), doing
            self._bar.start()
            self._bar.add_task(doing, total=total)
        self._bar.update(self._bar.task_ids[0], completed=done, total=total)
        if done >= total:
            self.end()

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _new_bar(self) -> "Bar":
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        return Progress(*columns, console=self._console, transient=True)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Plain text in columns."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
