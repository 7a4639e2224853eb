"""What a device sends is bounded: its lines, what it says on stderr, its events, and how long it is read away."""

import os
import sys
import time

import pytest

from compressor.errors import KdcError
from compressor.measure import session
from compressor.measure.devices import pipe as pipes
from compressor.measure.devices.pipe import Pipe, PipeError, as_object
from compressor.progress import Silent

pytestmark = pytest.mark.slow


def python(code: str) -> Pipe:
    return Pipe([sys.executable, "-c", code])


@pytest.mark.timeout(60)
def test_a_line_without_end() -> None:
    with python("import os\nwhile True: os.write(1, b'x' * 65536)") as pipe:
        with pytest.raises(KdcError, match="a line of more than 4 MB came"):
            pipe.line()
        assert pipe.process.wait(10) != 0


@pytest.mark.timeout(60)
def test_an_error_stream_without_end_is_not_kept() -> None:
    code = (
        "import os, sys\nfor _ in range(2000): os.write(2, b'noise' * 10000)\nos.write(2, b'the end\\n'); sys.exit(3)"
    )
    with python(code) as pipe:
        with pytest.raises(PipeError) as caught:
            pipe.line()
        assert caught.value.code == 3
        assert caught.value.said.endswith("the end\n")
        assert len(caught.value.said) <= pipes.SAID


@pytest.mark.timeout(60)
def test_what_still_comes_at_the_end_is_read_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "GOODBYE_S", 0.5)
    with python("import os\nwhile True: os.write(1, b'{}\\n' * 20000)") as pipe:
        assert pipe.line() == b"{}\n"
        begun = time.monotonic()
    assert time.monotonic() - begun < 20
    assert pipe.process.returncode is not None


def test_a_process_that_says_goodbye_is_waited_for() -> None:
    with python("import sys\nsys.stdin.read()\nsys.exit(7)") as pipe:
        pass
    assert pipe.process.returncode == 7


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5_000, b"\xff", b"3", b""])
def test_what_is_no_event(line: bytes) -> None:
    assert as_object(line) is None


class Talks:
    """A link that says one event for ever."""

    kind = "ssh"

    def __init__(self, event: dict[str, object]) -> None:
        self.event = event

    def bench(self, arguments: object) -> object:
        while True:
            yield self.event

    def say(self, line: str) -> None:
        raise AssertionError


ROUND = {"number": 0, "wall_s": 1.0, "own_cpu_s": None, "busy_cpu_s": None, "steal_s": None, "mhz": None}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"note": "x" * 10_000}, "1,000 notes and warnings and does not end"),
        ({"warning": "x"}, "1,000 notes and warnings and does not end"),
        ({"round": ROUND, "blocks": []}, "more rounds or blocks than it was asked for"),
        ({"progress": 1, "total": 2, "doing": "x"}, "events and does not end"),
        ({"round": 10**400, "blocks": {}}, "round of the device's: expected a mapping"),
        ({"look": []}, "ended without a word"),
        ({"x": "\x1b[2J"}, r"does not understand: \{'x': '\\x1b"),
    ],
)
def test_a_device_that_sends_without_end(
    event: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MOST_EVENTS", 5_000)
    samples = session.Samples(target=30, seconds=60, throughput=False)
    with pytest.raises(KdcError, match=message):
        session.listen(Talks(event), samples, lambda _: (), Silent())  # type: ignore[arg-type]
    assert len(samples.rounds) <= 30


def test_no_pipe_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0  # noqa: PTH112, PTH208
    for _ in range(5):
        with python("pass"):
            pass
    after = len(os.listdir("/proc/self/fd")) if before else 0  # noqa: PTH208
    assert after <= before
