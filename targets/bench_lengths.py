"""Latency by length, where samples vary in it, and raw samples made to inputs: after the rounds, in the same processes.

Standard library only; runs on Python 3.9 and later. Used by bench.py.
"""

from __future__ import annotations

import random
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.bench_plan import BLOCK_DROPPED, Plan
    from targets.bench_runner import Contestant, Runner, RunnerError
    from targets.bench_tell import Teller
else:
    from bench_plan import BLOCK_DROPPED, Plan
    from bench_runner import Contestant, Runner, RunnerError
    from bench_tell import Teller

ROUNDS = 11  # of 8 calls less 2: 66 samples, enough for a p90
TOLD = ("version", "n", "cut", "differ", "padded", "resampled", "largest_difference", "lengths", "wall_ms")
FEWEST = 10  # a p50 has an interval from so many blocks on


def run_lengths(contestants: list[Contestant], plan: Plan, teller: Teller) -> list[dict[str, Any]]:
    """The noun LengthBlock as dicts: in every round one block of each contestant at each length, in a random order, so
    that lengths and contestants share whatever noise there is. A failure costs a contestant these figures alone."""
    timed = [contestant for contestant in contestants if contestant.alive and contestant.copy_of is None]
    failed: set[str] = set()
    blocks: list[dict[str, Any]] = []
    ways = [(contestant, length) for contestant in timed for length in plan.lengths if contestant.variant.get("mask")]
    rounds, begin = min(ROUNDS, plan.rounds or ROUNDS), time.monotonic()
    for number in range(rounds if ways else 0):
        if number >= FEWEST and time.monotonic() - begin >= plan.seconds:
            break
        for contestant, length in random.Random(f"{plan.seed}/lengths/{number}").sample(ways, len(ways)):
            if contestant.name in failed:
                continue
            try:
                blocks.append({"round": number, **_block(contestant, length, plan)})
            except RunnerError as error:
                failed.add(contestant.name)
                teller.warn(f"{contestant.name}: no latency by length: {error}")
        teller.step("lengths", number + 1, rounds, timed[0].name)
    return [block for block in blocks if block["variant"] not in failed]


def _block(contestant: Contestant, length: int, plan: Plan) -> dict[str, Any]:
    assert contestant.runner is not None
    contestant.feed(contestant.runner, length)
    times = contestant.ask("block", n=plan.block_length)
    return {
        "variant": contestant.name,
        "length": length,
        "dropped_ms": times["wall_ms"][:BLOCK_DROPPED],
        "wall_ms": times["wall_ms"][BLOCK_DROPPED:],
        "cpu_ms": times["cpu_ms"][BLOCK_DROPPED:],
    }


def run_preprocessing(contestants: list[Contestant], plan: Plan, teller: Teller) -> list[dict[str, Any]]:
    """The noun Preprocessing as dicts: of each kind of inputs of the bundle, on the machine that is measured."""
    told: dict[str, dict[str, Any]] = {}
    for contestant in contestants:
        variant = contestant.variant
        files = variant.get("raw")
        if not contestant.alive or not files or variant["inputs"] in told:
            continue
        record: dict[str, Any] = {"inputs": variant["inputs"]}
        try:
            with closing(Runner(plan.python, Path(contestant.script), plan.bundle)) as runner:
                asked = {key: value for key, value in files.items() if value is not None}
                asked |= {key: variant[key] for key in ("task", "inputs", "preprocess")}
                reply = runner.ask("preprocess", limit=None, **asked)
            record.update({key: reply[key] for key in TOLD if key in reply})
        except RunnerError as error:
            record["error"] = str(error)
            teller.warn(f"no inputs were made of raw samples: {error}")
        told[variant["inputs"]] = record
    return list(told.values())
