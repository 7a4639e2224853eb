"""The host's side of a session, against a pipe that plays a script: looks, losses, what is kept and what is refused.

The pipe is played so that it can break at an exact moment; real sessions over real pipes are in test_measure_ssh.py.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from benchmarks.chain_bundle import NAME, write_chain_bundle
from compressor.errors import EXIT_INCONCLUSIVE, KdcError
from compressor.measure import session
from compressor.measure.devices import LostConnection, parse_device
from compressor.measure.machine import this_machine
from compressor.measure.session import Undecided, measure_bundle
from compressor.progress import Silent
from compressor.schema.base import read_json
from compressor.schema.measurement import Measurement
from compressor.schema.profile import Budget

Event = dict[str, Any]
Script = Callable[["Pipe", Sequence[str]], Iterator[Event]]


MACHINE = this_machine().model_dump()


def state(*, logits: str | None = None, layers: str | None = None, error: str | None = None) -> Event:
    contestant = {"variant": NAME, "requested_precision": "fp32", "threads": 1, "logits": logits, "error": error}
    contestant |= {} if layers is None else {"layers": layers}
    return {
        "state": {
            "schema": 2,
            "started": "2026-11-24T10:00:00Z",
            "finished": "2026-11-24T10:01:00Z",
            "batch": 1,
            "block_length": 8,
            "block_dropped": 2,
            "distinct_inputs": 32,
            "seed": 0,
            "machine_before": MACHINE,
            "machine_after": MACHINE,
            "contestants": [{**contestant, "logits_sha256": "0" * 64 if logits else None}],
        }
    }


def one_round(number: int) -> Event:
    block = {"round": number, "variant": NAME, "dropped_ms": [2, 2], "wall_ms": [1] * 6, "cpu_ms": [1] * 6}
    told = {"wall_s": 0.1, "own_cpu_s": 0.1, "busy_cpu_s": 0.1, "steal_s": 0.0, "mhz": None}
    return {"round": {"number": number, **told}, "blocks": [block]}


class Pipe:
    """A Link whose bench.py is a script of the test."""

    def __init__(self, kind: Literal["local", "ssh"], script: Script) -> None:
        self.kind: Literal["local", "ssh", "adb"] = kind
        self.script = script
        self.asked: list[Sequence[str]] = []
        self.said: list[str] = []

    def bench(self, arguments: Sequence[str]) -> Iterator[Event]:
        self.asked.append(list(arguments))
        yield from self.script(self, arguments)

    def say(self, line: str) -> None:
        self.said.append(line)

    def fetch(self, name: str, to: Path, most: int) -> None:
        np.save(to, np.zeros((1, 1), np.float32))
        assert to.stat().st_size <= most


Measure = Callable[..., Measurement]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_chain_bundle(tmp_path / "bundle", 1, 1, Budget(), this_machine())
    return tmp_path / "bundle"


@pytest.fixture
def play(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Measurement, Pipe]]:
    """play(scripts, undecided): a session whose successive connections play these scripts."""

    def run(
        *scripts: Script, url: str = "ssh://board", undecided: Undecided = lambda _: (), rounds: int = 11
    ) -> tuple[Measurement, Pipe]:
        parsed = parse_device(url)
        pipe = Pipe("local" if parsed.kind == "local" else "ssh", scripts[0])
        waiting = list(scripts)

        @contextmanager
        def connect(*_: object, **__: object) -> Iterator[Pipe]:
            pipe.script = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            yield pipe

        def opened(*arguments: object, **named: object) -> AbstractContextManager[Pipe]:
            return connect(*arguments, **named)

        monkeypatch.setattr(session, "open_link", opened)
        monkeypatch.setattr(session, "RETRY_AFTER_S", (0.0, 0.0))
        measured = measure_bundle(
            bundle,
            parsed,
            python=None,
            rounds=rounds,
            seconds=60,
            throughput=True,
            undecided=undecided,
            progress=Silent(),
        )
        return measured, pipe

    return run


Play = Callable[..., tuple[Measurement, Pipe]]


def value(arguments: Sequence[str], option: str) -> str:
    return arguments[list(arguments).index(option) + 1]


def whole(pipe: Pipe, arguments: Sequence[str]) -> Iterator[Event]:
    """A bench.py that does as it is told, to the end."""
    assert "--ask" in arguments
    yield state()
    number = int(value(arguments, "--first-round"))
    more = int(value(arguments, "--rounds"))
    done = 0
    while more:
        for _ in range(more):
            yield one_round(number)
            number, done = number + 1, done + 1
        yield {"look": done}
        answer = pipe.said[-1].split()
        more = int(answer[1]) if answer[0] == "more" else 0
    yield state(logits=f"{NAME}.npy")


def breaks_after(rounds: int) -> Script:
    """A bench.py whose connection is lost after so many rounds."""

    def script(pipe: Pipe, arguments: Sequence[str]) -> Iterator[Event]:
        for count, event in enumerate(whole(pipe, arguments)):
            if count > rounds:
                raise LostConnection("the connection to the device was lost")
            yield event

    return script


def test_a_session_that_leaves_nothing_open_looks_once(play: Play, bundle: Path) -> None:
    measured, pipe = play(whole)
    assert pipe.said == ["enough"]
    assert (measured.looks, measured.connections, measured.lost, measured.device) == (1, 1, None, "ssh")
    assert [one.number for one in measured.rounds] == list(range(11))
    names = sorted(path.name for path in (bundle / "measurements").iterdir())
    assert names == ["measurement.json", f"{NAME}.npy"]
    assert read_json(bundle / "measurements" / "measurement.json", Measurement) == measured


def test_rounds_double_while_a_verdict_is_open(play: Play) -> None:
    measured, pipe = play(whole, undecided=lambda so_far: ("p50_ms of it",) if len(so_far.rounds) < 44 else ())
    assert pipe.said == ["more 11", "more 22", "enough"]
    assert (measured.looks, len(measured.rounds), len(measured.blocks)) == (3, 44, 44)


def test_it_is_enough_when_the_time_is_up_though_a_verdict_is_open(play: Play) -> None:
    def late(pipe: Pipe, arguments: Sequence[str]) -> Iterator[Event]:
        for event in whole(pipe, arguments):
            yield {**event, "late": True} if "look" in event else event

    measured, pipe = play(late, undecided=lambda _: ("p50_ms of it",))
    assert pipe.said == ["enough"]
    assert measured.looks == 1


def test_a_lost_connection_is_taken_up_where_it_broke(play: Play) -> None:
    measured, pipe = play(breaks_after(5), whole)
    assert [one.number for one in measured.rounds] == list(range(11))
    assert [value(asked, "--rounds") for asked in pipe.asked] == ["11", "6"]
    assert [value(asked, "--first-round") for asked in pipe.asked] == ["0", "5"]
    assert (measured.connections, measured.lost, measured.looks) == (2, None, 1)


def test_a_connection_lost_after_the_rounds_asks_for_no_more_of_them(play: Play) -> None:
    measured, pipe = play(breaks_after(12), whole)
    assert [value(asked, "--rounds") for asked in pipe.asked] == ["11", "0"]
    assert len(measured.rounds) == 11
    assert measured.contestants[0].logits == f"{NAME}.npy"


def test_a_connection_that_stays_lost_leaves_its_samples(play: Play, bundle: Path) -> None:
    measured, pipe = play(breaks_after(5), breaks_after(0))
    assert len(pipe.asked) == 3
    assert len(measured.rounds) == 5
    assert measured.lost == "the connection to the device was lost"
    assert read_json(bundle / "measurements" / "measurement.json", Measurement) == measured
    assert not list((bundle / "measurements").glob(".*"))


def test_what_is_lost_before_anything_was_measured_is_an_error(play: Play, bundle: Path) -> None:
    with pytest.raises(LostConnection) as caught:
        play(breaks_after(-1))
    assert caught.value.exit_code == EXIT_INCONCLUSIVE
    assert not list((bundle / "measurements").iterdir())


def test_rounds_that_are_whole_are_still_looked_at_after_a_lost_connection(play: Play) -> None:
    open_lines: Undecided = lambda so_far: ("p50_ms of it",) if len(so_far.rounds) < 20 else ()  # noqa: E731
    measured, pipe = play(breaks_after(11), whole, undecided=open_lines)
    assert [value(asked, "--rounds") for asked in pipe.asked] == ["11", "1"]
    assert pipe.said == ["more 12", "enough"]
    assert len(measured.rounds) == 24


def test_logits_that_did_not_arrive_are_not_named(play: Play, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object) -> None:
        raise LostConnection("the connection to the device was lost")

    monkeypatch.setattr(Pipe, "fetch", lost)
    measured, pipe = play(whole)
    assert len(pipe.asked) == 3
    assert measured.lost == "the connection to the device was lost"
    assert (measured.contestants[0].logits, measured.contestants[0].logits_sha256) == (None, None)
    assert len(measured.rounds) == 11
    assert [path.name for path in (bundle / "measurements").iterdir()] == ["measurement.json"]


def test_a_contestant_that_broke_off_before_the_connection_did_stays_failed(play: Play) -> None:
    def fails(pipe: Pipe, arguments: Sequence[str]) -> Iterator[Event]:
        yield state()
        yield {**one_round(0), "failed": {NAME: "its process died (signal 9) during block"}}
        raise LostConnection("the connection to the device was lost")

    measured, _ = play(fails, whole)
    assert measured.contestants[0].error == "its process died (signal 9) during block"
    assert (measured.blocks, measured.connections) == ((), 2)


def test_a_local_bench_that_dies_is_not_started_again(play: Play) -> None:
    measured, pipe = play(breaks_after(3), whole, url="local")
    assert len(pipe.asked) == 1
    assert measured.lost is not None


def test_blocks_of_a_contestant_that_broke_off_do_not_count(play: Play) -> None:
    def breaks(pipe: Pipe, arguments: Sequence[str]) -> Iterator[Event]:
        for event in whole(pipe, arguments):
            yield state(error="its process died (signal 9) during block") if "state" in event else event

    measured, _ = play(breaks)
    assert (len(measured.rounds), measured.blocks) == (11, ())


def test_an_error_on_the_device_is_no_lost_connection(play: Play, bundle: Path) -> None:
    def full(pipe: Pipe, arguments: Sequence[str]) -> Iterator[Event]:
        yield state()
        raise KdcError("no space left on the device's disk")

    with pytest.raises(KdcError, match="no space left"):
        play(full)
    assert not list((bundle / "measurements").iterdir())


@pytest.mark.parametrize("kind", ["logits", "layers"])
@pytest.mark.parametrize("name", ["../../evil.npy", "other.npy", "/etc/passwd"])
def test_names_from_a_device_are_no_paths(play: Play, bundle: Path, name: str, kind: str) -> None:
    def hostile(pipe: Pipe, arguments: Sequence[str]) -> Iterator[Event]:
        for event in whole(pipe, arguments):
            yield state(**{kind: name}) if "state" in event else event

    with pytest.raises(KdcError, match=f"names the {kind}"):
        play(hostile)
    assert not list((bundle / "measurements").iterdir())


def test_nonsense_from_a_device_is_named(play: Play) -> None:
    def nonsense(pipe: Pipe, arguments: Sequence[str]) -> Iterator[Event]:
        yield state()
        yield {**one_round(0), "round": {"number": "first"}}

    with pytest.raises(KdcError, match="a round of the device"):
        play(nonsense)


@pytest.mark.parametrize("told", ["nothing", {}, {"contestants": [3]}, ["a", "list"]])
def test_a_state_that_is_none_is_named(play: Play, told: object) -> None:
    def nonsense(pipe: Pipe, arguments: Sequence[str]) -> Iterator[Event]:
        yield {"state": told}

    with pytest.raises(KdcError, match="the device's measurement: "):
        play(nonsense)


@pytest.mark.parametrize("event", [{"look": 3}, {}, {"progress": "x", "total": 1, "doing": "y"}])
def test_events_that_make_no_sense_are_refused(play: Play, bundle: Path, event: Event) -> None:
    def nonsense(pipe: Pipe, arguments: Sequence[str]) -> Iterator[Event]:
        yield event

    with pytest.raises(KdcError, match=r"does not understand|without a word"):
        play(nonsense)
    assert not list((bundle / "measurements").iterdir())


def test_a_measurement_of_something_else_replaces_nothing(play: Play, bundle: Path) -> None:
    play(whole)
    before = (bundle / "measurements" / "measurement.json").read_bytes()

    def refuses(so_far: Measurement) -> tuple[str, ...]:
        raise KdcError("it measures variant x, which bundle.json does not have")

    with pytest.raises(KdcError, match="does not have"):
        play(whole, undecided=refuses)
    assert (bundle / "measurements" / "measurement.json").read_bytes() == before


def test_what_a_device_says_cannot_paint_the_terminal() -> None:
    said = []
    told = "\x1b[2J\n::error::owned\r\u202e"

    class Hears(Silent):
        def note(self, text: str) -> None:
            said.append(text)

        def warn(self, text: str) -> None:
            said.append(text)

    pipe = Pipe("ssh", whole)
    for event in ({"note": told}, {"warning": told}):
        session._take_in(event, pipe, session.Samples(1, 1, True), lambda _: (), Hears())
    assert said == [r"bench.py: \x1b[2J ::error::owned \u202e", r"\x1b[2J ::error::owned \u202e"]


def test_an_earlier_session_is_replaced_with_all_its_files(play: Play, bundle: Path) -> None:
    (bundle / "measurements").mkdir()
    (bundle / "measurements" / "gone-variant.npy").write_bytes(b"old")
    play(whole)
    assert {path.name for path in (bundle / "measurements").glob("*.npy")} == {f"{NAME}.npy"}
