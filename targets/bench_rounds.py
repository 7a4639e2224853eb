"""The latency rounds: each contestant runs one block a round, in a random order, until there are enough.

Standard library only; runs on Python 3.9 and later. Used by bench.py.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.bench_plan import Plan
    from targets.bench_runner import Contestant, RunnerError
    from targets.bench_tell import Teller
    from targets.machine_info import busy_and_steal_s, clock_mhz
else:
    from bench_plan import Plan
    from bench_runner import Contestant, RunnerError
    from bench_tell import Teller
    from machine_info import busy_and_steal_s, clock_mhz

MIN_ROUNDS = 11  # of 8 calls less 2: 66 samples, enough for a p90
WARM_AGREEMENT = 0.02  # medians of two successive windows, relative
WARM_WINDOW = 3  # blocks
WARM_BLOCKS = 20
WARM_SECONDS = 10.0


@dataclass
class Latency:
    """What the rounds gave: the nouns Round and Block as dicts, in the order run."""

    rounds: list[dict[str, Any]] = field(default_factory=list)
    blocks: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def attempt(contestant: Contestant, teller: Teller) -> Iterator[None]:
    """A step of one contestant; where it fails, that contestant is out, with the reason kept, and the others go on."""
    try:
        yield
    except RunnerError as error:
        contestant.fail(str(error))
        teller.warn(f"{contestant.name}: {error}")


def warm_up(contestant: Contestant, length: int) -> None:
    """Run blocks until the medians of two successive windows of them agree, but not for ever: some machines never
    settle. The windows roll on block by block."""
    begin = time.monotonic()
    blocks: list[list[float]] = []
    while len(blocks) < WARM_BLOCKS and time.monotonic() - begin < WARM_SECONDS:
        blocks.append(contestant.ask("block", n=length)["wall_ms"])
        if len(blocks) < 2 * WARM_WINDOW:
            continue
        last, before = (
            statistics.median(ms for block in window for ms in block)
            for window in (blocks[-WARM_WINDOW:], blocks[-2 * WARM_WINDOW : -WARM_WINDOW])
        )
        if abs(last - before) <= WARM_AGREEMENT * before:
            return


def order_of(names: list[str], seed: int, number: int) -> list[str]:
    """The order of round `number`. It depends on nothing else, so that a session that was cut off can go on."""
    shuffled = list(names)
    random.Random(f"{seed}/{number}").shuffle(shuffled)
    return shuffled


def run_rounds(contestants: list[Contestant], plan: Plan, teller: Teller) -> Latency:
    """Rounds until there are `plan.rounds`, or with `plan.ask` until whoever is asked finds that enough."""
    result = Latency()
    wanted = plan.rounds
    begin = time.monotonic()
    late = False
    while wanted:
        while len(result.rounds) < wanted and not late and any(contestant.alive for contestant in contestants):
            number = plan.first_round + len(result.rounds)
            late = number >= MIN_ROUNDS and time.monotonic() - begin >= plan.seconds
            if not late:
                run_round(contestants, number, result, plan, teller, wanted)
        if not plan.ask or not any(contestant.alive for contestant in contestants):
            break
        extra = teller.look(len(result.rounds), late)
        wanted = len(result.rounds) + extra if extra else 0
    return result


def run_round(
    contestants: list[Contestant], number: int, result: Latency, plan: Plan, teller: Teller, wanted: int
) -> None:
    """One block a contestant. What the machine did meanwhile is read before and after, and costs no block anything."""
    by_name = {contestant.name: contestant for contestant in contestants}
    alive = [name for name in order_of(list(by_name), plan.seed, number) if by_name[name].alive]
    blocks: list[dict[str, Any]] = []
    own_before, (busy, steal), begin = own_cpu_s(contestants), busy_and_steal_s(), time.monotonic()
    for position, name in enumerate(alive, 1):
        with attempt(by_name[name], teller):
            blocks.append({"round": number, "variant": name, **by_name[name].block(number)})
        done = len(result.rounds) * len(alive) + position
        teller.step("latency", done, wanted * len(alive), name, every=5 * len(alive))
    wall_s = time.monotonic() - begin
    own_after, (busy_after, steal_after) = own_cpu_s(contestants), busy_and_steal_s()
    row = {
        "number": number,
        "wall_s": wall_s,
        "own_cpu_s": passed(own_before, own_after),
        "busy_cpu_s": passed(busy, busy_after),
        "steal_s": passed(steal, steal_after),
        "mhz": clock_mhz(),
    }
    result.rounds.append(row)
    result.blocks += blocks
    failed = {name: by_name[name].record["error"] for name in alive if not by_name[name].alive}
    teller.event(round=row, blocks=blocks, **({"failed": failed} if failed else {}))


def passed(before: float | None, after: float | None) -> float | None:
    """The seconds between two readings of a counter that only grows."""
    return None if before is None or after is None else round(max(0.0, after - before), 3)


def own_cpu_s(contestants: list[Contestant]) -> float | None:
    """CPU seconds so far of this process, of its runners that have ended, and of those that run; None where there is no
    /proc. A runner that dies meanwhile moves from the latter to the former."""
    try:
        times = os.times()
        total = times.user + times.system + times.children_user + times.children_system
        for contestant in contestants:
            if contestant.runner is not None:
                fields = Path(f"/proc/{contestant.runner.pid}/stat").read_text().rpartition(")")[2].split()
                total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
    return total
