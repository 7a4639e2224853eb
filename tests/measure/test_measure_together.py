"""Sessions at a time: each reports by its name, one that fails leaves the others, and an interruption ends all."""

import subprocess
import sys
import threading
import time

import pytest

from compressor.errors import KdcError
from compressor.measure import together as module
from compressor.measure.devices.pipe import Pipe, PipeError
from compressor.measure.together import Session, together
from compressor.progress import Progress
from tests.kit import Hearing

PATIENCE = 20.0


def rows(*names: str) -> list[list[Session[str]]]:
    return [[Session(name, name) for name in row.split()] for row in names]


def test_rows_go_on_at_a_time_and_a_row_one_after_the_other() -> None:
    both, order = threading.Barrier(2), []

    def run(name: str, heard: Progress, stop: threading.Event) -> str:
        if name in ("a", "b"):
            both.wait(PATIENCE)  # only where the other one runs too
        order.append(name)
        return name.upper()

    assert together(rows("a c", "b"), run, Hearing()) == {"a": "A", "b": "B", "c": "C"}
    assert order.index("c") > order.index("a")


def test_each_reports_by_its_name_in_the_thread_that_asked() -> None:
    class Here(Hearing):
        def __init__(self) -> None:
            super().__init__()
            self.lanes: list[tuple[str, str, int]] = []

        def note(self, text: str) -> None:
            assert threading.current_thread() is asking
            super().note(text)

        def at(self, doing: str, done: int, total: int) -> None:
            assert threading.current_thread() is asking
            self.lanes.append((getattr(doing, "lane", ""), doing, done))

    asking, told = threading.current_thread(), Here()

    def run(name: str, heard: Progress, stop: threading.Event) -> None:
        heard.note("begins")
        heard.warn("is hot")
        heard.at("latency", 3, 9)
        assert list(heard.track("xy", 2, "sending")) == ["x", "y"]

    together(rows("pi", "nano"), run, told)
    assert sorted(told.notes) == ["nano: begins", "pi: begins"]
    assert sorted(told.warnings) == ["nano: is hot", "pi: is hot"]
    assert [lane for lane in told.lanes if lane[0] == "pi"] == [
        ("pi", "pi: latency", 3), ("pi", "pi: sending", 1), ("pi", "pi: sending", 2),
    ]  # fmt: skip


def test_one_that_fails_leaves_the_others() -> None:
    error = KdcError("unreachable", "is it on?", 3)

    def run(name: str, heard: Progress, stop: threading.Event) -> str:
        if name == "a":
            raise error
        return name

    assert together(rows("a b", "c"), run, Hearing()) == {"a": error, "b": "b", "c": "c"}


class Slow:
    """A session that goes on until it is to end."""

    def __init__(self) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()

    def __call__(self, stop: threading.Event) -> None:
        self.begun.set()
        try:
            assert stop.wait(PATIENCE)
            raise KeyboardInterrupt
        finally:
            self.ended.set()


def test_a_bug_in_one_ends_all() -> None:
    slow = Slow()

    def run(name: str, heard: Progress, stop: threading.Event) -> None:
        if name == "slow":
            slow(stop)
        assert slow.begun.wait(PATIENCE)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        together(rows("slow next", "bug"), run, Hearing())
    assert slow.ended.is_set()


def test_an_interruption_ends_all_and_begins_none() -> None:
    """It comes to the thread that shows what the sessions say."""
    slow, begun = Slow(), []

    class Interrupted(Hearing):
        def note(self, text: str) -> None:
            assert slow.begun.wait(PATIENCE)
            raise KeyboardInterrupt

    def run(name: str, heard: Progress, stop: threading.Event) -> None:
        begun.append(name)
        heard.note("here")
        slow(stop)

    with pytest.raises(KeyboardInterrupt):
        together(rows("slow next"), run, Interrupted())
    assert slow.ended.is_set()
    assert begun == ["slow"]


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("_impatient")
def test_a_session_whose_device_says_nothing_is_ended_by_its_pipe() -> None:
    started: list[subprocess.Popen[bytes]] = []
    others = Pipe([sys.executable, "-c", "import time; time.sleep(600)"])  # of a thread that has nothing to do with it

    def run(name: str, heard: Progress, stop: threading.Event) -> None:
        with Pipe([sys.executable, "-c", "import time; time.sleep(600)"]) as pipe:
            started.append(pipe.process)
            heard.note("waits")
            with pytest.raises(PipeError):
                pipe.line()
            raise KeyboardInterrupt

    class Interrupted(Hearing):
        def note(self, text: str) -> None:
            raise KeyboardInterrupt

    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        together(rows("a", "b"), run, Interrupted())
    assert time.monotonic() - before < PATIENCE
    assert all(process.poll() is not None for process in started)
    assert others.process.poll() is None
    others.process.kill()
    others.hang_up()
