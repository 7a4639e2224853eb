"""A connection that is lost while candidates are measured is taken up again, where it broke off."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compressor.errors import EXIT_INCONCLUSIVE, KdcError
from compressor.measure.devices import parse_device
from compressor.measure.session import Samples
from compressor.students import measuring
from compressor.students.measuring import AT_ONCE, measure_field, sessions_of
from tests.kit import Hearing
from tests.students.fields import field_of

LOST = KdcError("the connection to board was lost", exit_code=EXIT_INCONCLUSIVE)


class Board:
    """Loses the connection in these calls of bench.py, and is not reached in these attempts (counted from 0)."""

    def __init__(self, lost: set[int], away: frozenset[int] = frozenset(), error: KdcError = LOST) -> None:
        self.lost, self.away, self.error = lost, away, error
        self.opened, self.asked = 0, 0
        self.sessions: list[tuple[str, ...]] = []
        self.slept: list[float] = []

    @contextmanager
    def open_link(self, *_: Any, **__: Any) -> Iterator[Any]:
        number, self.opened = self.opened, self.opened + 1
        if number in self.away:
            raise KdcError("board does not answer")
        yield SimpleNamespace(kind="ssh")

    def listen(self, link: Any, samples: Samples, *_: Any) -> None:
        number, self.asked = self.asked, self.asked + 1
        samples.state = samples.state or SimpleNamespace()  # type: ignore[assignment]
        self.sessions.append(samples.only)
        if number in self.lost:
            raise self.error


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(board: Board, progress: Hearing, url: str = "ssh://board") -> list[tuple[str, ...]]:
        monkeypatch.setattr(measuring, "open_link", board.open_link)
        monkeypatch.setattr(measuring, "listen", board.listen)
        monkeypatch.setattr(time, "sleep", board.slept.append)
        monkeypatch.setattr(Samples, "measurement", lambda self, kind: None)
        field = field_of(candidates=2 * AT_ONCE, variants=1)
        found = measure_field(Path(), field, parse_device(url), None, 12, progress)
        return [tuple(entrant.name for entrant in entrants) for entrants, _ in found]

    return run


def names() -> list[tuple[str, ...]]:
    sessions = sessions_of(field_of(candidates=2 * AT_ONCE, variants=1))
    return [tuple(entrant.name for entrant in entrants) for entrants in sessions]


def test_it_goes_on_where_it_broke_off(measured: Any) -> None:
    board, progress = Board(lost={1}, away=frozenset({1})), Hearing()
    assert measured(board, progress) == names()
    first, second, *_ = names()
    assert board.sessions[:3] == [first, second, second]
    assert (board.opened, board.slept) == (3, [2.0, 4.0])
    assert [line.partition(";")[0] for line in progress.warnings] == [LOST.message, "board does not answer"]


def test_what_is_never_reached_or_wrong_is_not_tried_again(measured: Any) -> None:
    with pytest.raises(KdcError, match="does not answer"):
        measured(Board(set(), away=frozenset({0})), Hearing())
    wrong = Board({1}, error=KdcError("bench.py says what kdc does not understand"))
    with pytest.raises(KdcError, match="does not understand"):
        measured(wrong, Hearing())
    assert wrong.slept == []


def test_after_five_attempts_it_is_given_up(measured: Any) -> None:
    board = Board(lost={1}, away=frozenset(range(1, 20)))
    with pytest.raises(KdcError, match="does not answer"):
        measured(board, Hearing())
    assert board.slept == [2.0, 4.0, 8.0, 16.0, 30.0]
