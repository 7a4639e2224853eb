"""Measures a bundle on the machine it lies on: `python3 runners/bench.py BUNDLE`.

Models that belong to one machine are built first. Then one runner process a variant; short blocks in random order, so
that all variants share whatever noise there is; throughput; and the logits of the whole test split. Writes
BUNDLE/measurements/measurement.json (the noun Measurement of compressor/schema/measurement.py) and one .npy file a
variant: raw samples, so that every figure can be derived again.

Standard library only; runs on Python 3.9 and later. README.md says what is recorded and why.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.bench_language import LanguageSession
    from targets.bench_lock import machine_lock
    from targets.bench_plan import BLOCK_DROPPED, AskerGoneError, BenchError, MissingError, Plan, read_plan
    from targets.bench_rounds import MIN_ROUNDS
    from targets.bench_session import STOPS, Session, publish, session_folder
    from targets.bench_streams import WINDOW_SECONDS
    from targets.bench_tell import Teller, table
    from targets.machine_info import machine
else:
    sys.dont_write_bytecode = True  # __pycache__ in the bundle would hold this machine's paths
    from bench_language import LanguageSession
    from bench_lock import machine_lock
    from bench_plan import BLOCK_DROPPED, AskerGoneError, BenchError, MissingError, Plan, read_plan
    from bench_rounds import MIN_ROUNDS
    from bench_session import STOPS, Session, publish, session_folder
    from bench_streams import WINDOW_SECONDS
    from bench_tell import Teller, table
    from machine_info import machine

BLOCK_LENGTH = 8  # calls in a row. It shifts the values (caches), so it is the same everywhere and stored
ROUNDS = 30
FRESH_STARTS = 2  # of each contestant, beside the start of the process that runs the blocks
SECONDS = 60.0
WAIT_SECONDS = 600.0
EXIT_MEASURED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 2, 130


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BenchError(message)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", nargs="?", help="the folder with bundle.json")
    add("--rounds", type=int, default=ROUNDS, help=f"blocks a variant (default {ROUNDS}); with --ask until it asks")
    add("--seconds", type=float, default=SECONDS, help=f"cap of the rounds, from {MIN_ROUNDS} rounds on")
    add("--seed", type=int, default=0, help="of the order in the rounds (default 0)")
    add("--variant", metavar="NAME", nargs="+", action="extend", help="measure only these")
    add("--block-length", type=int, default=BLOCK_LENGTH, help=f"calls in a row (default {BLOCK_LENGTH})")
    add("--no-predict", action="store_true", help="without the logits of the test split")
    add("--no-throughput", action="store_true", help="without throughput")
    add("--explain", type=int, default=0, metavar="N", help="also time each variant's layers, in N calls of their own")
    add("--wait", type=float, default=WAIT_SECONDS, help="seconds to wait for another measurement on this machine")
    add("--python", metavar="EXE", default=sys.executable, help="interpreter of the runners")
    add("--json", action="store_true", help="tell everything as JSON lines on stdout, see README.md")
    add("--ask", action="store_true", help="with --json: ask on stdin after --rounds whether they are enough")
    add("--first-round", type=int, default=0, help="number of the first round, of a session that goes on")
    add("--out", metavar="DIR", help="with --json: leave the logits there, and nothing in the bundle")
    add("--window", type=float, default=WINDOW_SECONDS, help=argparse.SUPPRESS)  # seconds, of throughput
    add("--fresh-starts", type=int, default=FRESH_STARTS, help=argparse.SUPPRESS)  # a screening takes fewer
    add("--info", action="store_true", help="print what machine this is, as JSON, and end")
    args = parser.parse_args(argv)
    if not args.info:
        check(args)
    return args


def check(args: argparse.Namespace) -> None:
    if args.bundle is None:
        raise BenchError("which bundle? usage: bench.py BUNDLE (or --info)")
    if args.rounds < (0 if args.ask else 1) or not args.seconds >= 0 or not args.wait >= 0 or args.first_round < 0:
        raise BenchError("--rounds needs at least 1 (0 with --ask), --seconds, --wait and --first-round at least 0")
    if args.block_length <= BLOCK_DROPPED:
        raise BenchError(f"--block-length needs at least {BLOCK_DROPPED + 1}: the first {BLOCK_DROPPED} are dropped")
    if args.explain < 0:
        raise BenchError("--explain needs a number of calls, 0 for none")
    if args.fresh_starts < 1:
        raise BenchError("--fresh-starts needs at least 1: one process tells in which precision it computes")
    if not args.json and (args.ask or args.out is not None):
        raise BenchError("--ask and --out need --json: they leave the samples to whoever reads the events")


def measure(plan: Plan, teller: Teller) -> None:
    """Wait for the machine, measure, and leave the result where it was asked for."""
    session = Session if plan.language is None else LanguageSession
    with ExitStack() as stack:
        hold = stack.enter_context(machine_lock(plan.wait, teller.note))
        if plan.threads > machine()["usable_cores"]:
            teller.note(f"{plan.threads} threads asked for, more than the cores that may be used")
        if plan.out is not None:
            session(plan, plan.out, hold.waited_s, teller).run()
            return
        folder = stack.enter_context(session_folder(plan.bundle, hold.alone))
        measurement = session(plan, folder, hold.waited_s, teller).run()
        published = publish(measurement, folder)
    if not teller.as_json:
        print(f"{table(measurement)}\n{published.relative_to(plan.bundle)}")


def main(argv: list[str]) -> int:
    try:
        args = parse(argv)
        if args.info:
            print(json.dumps(machine()))
            return EXIT_MEASURED
        plan = read_plan(args)
        if not args.json:
            length, seed = plan.block_length, plan.seed
            print(f"blocks of {length} calls, the first {BLOCK_DROPPED} dropped; seed {seed}", flush=True)
        measure(plan, Teller(args.json))
        return EXIT_MEASURED
    except MissingError as error:  # the line that installs it stands first, to be copied
        print(error, file=sys.stderr)
        return error.code
    except BenchError as error:
        print(f"bench.py: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("bench.py: interrupted, nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except AskerGoneError:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read the events is gone, and nobody waits for the result
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
