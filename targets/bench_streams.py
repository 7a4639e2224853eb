"""Throughput: inferences at full tilt, several at a time, each way of sharing the cores out in a process of its own.

Standard library only; runs on Python 3.9 and later. Used by bench.py.
"""

from __future__ import annotations

import random
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.bench_plan import Plan
    from targets.bench_runner import Contestant, Runner, RunnerError
    from targets.bench_tell import Teller
else:
    from bench_plan import Plan
    from bench_runner import Contestant, Runner, RunnerError
    from bench_tell import Teller

WINDOW_SECONDS = 0.5
WINDOWS = 6  # of each configuration, after one to warm up
ANSWER_SECONDS = 120.0  # a window, and the few calls before and after it
MEMORY_SHARE = 0.5  # of the memory available, for the processes that are alive at once


@dataclass
class Way:
    """One contestant with `streams` inferences at a time on `threads` threads each. `windows`: the noun Window."""

    contestant: Contestant
    streams: int
    threads: int
    windows: list[dict[str, Any]] = field(default_factory=list)
    runner: Runner | None = None
    error: str = ""


def shares(threads: int) -> list[tuple[int, int]]:
    """Ways to share `threads` threads out, as (streams, threads each): streams in powers of two, and one a thread."""
    streams = {threads, *(2**power for power in range(threads.bit_length()) if 2**power <= threads)}
    return [(count, max(1, threads // count)) for count in sorted(streams)]


def groups(ways: list[Way], available_gb: float | None) -> list[list[Way]]:
    """`ways` in order, cut where the processes of a group would need more than MEMORY_SHARE of the memory, going by
    the peak of one process with one stream. One group, so that all share the noise, wherever it fits."""
    limit = float("inf") if available_gb is None else available_gb * 2**30 / 1e6 * MEMORY_SHARE
    cut: list[list[Way]] = [[]]
    used = 0.0
    for way in ways:
        need = way.contestant.record.get("peak_rss_mb") or 0.0
        if cut[-1] and used + need > limit:
            cut.append([])
            used = 0.0
        used += need
        cut[-1].append(way)
    return cut


def run_throughput(contestants: list[Contestant], plan: Plan, teller: Teller, available_gb: float | None) -> None:
    """Fill `throughput` in the records. A failure costs the contestant nothing but this figure, and is a warning."""
    timed = [contestant for contestant in contestants if contestant.alive and contestant.copy_of is None]
    ways = [Way(contestant, streams, threads) for contestant in timed for streams, threads in shares(plan.threads)]
    total, done = len(ways) * (WINDOWS + 1), 0
    draw = random.Random(plan.seed)
    for group in groups(ways, available_gb):
        with ExitStack() as processes:
            for count in range(WINDOWS + 1):
                for way in draw.sample(group, len(group)):
                    if not way.error:
                        _window(way, plan, processes, keep=count > 0)
                    done += 1
                    teller.step("throughput", done, total, way.contestant.name, every=len(ways))
    for contestant in timed:
        tried = [way for way in ways if way.contestant is contestant]
        for error in dict.fromkeys(way.error for way in tried if way.error):
            teller.warn(f"{contestant.name}: no throughput: {error}")
        if not any(way.error for way in tried):  # the best of some ways would be taken for the best of all
            contestant.record["throughput"] = [
                {"streams": way.streams, "threads": way.threads, "windows": way.windows} for way in tried
            ]


def _window(way: Way, plan: Plan, processes: ExitStack, keep: bool) -> None:
    try:
        if way.runner is None:
            way.runner = processes.enter_context(closing(way.contestant.process()))
            way.contestant.load(way.runner, way.streams, way.threads)
        window = way.runner.ask("throughput", limit=ANSWER_SECONDS, seconds=plan.window)
    except RunnerError as error:
        way.error = str(error)
        return
    if keep:
        way.windows.append({key: window[key] for key in ("seconds", "calls", "joules", "tokens") if key in window})
