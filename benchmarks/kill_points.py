"""Is anything lost when kdc is killed? SIGKILL before every single call that changes a file, one run a call.

    python -m benchmarks.kill_points [--all | --every K [--last N] | --at N …] [--only NAME …]

A run that nobody disturbs first says which calls there are (see warm.py); then, from the same beginning, one run for
each of them, killed right before it. Of many equal calls in one folder in a row the first two and the last are taken;
with --all every one; with --every K each K-th, and each of the last N; with --at those alone. What a kill leaves must
be sound: a bundle passes `kdc check` as it was before the command or as it is after it; a run or a table that was to be
replaced is there as a whole, or the new one is. Then the command goes on, as a user would: with --resume where there is
a run to go on with, else as it was. It must end as the undisturbed one did, students and tables byte for byte, and
leave nothing behind. Prints the counts as they come; exit code 1 where one kill lost something.

Another command is another `Case`, in kill_cases.py.
"""

import argparse
import atexit
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.warm import Ended, Warm

__all__ = ["VERDICTS", "Case", "Outcome", "attack", "every_kind", "killed"]

VERDICTS = (0, 1, 3)
"""A verdict is a verdict, whichever: on a busy machine it may be another one each time."""

_warm = Warm()
atexit.register(_warm.close)


def killed(arguments: Sequence[object], under: Path, at: int) -> Ended:
    """Run `kdc ARGUMENTS`, and kill it right before its `at`-th call that changes something under `under`; 0: never."""
    return _warm.run(arguments, under, at)


@dataclass(frozen=True)
class Case:
    """A command under attack. `begin`: makes what it works on, at a place that does not exist yet; `arguments`: of the
    command. `sound`: None where what a kill left is in order, else what is wrong; it is told what the undisturbed run
    made. `resume`: of the command that goes on. `left`: what may not be there at the end. `made`: what must be the same
    bytes at the end; None: nothing."""

    begin: Callable[[Path], None]
    arguments: Callable[[Path], Sequence[object]]
    sound: Callable[[Path, bytes | None], str | None]
    resume: Callable[[Path], Sequence[object]]
    left: Callable[[Path], list[str]]
    made: Callable[[Path], bytes | None] = lambda place: None


@dataclass
class Outcome:
    """`calls`: of the undisturbed run; `kills`: how often it was killed; `resumed`: how often it went on with --resume;
    `same`: how often it ended with the same bytes; `lost`: what went wrong, a line each."""

    calls: int
    kills: int = 0
    resumed: int = 0
    same: int = 0
    lost: list[str] = field(default_factory=list)


def every_kind(calls: Sequence[str]) -> list[int]:
    """The numbers, from 1 on, of the first two and the last of each row of the same call in the same folder."""
    inside = [0 < at < len(calls) - 1 and calls[at - 1] == one == calls[at + 1] for at, one in enumerate(calls)]
    return [at + 1 for at, _ in enumerate(calls) if not (inside[at] and inside[at - 1])]


def attack(
    name: str,
    case: Case,
    work: Path,
    points: Callable[[Sequence[str]], Sequence[int]],
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Run the case once undisturbed, and once with a kill at each of `points(calls)`; `tell`: told of each loss."""
    place = work / "place"

    def fresh() -> None:
        _warm.end_children()
        shutil.rmtree(place, ignore_errors=True)
        case.begin(place)

    fresh()
    whole = killed(case.arguments(place), place, 0)
    if whole.code not in VERDICTS:
        raise AssertionError(f"{name} ended with {whole.code}: {whole.said}")
    made = case.made(place)
    outcome = Outcome(len(whole.calls))

    def lose(at: int, line: str) -> None:
        outcome.lost.append(f"{name}, killed before call {at} ({whole.calls[at - 1]}): {line}")
        tell(outcome.lost[-1])

    for at in points(whole.calls):
        fresh()
        ended = killed(case.arguments(place), place, at)
        outcome.kills += ended.code == -signal.SIGKILL
        if problem := case.sound(place, made):
            lose(at, problem)
        resume = case.resume(place)
        outcome.resumed += "--resume" in resume
        again = killed(resume, place, 0)
        if again.code not in VERDICTS:
            lose(at, f"gone on, it ended with {again.code}: {again.said}")
        elif problem := case.sound(place, made):
            lose(at, f"gone on: {problem}")
        if left := case.left(place):
            lose(at, f"gone on: {', '.join(left)} is left")
        if case.made(place) == made:
            outcome.same += made is not None
        else:
            lose(at, "gone on, it made something else")
        if outcome.kills % 25 == 0:
            tell(f"{name}: {outcome.kills} kills so far")
    return outcome


def main() -> None:
    from benchmarks.kill_cases import cases

    names = tuple(cases(Path()))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="kill before every call, also before those of one kind")
    which.add_argument("--every", type=int, metavar="K", help="kill before every K-th call")
    which.add_argument("--at", type=int, nargs="+", metavar="N", help="kill before the N-th call, in this order")
    parser.add_argument("--last", type=int, default=0, metavar="N", help="with --every: also before each of the last N")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    given = parser.parse_args()

    def points(calls: Sequence[str]) -> Sequence[int]:
        numbers = range(1, len(calls) + 1)
        if given.at is not None:
            if wrong := set(given.at) - set(numbers):
                parser.error(f"--at {min(wrong)}: there are {len(calls)} calls")
            return list(given.at)
        if given.every is not None:
            return [at for at in numbers if at % given.every == 0 or at > len(calls) - given.last]
        return numbers if given.all else every_kind(calls)

    failed = False
    with tempfile.TemporaryDirectory(prefix="kill-points-") as folder:
        os.environ.update(OMP_NUM_THREADS="1", KDC_CACHE=f"{folder}/cache")
        for name in given.only:
            begin = time.monotonic()
            outcome = attack(
                name, cases(Path(folder))[name], Path(folder), points, lambda line: print(f"  {line}", flush=True)
            )
            took = time.monotonic() - begin
            print(
                f"{name}: {outcome.calls} calls, {outcome.kills} kills, {len(outcome.lost)} losses, "
                f"{outcome.resumed} resumed, {outcome.same} byte-identical ({took:.0f} s)",
                flush=True,
            )
            failed |= bool(outcome.lost)
        _warm.close()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
