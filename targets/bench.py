"""Measures a bundle on the machine it lies on: `python3 runners/bench.py BUNDLE`.

One runner process a variant; short blocks in random order, so that all variants share whatever noise there is; then
the logits of the whole test split. Writes BUNDLE/measurements/measurement.json (the noun Measurement of
compressor/spec/measurement.py) and one .npy file a variant: raw samples, so that every figure can be derived again.

Standard library and numpy only; runs on Python 3.9 and later. README.md says what is recorded and why.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.bench_session import PUBLISHED, BenchError, Contestant, Plan, RunnerError, read_plan, session_folder
    from targets.machine_info import machine
else:
    sys.dont_write_bytecode = True  # __pycache__ in the bundle would hold this machine's paths
    from bench_session import PUBLISHED, BenchError, Contestant, Plan, RunnerError, read_plan, session_folder
    from machine_info import machine

BLOCK_LENGTH = 8  # calls in a row. It shifts the values (caches), so it is the same everywhere and stored
BLOCK_DROPPED = 2  # of these, the first ones: they pay for the caches that the contestant before left behind
ROUNDS = 30
MIN_ROUNDS = 11  # 66 samples: a p90 needs at least 64 (MLPerf LoadGen, 99 % confidence)
P90_SAMPLES = 64
SECONDS = 60.0
WARM_AGREEMENT = 0.05  # medians of two successive blocks, relative
WARM_BLOCKS = 20
WARM_SECONDS = 10.0
STOPS = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))  # Windows has no SIGHUP
EXIT_MEASURED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 2, 130


@dataclass
class Latency:
    """What the rounds gave: the noun Block as dicts, in the order run."""

    rounds: int = 0
    blocks: list[dict[str, Any]] = field(default_factory=list)


class Teller:
    """Tells what is being done: JSON lines for programs, or a line now and then for people."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def step(self, doing: str, done: int, total: int, variant: str, every: int = 1) -> None:
        if self.as_json:
            print(json.dumps({"progress": done, "total": total, "doing": doing, "variant": variant}), flush=True)
        elif done % every == 0 or done == total:
            print(f"{doing} {done}/{total}" + (f" {variant}" if every == 1 else ""), flush=True)


@contextmanager
def attempt(contestant: Contestant) -> Iterator[None]:
    """A step of one contestant; where it fails, that contestant is out, with the reason kept, and the others go on."""
    try:
        yield
    except RunnerError as error:
        contestant.fail(str(error))
        print(f"{contestant.name}: {error}", file=sys.stderr, flush=True)


def warm_up(contestant: Contestant) -> None:
    """Run blocks until the medians of two in a row agree, but not for ever: some machines never settle."""
    begin = time.monotonic()
    before = 0.0
    for _ in range(WARM_BLOCKS):
        median = statistics.median(contestant.ask("block", n=BLOCK_LENGTH)["wall_ms"])
        if abs(median - before) <= WARM_AGREEMENT * before or time.monotonic() - begin > WARM_SECONDS:
            return
        before = median


def make_ready(contestant: Contestant, plan: Plan) -> None:
    script = Path(__file__).resolve().parent / contestant.variant["runner"]
    if not script.is_file():
        raise RunnerError(f"{script.name} does not lie beside bench.py")
    contestant.start(plan.python, script, plan.bundle)
    contestant.load()
    warm_up(contestant)


def run_rounds(contestants: list[Contestant], plan: Plan, teller: Teller) -> Latency:
    """One block a contestant and round, in an order drawn anew each round."""
    draw = random.Random(plan.seed)
    result = Latency()
    begin = time.monotonic()
    for number in range(plan.rounds):
        order = [contestant for contestant in contestants if contestant.alive]
        late = number >= MIN_ROUNDS and time.monotonic() - begin >= plan.seconds
        if late or not order:
            break
        draw.shuffle(order)
        for position, contestant in enumerate(order):
            with attempt(contestant):
                run_block(contestant, number, result)
            done = number * len(order) + position + 1
            teller.step("latency", done, plan.rounds * len(order), contestant.name, every=5 * len(order))
        result.rounds = number + 1
    return result


def run_block(contestant: Contestant, number: int, result: Latency) -> None:
    times = contestant.ask("block", n=BLOCK_LENGTH)
    wall, cpu = times["wall_ms"][BLOCK_DROPPED:], times["cpu_ms"][BLOCK_DROPPED:]
    result.blocks.append({"round": number, "variant": contestant.name, "wall_ms": wall, "cpu_ms": cpu})


def predict(contestant: Contestant, plan: Plan, folder: Path) -> None:
    out = folder / f"{contestant.name}.npy"
    contestant.predict(out.relative_to(plan.bundle))
    digest = hashlib.sha256()
    with out.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    contestant.record.update(logits=out.name, logits_sha256=digest.hexdigest())


def measure(plan: Plan, folder: Path, teller: Teller) -> dict[str, Any]:
    """The noun Measurement. Logits are left in `folder`."""
    started, before = now(), machine()
    contestants = [Contestant(variant, plan.threads, plan.batch) for variant in plan.variants]
    try:
        for count, contestant in enumerate(contestants, 1):
            with attempt(contestant):
                make_ready(contestant, plan)
            teller.step("loading", count, len(contestants), contestant.name)
        latency = run_rounds(contestants, plan, teller)
        after = machine()  # right after the last block, while load, clock and temperature are still those of the blocks
        for contestant in contestants:
            if contestant.alive:
                with attempt(contestant):
                    contestant.record["peak_rss_mb"] = contestant.ask("memory")["peak_rss_mb"]
        for count, contestant in enumerate(contestants, 1):
            if contestant.alive and plan.predict:
                with attempt(contestant):
                    predict(contestant, plan, folder)
                teller.step("accuracy", count, len(contestants), contestant.name)
    finally:
        for contestant in contestants:
            contestant.end()
    failed = {contestant.name for contestant in contestants if not contestant.alive}
    return {
        "schema": 1,
        "started": started,
        "finished": now(),
        "batch": plan.batch,
        "block_length": BLOCK_LENGTH,
        "block_dropped": BLOCK_DROPPED,
        "rounds": latency.rounds,
        "distinct_inputs": min((one.distinct for one in contestants if one.alive), default=0),
        "seed": plan.seed,
        "machine_before": before,
        "machine_after": after,
        "contestants": [contestant.record for contestant in contestants],
        "blocks": [block for block in latency.blocks if block["variant"] not in failed],
    }


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def publish(measurement: dict[str, Any], folder: Path) -> Path:
    """Move the session's files to where they belong, the measurement last: what it names is there when it appears."""
    (folder / PUBLISHED).write_text(json.dumps(measurement, allow_nan=False, indent=1) + "\n", encoding="utf-8")
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)  # some renames: not worth stopping half-way
    names = [record["logits"] for record in measurement["contestants"] if record.get("logits")]
    for name in [*names, PUBLISHED]:
        (folder / name).replace(folder.parent / name)
    return folder.parent / PUBLISHED


def table(measurement: dict[str, Any]) -> str:
    """Wall time a call of each variant, for people. The report derives its figures again from the samples."""
    width = max(len(record["variant"]) for record in measurement["contestants"])
    lines = [f"{'variant':{width}}  {'p50 ms':>9}  {'p90 ms':>9}  {'n':>5}  precision"]
    for record in measurement["contestants"]:
        name = record["variant"]
        wall = [ms for block in measurement["blocks"] if block["variant"] == name for ms in block["wall_ms"]]
        if record.get("error"):
            lines.append(f"{name:{width}}  not measured: {record['error']}")
            continue
        p90 = f"{np.percentile(wall, 90):9.3f}" if len(wall) >= P90_SAMPLES else f"{f'n < {P90_SAMPLES}':>9}"
        precision = record["executed_precision"]
        lines.append(f"{name:{width}}  {np.percentile(wall, 50):9.3f}  {p90}  {len(wall):>5}  {precision}")
    return "\n".join(lines)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BenchError(message)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", help="the folder with bundle.json")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"blocks a variant (default {ROUNDS})")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"cap of the rounds, from {MIN_ROUNDS} rounds on"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order in the rounds (default 0)")
    parser.add_argument("--variant", metavar="NAME", nargs="+", action="extend", help="measure only these")
    parser.add_argument("--no-predict", action="store_true", help="latency and memory only")
    parser.add_argument("--python", metavar="EXE", default=sys.executable, help="interpreter of the runners")
    parser.add_argument("--json", action="store_true", help="progress as JSON lines")
    parser.add_argument("--info", action="store_true", help="print what machine this is, as JSON, and end")
    args = parser.parse_args(argv)
    if args.rounds < 1 or not args.seconds >= 0:
        raise BenchError("--rounds needs at least 1, --seconds at least 0")
    if not args.info and args.bundle is None:
        raise BenchError("which bundle? usage: bench.py BUNDLE (or --info)")
    return args


def main(argv: list[str]) -> int:
    try:
        args = parse(argv)
        if args.info:
            print(json.dumps(machine()))
            return EXIT_MEASURED
        plan = read_plan(args)
        teller = Teller(args.json)
        if not args.json:
            print(f"blocks of {BLOCK_LENGTH} calls, the first {BLOCK_DROPPED} dropped; seed {plan.seed}", flush=True)
        if plan.threads > machine()["usable_cores"]:
            print(f"note: {plan.threads} threads asked for, more than the cores that may be used", file=sys.stderr)
        with session_folder(plan.bundle) as folder:
            measurement = measure(plan, folder, teller)
            published = publish(measurement, folder)
        if not args.json:
            print(f"{table(measurement)}\n{published.relative_to(plan.bundle)}")
        return EXIT_MEASURED
    except BenchError as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("bench.py: interrupted, nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read the progress is gone, and nobody waits for the result
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains again when it flushes stdout at its end
        return EXIT_INTERRUPTED
    except OSError as error:
        print(f"bench.py: cannot write the measurement: {error.strerror}", file=sys.stderr)
        return EXIT_USAGE


def interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in STOPS:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores it, and so shall this
            signal.signal(number, interrupt)
    sys.exit(main(sys.argv[1:]))
