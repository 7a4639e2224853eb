"""Latency by length, where samples vary in it, and the tokenizer tried: after the rounds, in the same processes.

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


def run_tokenizing(contestants: list[Contestant], plan: Plan, teller: Teller) -> list[dict[str, Any]]:
    """The noun Tokenizing as dicts: of each tokenizer of the bundle, on the machine that is measured."""
    told: dict[str, dict[str, Any]] = {}
    for contestant in contestants:
        variant = contestant.variant
        files = variant.get("texts")
        if not contestant.alive or not files or variant["inputs"] in told:
            continue
        record: dict[str, Any] = {"inputs": variant["inputs"]}
        try:
            with closing(Runner(plan.python, Path(contestant.script), plan.bundle)) as runner:
                asked = {"texts": files["texts"], "tokenizer": files["tokenizer"], "inputs": variant["inputs"]}
                reply = runner.ask("tokenize", limit=None, preprocess=variant["preprocess"], **asked)
            keys = ("version", "n", "cut", "differ", "lengths", "wall_ms")
            record.update({key: reply[key] for key in keys})
        except RunnerError as error:
            record["error"] = str(error)
            teller.warn(f"the tokenizer was not tried: {error}")
        told[variant["inputs"]] = record
    return list(told.values())
