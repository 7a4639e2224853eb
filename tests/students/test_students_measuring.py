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
from compressor.students import api, measuring
from compressor.students.measuring import AT_ONCE, disturbed, measure_field, sessions_of
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
        found = measure_field(Path(), field, sessions_of(field), parse_device(url), None, 12, progress)
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


def test_which_sessions_were_disturbed() -> None:
    """Those slower than the median one by more than 15 %, at most a quarter of all, the slowest first."""
    assert disturbed([1.0, 2.0, 1.0, 1.1]) == [1]
    assert disturbed([1.0, 1.14, 1.0]) == []
    assert disturbed([3.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 4.0]) == [0, 7]
    assert disturbed([None, 1.0, 1.0, 2.0]) == [3]
    assert disturbed([None]) == disturbed([]) == disturbed([1.0]) == []


def repeated(
    monkeypatch: pytest.MonkeyPatch, before: list[float | None], after: dict[int, float | None] | KdcError
) -> tuple[list[Any], list[Any], Hearing]:
    """What is told again, the references afterwards, and what was said. A session is its number and one entrant."""

    def measure(sessions: list[tuple[str, str]]) -> Iterator[Any]:
        if isinstance(after, KdcError):
            raise after
        yield from ((session, after[int(session[1])]) for session in sessions)

    def rows(group: tuple[str, str], p50: float | None, _: Any) -> list[Any]:
        return [SimpleNamespace(name=name, p50=p50, error=None) for name in group]

    monkeypatch.setattr(api, "_rows", rows)
    monkeypatch.setattr(api, "_reference", lambda group, rows: rows[0].p50 and ("reference", rows[0].p50))
    references: list[Any] = [p50 and ("reference", p50) for p50 in before]
    sessions: list[Any] = [("reference", str(number)) for number in range(len(before))]
    progress = Hearing()
    again: list[Any] = list(api._repeated(sessions, references, {}, measure, progress))
    told = [(row.name, reference[1]) for row, reference in again]
    return told, references, progress


def test_a_disturbed_session_is_repeated_and_the_quieter_one_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    told, references, progress = repeated(monkeypatch, [1.0, 2.0, 1.0, 1.0], {1: 1.1})
    assert told == [("1", 1.1)]  # the reference's own figures are of the first session
    assert references == [("reference", p50) for p50 in (1.0, 1.1, 1.0, 1.0)]
    assert progress.notes == ["the reference was slower by more than 15% in 1 of 4 sessions: they are repeated"]
    told, references, _ = repeated(monkeypatch, [2.0, 1.0, 1.0, 1.0], {0: 1.2})
    assert told == [("reference", 1.2), ("0", 1.2)]
    told, references, _ = repeated(monkeypatch, [1.0, 2.0, 1.0, 1.0], {1: 2.5})
    assert (told, references[1]) == ([], ("reference", 2.0))
    assert repeated(monkeypatch, [1.0, 2.0, 1.0, 1.0], {1: None})[0] == []
    assert repeated(monkeypatch, [1.0, 1.1, 1.0, 1.0], {})[2].notes == []


def test_a_device_lost_in_a_repetition_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told, references, progress = repeated(monkeypatch, [1.0, 2.0, 1.0, 1.0], LOST)
    assert (told, references[1]) == ([], ("reference", 2.0))
    assert progress.warnings == [f"{LOST.message}; what was measured before stands"]
    with pytest.raises(KdcError, match="disk"):
        repeated(monkeypatch, [1.0, 2.0, 1.0, 1.0], KdcError("the disk is full"))
