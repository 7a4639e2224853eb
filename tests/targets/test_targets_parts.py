"""Parts of bench.py and of the runners by themselves: the warm-up, the orders, the streams, the accounting."""

import itertools
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.targets.harness import LoadScript

# Uses 0.3 s of CPU time, says so, and waits for the end of its stdin.
BURN = "import sys, time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\nsys.stdin.read()"


class Scripted:
    """A contestant whose blocks take as long as they are told, ms a call."""

    def __init__(self, medians: list[float]) -> None:
        self.left = list(medians)
        self.blocks = 0

    def ask(self, op: str, n: int) -> dict[str, Any]:
        self.blocks += 1
        return {"wall_ms": [self.left.pop(0)] * n}


@pytest.mark.parametrize(
    ("medians", "blocks"),
    [
        ([9.0] * 30, 6),  # the least there can be: two windows of three blocks
        ([9, 9, 9, 5, 5, 5, 5, 5, 5, *[7] * 30], 8),  # 9 against 5, three times; then 5 of (9, 5, 5) against 5
        ([100.0 / 1.05**step for step in range(30)], 20),  # faster by 5 % each block: never settles, but ends
        ([100.0 / 1.005**step for step in range(30)], 6),  # 1.5 % from window to window
    ],
)
def test_the_warm_up_ends_when_windows_agree(load: "LoadScript", medians: list[float], blocks: int) -> None:
    contestant = Scripted(medians)
    load("bench_rounds").warm_up(contestant, 8)
    assert contestant.blocks == blocks


def test_the_warm_up_has_an_end_in_time(load: "LoadScript", monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = load("bench_rounds")
    monkeypatch.setattr(rounds, "WARM_SECONDS", 0.0)
    contestant = Scripted([1.0, 2.0])
    rounds.warm_up(contestant, 8)
    assert contestant.blocks == 0


def test_the_order_of_a_round_depends_on_seed_and_number_only(load: "LoadScript") -> None:
    order = load("bench_rounds").order_of
    assert [order(list("abcd"), 0, number) for number in range(3)] == [
        ["a", "d", "b", "c"], ["a", "b", "c", "d"], ["b", "a", "d", "c"],
    ]  # fmt: skip
    assert order(list("abcd"), 1, 0) != order(list("abcd"), 0, 0)
    places = [order(list("abcd"), 0, number).index("a") for number in range(400)]
    assert all(70 <= places.count(place) <= 130 for place in range(4))  # 100 each, give or take three deviations


@pytest.mark.parametrize(
    ("threads", "ways"),
    [
        (1, [(1, 1)]),
        (2, [(1, 2), (2, 1)]),
        (4, [(1, 4), (2, 2), (4, 1)]),
        (6, [(1, 6), (2, 3), (4, 1), (6, 1)]),
    ],
)
def test_threads_are_shared_out(load: "LoadScript", threads: int, ways: list[tuple[int, int]]) -> None:
    assert load("bench_streams").shares(threads) == ways


def test_processes_alive_at_once_fit_into_half_the_memory(load: "LoadScript") -> None:
    streams = load("bench_streams")
    sizes = [400.0, 400.0, 100.0, 2000.0, None, 300.0]
    ways = [streams.Way(SimpleNamespace(record={"peak_rss_mb": size}), 1, 1) for size in sizes]

    def cut(available_gb: float | None) -> list[int]:
        return [len(group) for group in streams.groups(ways, available_gb)]

    assert cut(None) == [6]
    assert cut(100) == [6]
    assert cut(1.7) == [3, 1, 2]  # 912 MB: what does not fit by itself is run by itself
    assert cut(0) == [1] * 6
    assert [way for group in streams.groups(ways, 1.7) for way in group] == ways


def test_cpu_time_counts_runners_that_live_and_those_that_ended(load: "LoadScript") -> None:
    own = load("bench_rounds").own_cpu_s
    before = own([])
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        contestant = SimpleNamespace(runner=SimpleNamespace(pid=process.pid))
        alive = own([contestant])
        assert alive - before >= 0.28  # in clock ticks of 10 ms
        assert own([]) - before < alive - before
    assert own([]) - before >= 0.28  # ended, and waited for
    assert own([contestant]) is None  # what cannot be read is not guessed


def test_seconds_between_readings(load: "LoadScript") -> None:
    passed = load("bench_rounds").passed
    assert passed(1.0, 1.25) == 0.25
    assert passed(1.0, 0.99) == 0.0
    assert passed(None, 1.0) is None
    assert passed(1.0, None) is None


def test_calls_that_end_in_the_window_are_counted(load: "LoadScript") -> None:
    before = set(threading.enumerate())
    together = threading.Barrier(3)
    counts = [0, 0, 0]

    def stream(number: int) -> None:
        if counts[number] == 0:
            together.wait(10)  # passes only where all three run at a time
        counts[number] += 1
        time.sleep(0.005)

    calls = [lambda number=number: stream(number) for number in range(3)]
    window = load("runner_streams").run_window(calls, 0.05, None)
    assert window["seconds"] >= 0.05
    assert window["joules"] is None
    # The first call of each stream ended before the window opened.
    assert 0 < window["calls"] <= sum(counts) - 3
    assert set(threading.enumerate()) <= before


def test_slow_calls_get_a_longer_window(load: "LoadScript") -> None:
    window = load("runner_streams").run_window([lambda: time.sleep(0.03)] * 2, 0.001, None)
    assert window["seconds"] >= 0.09


def test_the_energy_of_the_window_is_asked_for(load: "LoadScript") -> None:
    asked: list[str] = []

    def stop() -> float:
        asked.append("stop")
        return 2.5

    meter = SimpleNamespace(start=lambda: asked.append("start"), stop=stop)
    assert load("runner_streams").run_window([lambda: None], 0.001, meter)["joules"] == 2.5
    assert asked == ["start", "stop"]


@pytest.mark.parametrize("at", [0, 2])
def test_a_call_that_fails_ends_all_streams(load: "LoadScript", at: int) -> None:
    before = set(threading.enumerate())
    count = itertools.count()

    def call() -> None:
        if next(count) == at:
            raise ValueError("no memory")

    with pytest.raises(ValueError, match="no memory"):
        load("runner_streams").run_window([call, lambda: time.sleep(0.001)], 0.2, None)
    assert set(threading.enumerate()) <= before
