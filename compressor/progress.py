"""How long work tells what it is doing, without printing: the command line decides how that looks."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

__all__ = ["Muted", "Progress", "Silent"]

T = TypeVar("T")


class Progress(Protocol):
    """What the package asks of whoever shows its progress."""

    def note(self, text: str) -> None:
        """Say one line that stays."""

    def warn(self, text: str) -> None:
        """Say one line that stays and that the reader should not miss."""

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        """Yield `items`, showing how many of `total` are done."""

    def at(self, doing: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of something are done, where another process does them."""

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
