"""How long work tells what it is doing, without printing: the command line decides how that looks."""

import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["InAll", "Lane", "Muted", "Part", "Progress", "Silent", "TimeLeft", "note_once"]

T = TypeVar("T")


class Part(str):
    """What is being done, as `doing` of `Progress.track`, where it is part `number` (from 1) `of` several that take
    about as long: `unit` is what they are called."""

    number: int
    of: int
    unit: str

    def __new__(cls, doing: str, number: int, of: int, unit: str) -> "Part":
        part = super().__new__(cls, doing)
        part.number, part.of, part.unit = number, of, unit
        return part


class Lane(str):
    """What is being done, as `doing` of `Progress.at`, by one of several works that go on at a time: `lane` is its
    name."""

    lane: str

    def __new__(cls, doing: str, lane: str) -> "Lane":
        made = super().__new__(cls, doing)
        made.lane = lane
        return made


class Progress(Protocol):
    """What the package asks of whoever shows its progress."""

    def note(self, text: str) -> None:
        """Say one line that stays."""

    def warn(self, text: str) -> None:
        """Say one line that stays and that the reader should not miss."""

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        """Yield `items`, showing how many of `total` are done; where `doing` is a `Part`, and of all parts too."""

    def at(self, doing: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of something are done, where another process does them; where `doing` is a
        `Lane`, beside what the other lanes do."""

    def end(self) -> None:
        """Take away what `at` shows: to be called however the work ends, also where it is not done."""


class Silent:
    """Shows nothing: for tests, and for use from Python."""

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        yield from items

    def at(self, doing: str, done: int, total: int) -> None:
        pass

    def end(self) -> None:
        pass


class Muted:
    """Shows how far work is, and says no lines: for work that is done again, whose lines were said the first time."""

    def __init__(self, shown: Progress) -> None:
        self.track, self.at, self.end = shown.track, shown.at, shown.end

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass


class InAll:
    """Of several trainings in a row, each of which counts its own epochs: shows them as parts of all `total` ones."""

    def __init__(self, shown: Progress, total: int) -> None:
        self.note, self.warn, self.at, self.end = shown.note, shown.warn, shown.at, shown.end
        self._shown, self._total, self._before = shown, total, 0
        self._last: Part | None = None

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        if isinstance(doing, Part):
            if self._last is not None and doing.number <= self._last.number:
                self._before += self._last.of
            self._last = doing
            doing = Part(doing, self._before + doing.number, max(self._total, self._before + doing.of), doing.unit)
        yield from self._shown.track(items, total, doing)


class TimeLeft:
    """How long all parts will still take, by those that were shown so far, and by what lay between them."""

    def __init__(self) -> None:
        self._part: Part | None = None
        self._last: Part | None = None
        self._first = 0
        self._since = 0.0

    def begin(self, doing: str) -> None:
        """A part begins, the first of its kind if it does not follow the last one; or something that is none."""
        self._part = doing if isinstance(doing, Part) else None
        if self._part is None:
            return
        before, self._last = self._last, self._part
        if before is None or before.of != self._part.of or before.number >= self._part.number:
            self._first, self._since = self._part.number, time.monotonic()

    def left(self, share: float) -> str:
        """`12 min left of 30 epochs`, where the part at hand is done to `share`; empty where that cannot be told."""
        if self._part is None:
            return ""
        done = self._part.number - self._first + share
        elapsed = time.monotonic() - self._since
        if done <= 0 or elapsed < ENOUGH_S:
            return ""
        still = elapsed / done * (self._part.of - self._first + 1 - done)
        return f"{_spoken(still)} left of {self._part.of} {self._part.unit}"


ENOUGH_S = 1.0
"""Less than that tells nothing."""


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


_SAID: "WeakKeyDictionary[Progress, set[str]]" = WeakKeyDictionary()


def note_once(progress: Progress, text: str) -> None:
    """Say a line, but not again to who has heard it: what one step of a command says of its data, the next would
    too."""
    said = _SAID.setdefault(progress, set())
    if text not in said:
        said.add(text)
        progress.note(text)
