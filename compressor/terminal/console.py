"""How kdc looks: progress on stderr (rich on a terminal, else plain lines), results on stdout, errors in a line."""

import io
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast

from compressor.errors import KdcError
from compressor.terminal.printable import printable, printable_json, printable_lines

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress as Bar
    from rich.progress import Task, TaskID

    from compressor.progress import Progress

__all__ = [
    "progress_for",
    "rendered_text",
    "show_error",
    "show_json",
    "show_line",
    "show_result",
    "show_summary",
    "show_usage",
    "steady_streams",
]

T = TypeVar("T")
PLAIN_EVERY_S = 15.0
WIDTH = 80
"""Signs in a line of a result, at most: what any terminal shows."""


def progress_for(quiet: bool) -> "Progress":
    """What the package's work reports to: nothing (but warnings), a live bar, or lines for a log."""
    if quiet:
        return _Quiet()
    return _Live() if sys.stderr is not None and sys.stderr.isatty() else _Plain()


def show_result(text: str) -> None:
    """Print a command's result for people on stdout: lines whose breaks are ours."""
    _result(printable_lines(text))


def show_line(text: str) -> None:
    """Print a command's result in one line, whatever the names in it hold."""
    _result(printable(text))


def show_summary(rendered: "RenderableType") -> None:
    """Print a command's result for people who look at a terminal: in colour where stdout is one (NO_COLOR is heeded),
    and never wider than 80 signs. Names in it are made printable by who rendered it."""
    _result(rendered_text(rendered, colours=sys.stdout is not None and sys.stdout.isatty()))


def rendered_text(rendered: "RenderableType", *, colours: bool = False) -> str:
    """What `show_summary` prints, without blanks at the ends of lines."""
    from rich.console import Console

    file = io.StringIO()
    terminal = Console()  # knows how wide it is, and whether colours are wanted
    width = min(WIDTH, terminal.width) if colours else WIDTH
    Console(
        file=file, width=width, force_terminal=colours, no_color=terminal.no_color or not colours,
        color_system="auto" if colours else None, markup=False, emoji=False, highlight=False, legacy_windows=False,
    ).print(rendered, crop=False)  # fmt: skip
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def show_json(text: str) -> None:
    """Print a command's result for programs on stdout. It is the same JSON on a stdout that is not UTF-8."""
    text = printable_json(text)
    if not _writes_all(sys.stdout, text):
        text = json.dumps(json.loads(text), indent=2)
    _result(text)


def show_error(error: KdcError) -> None:
    """One line for what is wrong, one for what to do."""
    hint = f"  -> {printable(error.hint)}\n" if error.hint else ""
    _write(sys.stderr, f"kdc: error: {printable(error.message)}\n{hint}")


def show_usage(text: str) -> None:
    """What typer says of a wrong command line, on stderr."""
    _write(sys.stderr, printable_lines(text))


def steady_streams() -> None:
    """From here on, no sign that stdout or stderr has not got makes a print fail, also those of typer and of libraries;
    and where one of them was closed from the start, no file that is opened later takes its place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")


def _result(text: str) -> None:
    """The result on stdout. That it could not be written is said once; how the command ends does not change."""
    problem = _write(sys.stdout, text if text.endswith("\n") else text + "\n")
    if problem is not None:
        _write(sys.stderr, f"kdc: warning: the result could not be printed: {problem}\n")
        sys.stdout = io.StringIO()  # what follows would fail alike


PLAIN_SIGNS = str.maketrans(
    {"–": "-", "−": "-", "×": "x", "≤": "<=", "≥": ">=", "…": "...", "·": "-", "→": "->", "±": "+/-"}
)
"""Of the signs in our own texts, for a stream that has not got them."""


def _writes_all(stream: TextIO | None, text: str) -> bool:
    """Whether the stream's encoding has all the signs of `text`."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _write(stream: TextIO | None, text: str) -> str | None:
    """Write all of `text`, and return None, or why that could not be done: the disk is full, or the stream was closed
    from the start (`>&-`, which Python makes None). A reader that has gone (`kdc check … | head`) saw enough."""
    if stream is None:
        return "stdout is closed"
    if not _writes_all(stream, text):
        encoding = stream.encoding or "ascii"
        text = text.translate(PLAIN_SIGNS).encode(encoding, "backslashreplace").decode(encoding)
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _into_nothing(stream)
    except (OSError, ValueError) as error:  # ValueError: closed meanwhile
        _into_nothing(stream)
        return getattr(error, "strerror", None) or str(error)
    return None


def _into_nothing(stream: TextIO) -> None:
    """What is still buffered would raise again when Python ends, and change the exit code."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


class _Steady:
    """A stream for rich, which never raises: a terminal that has gone is no reason to end a training."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        _write(self._stream, text)
        return len(text)

    def flush(self) -> None:
        pass  # every write is flushed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Quiet:
    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        _write(sys.stderr, f"kdc: warning: {printable(text)}\n")

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        yield from items

    def at(self, doing: str, done: int, total: int) -> None:
        pass

    def end(self) -> None:
        pass


class _Plain(_Quiet):
    """Lines that last: one when a long thing begins to take long, then one now and then."""

    def __init__(self) -> None:
        from compressor.progress import TimeLeft

        self._spoke = time.monotonic()
        self._time = TimeLeft()

    def note(self, text: str) -> None:
        _write(sys.stderr, printable(text) + "\n")
        self._spoke = time.monotonic()

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        self._spoke = time.monotonic()
        self._time.begin(doing)
        for done, item in enumerate(items):
            if self._is_time():
                left = self._time.left(done / max(1, total))
                self.note(f"{doing}: {done}/{total}{f'; {left}' if left else ''}")
            yield item

    def at(self, doing: str, done: int, total: int) -> None:
        if self._is_time():
            self.note(f"{doing}: {done}/{total}")

    def _is_time(self) -> bool:
        return time.monotonic() - self._spoke > PLAIN_EVERY_S


class _Live(_Quiet):
    """A rich bar for what is going on; notes scroll above it."""

    def __init__(self) -> None:
        from rich.console import Console

        from compressor.progress import TimeLeft

        self._console = Console(file=cast(TextIO, _Steady(sys.stderr)), highlight=False, soft_wrap=True)
        self._bar: Bar | None = None
        self._doing: dict[str, str] = {}
        self._tasks: dict[str, TaskID] = {}
        self._time = TimeLeft()

    def note(self, text: str) -> None:
        self._console.print(printable(text), markup=False, emoji=False)

    def warn(self, text: str) -> None:
        self._console.print(f"warning: {printable(text)}", markup=False, emoji=False, style="yellow")

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        bar = self._new_bar()
        self._time.begin(doing)
        with bar:
            task = bar.add_task(printable(doing), total=total, whole="")
            for done, item in enumerate(items, start=1):
                yield item
                bar.update(task, completed=done, whole=self._time.left(done / max(1, total)))

    def at(self, doing: str, done: int, total: int) -> None:
        lane = getattr(doing, "lane", "")
        if self._bar is None or (not lane and doing != self._doing.get(lane)):
            self.end()
            self._bar = self._new_bar()
            self._bar.start()
        if doing != self._doing.get(lane):
            self._leave(lane)
            self._doing[lane] = doing
            self._tasks[lane] = self._bar.add_task(printable(doing), total=total, whole="")
        self._bar.update(self._tasks[lane], completed=done, total=total)
        if done >= total:
            self._leave(lane)
            if not self._tasks:
                self.end()

    def _leave(self, lane: str) -> None:
        self._doing.pop(lane, None)
        if self._bar is not None and lane in self._tasks:
            self._bar.remove_task(self._tasks.pop(lane))

    def end(self) -> None:
        self._doing, self._tasks = {}, {}
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _new_bar(self) -> "Bar":
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.text import Text

        class Left(TimeRemainingColumn):
            """Of all parts, where that is known; else of what the bar shows."""

            def render(self, task: "Task") -> Text:
                whole = str(task.fields["whole"])
                return Text(whole, style="progress.remaining") if whole else super().render(task)

        columns = (TextColumn("{task.description}", markup=False), BarColumn(12), MofNCompleteColumn(), Left())
        return Progress(*columns, console=self._console, transient=True)
