"""Is anything lost when kdc is killed? SIGKILL before every single call that changes a file, one run a call.

    python -m benchmarks.kill_points [--all] [--only NAME …]

An audit hook (PEP 578) counts the calls that a command makes under one folder: opening for writing, renaming, linking,
making and removing. First a run that nobody disturbs, which says which there are; then, from the same beginning, one
run for each of them, killed right before it. Of many equal calls in one folder in a row the first two and the last are
taken, but with --all every one. After each kill `kdc check` must find the bundle as it
was before the command or as it is after it, and the command that goes on must end as the undisturbed one did, and leave
nothing behind. Prints the counts; exit code 1 where one kill lost something.

Another command is another `Case`.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.chain_bundle import write_chain_bundle
from compressor.bundle_folder import NEXT, files_of
from compressor.errors import KdcError
from compressor.measure.machine import this_machine
from compressor.report import check, exit_code_for, seal
from compressor.spec.profile import Budget

__all__ = ["CASES", "Case", "Outcome", "attack", "cases", "every_kind", "killed"]

# Runs kdc with the rest of the command line. Nothing of it may change a file under the folder that is watched.
HOOKED = """
import atexit, os, signal, sys
under, at, told = sys.argv[1], int(sys.argv[2]), sys.argv[3]
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PATHS = {"os.rename": 2, "os.link": 2, "os.symlink": 2, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.truncate": 1,
         "os.chmod": 1, "os.utime": 1}
calls = []

def watch(event, arguments):
    if event == "open":
        paths = arguments[:1] if isinstance(arguments[2], int) and arguments[2] & WRITES else ()
    else:
        paths = arguments[:PATHS.get(event, 0)]
    names = [os.fspath(path) for path in paths if not isinstance(path, int)]
    if event == "os.mkdir" and os.path.isdir(names[0]):
        return  # it changes nothing
    # A name without a folder is one that shutil.rmtree removes in a folder that it holds open.
    if any(str(name).startswith(under) or os.sep not in str(name) for name in names):
        calls.append(event + " " + os.path.dirname(str(names[-1])))
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)

def tell():
    with open(told, "w") as file:
        file.write("\\n".join(calls))

atexit.register(tell)
sys.addaudithook(watch)
sys.argv = ["kdc", *sys.argv[4:]]
from compressor.cli import main
main()
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: by that signal), and the calls that it made, where it was not
    killed: the name of each, and the folder that it changed."""

    code: int
    calls: list[str]
    said: str


def killed(arguments: Sequence[object], under: Path, at: int) -> Ended:
    """Run `kdc ARGUMENTS`, and kill it right before its `at`-th call that changes something under `under`; 0: never."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "calls"
        command = [sys.executable, "-c", HOOKED, os.fspath(under), str(at), os.fspath(told), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
        calls = told.read_text().splitlines() if told.exists() else []
    return Ended(done.returncode, calls, done.stderr)


@dataclass(frozen=True)
class Case:
    """A command under attack. `begin`: makes what it works on, at a place that does not exist yet; `arguments`: of the
    command. `sound`: None where what a kill left is in order, else what is wrong. `resume`: of the command that goes
    on. `left`: what may not be there at the end."""

    name: str
    begin: Callable[[Path], None]
    arguments: Callable[[Path], Sequence[object]]
    sound: Callable[[Path], str | None]
    resume: Callable[[Path], Sequence[object]]
    left: Callable[[Path], list[str]]


@dataclass
class Outcome:
    """`calls`: of the undisturbed run; `kills`: how often it was killed; `lost`: what went wrong, a line a kill."""

    calls: int
    kills: int = 0
    lost: list[str] = field(default_factory=list)


def every_kind(calls: Sequence[str]) -> list[int]:
    """The numbers, from 1 on, of the first two and the last of each row of the same call in the same folder."""
    inside = [0 < at < len(calls) - 1 and calls[at - 1] == one == calls[at + 1] for at, one in enumerate(calls)]
    return [at + 1 for at, _ in enumerate(calls) if not (inside[at] and inside[at - 1])]


def attack(
    case: Case,
    work: Path,
    points: Callable[[Sequence[str]], Sequence[int]],
    tell: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Run the case once undisturbed, and once with a kill at each of `points(calls)`; `tell`: told of each loss."""
    place = work / "place"

    def fresh() -> None:
        shutil.rmtree(place, ignore_errors=True)
        case.begin(place)

    fresh()
    whole = killed(case.arguments(place), place, 0)
    if whole.code not in (0, 1, 3):
        raise AssertionError(f"{case.name} ended with {whole.code}: {whole.said}")
    outcome = Outcome(len(whole.calls))

    def lose(line: str) -> None:
        outcome.lost.append(line)
        tell(line)

    for at in points(whole.calls):
        fresh()
        ended = killed(case.arguments(place), place, at)
        outcome.kills += ended.code == -signal.SIGKILL
        problem = case.sound(place)
        if problem is not None:
            lose(f"{case.name}, killed before call {at}: {problem}")
        again = killed(case.resume(place), place, 0)
        if again.code != whole.code:
            lose(f"{case.name}, after a kill before call {at}: ended with {again.code}: {again.said}")
        elif problem := case.sound(place):
            lose(f"{case.name}, gone on after a kill before call {at}: {problem}")
        if left := case.left(place):
            lose(f"{case.name}, gone on after a kill before call {at}: {', '.join(left)} is left")
    return outcome


def sound_bundle(place: Path) -> str | None:
    """The bundle that lies in `place` passes `kdc check`, as the old one or as the new one."""
    try:
        code = exit_code_for(check(place / "bundle"), False)
    except KdcError as error:
        return error.message
    return None if code in (0, 1, 3) else f"kdc check ends with {code}"


def left_in_bundle(place: Path) -> list[str]:
    """What kdc has in the making there, beside the bundle's own files and folders."""
    return [path.name for path in (place / "bundle").rglob(".kdc*")]


QUICK = ("--rounds", 11, "--no-throughput", "--quiet")


def _chains(work: Path) -> Path:
    """A sealed and measured bundle of a chain of 2 convolutions, and an earlier one of 3; made once."""
    made = work / "chains"
    if not made.exists():
        for name, blocks in (("bundle", 2), ("earlier", 3)):
            write_chain_bundle(made / name, blocks, 1, Budget(p50_ms=1000), this_machine())
            seal(made / name)
            whole = killed(("measure", made / name, *QUICK), made, 0)
            assert whole.code in (0, 3), whole.said
    return made


def _run(work: Path) -> Path:
    """A teacher and a student of the digits, and a bundle of theirs; made once."""
    made = work / "digits"
    common = ("--data", "digits", "--input-size", 16, "--quiet", "--set", "crop_pct=1.0")
    if not made.exists():
        teach = ("teach", "--teacher", "timm:test_resnet", "--teacher-init", "random", "--epochs", 4, *common)
        distill = (
            "distill",
            "--teacher",
            f"run:{made / 'teacher'}",
            "--student",
            "timm:test_efficientnet",
            "--epochs",
            1,
            *common,
        )
        for command in (
            (*teach, "--out", made / "teacher"),
            (*distill, "--student-init", "random", "--out", made / "run"),
            ("export", made / "run", *_profile(), "--out", made / "bundle"),
        ):
            whole = killed(command, made, 0)
            assert whole.code in (0, 1, 3), whole.said
    return made


def _profile() -> tuple[object, ...]:
    """Of any device: what matters here is that there is a verdict, whichever."""
    kept = ("--set", "budget={p50_ms: 1000}", "--set", "fingerprint.cpu=none", "--precision", "fp32")
    return "--profile", "x86-avx2", "--target", "onnxruntime", *kept, *QUICK


def cases(work: Path) -> dict[str, Case]:
    """All of them, by name; what they begin with lies in `work`."""

    def chains(place: Path) -> None:
        shutil.copytree(_chains(work), place)

    def stale(place: Path) -> None:
        chains(place)
        (place / "bundle" / "measurements" / "new.txt").write_text("from the device", encoding="utf-8")
        seal_without_report(place / "bundle")

    def seal_without_report(bundle: Path) -> None:
        (bundle / "report.md").write_text("an older one\n", encoding="utf-8")
        seal(bundle)

    def digits(place: Path) -> None:
        made = _run(work)
        shutil.copytree(made / "bundle", place / "bundle")

    def nothing(place: Path) -> None:
        _run(work)
        place.mkdir()

    def export(place: Path) -> Sequence[object]:
        out = place / "bundle"
        return ("export", work / "digits" / "run", *_profile(), "--out", out, "--overwrite")

    def new_or_none(place: Path) -> str | None:
        """Nothing, something unfinished that says so, or a whole bundle."""
        bundle = place / "bundle"
        if not bundle.exists() or not (files_of(bundle) or (bundle / NEXT).exists()):
            return None
        try:
            check(bundle)
        except KdcError as error:
            finished = "kdc measure" in error.hint
            return None if finished else error.message
        return None

    def measure(place: Path) -> Sequence[object]:
        return ("measure", place / "bundle", *QUICK)

    def baseline(place: Path) -> Sequence[object]:
        return (*measure(place), "--baseline", place / "earlier")

    def report(place: Path) -> Sequence[object]:
        return ("report", place / "bundle", "--out", place / "report.md", "--overwrite")

    made = (
        Case("measure", chains, measure, sound_bundle, measure, left_in_bundle),
        Case("measure --baseline", chains, baseline, sound_bundle, baseline, left_in_bundle),
        Case("report", stale, report, sound_bundle, report, left_in_bundle),
        Case("export", nothing, export, new_or_none, export, left_in_bundle),
        Case("export --overwrite", digits, export, sound_bundle, export, left_in_bundle),
        Case("export --overwrite, then measure", digits, export, sound_bundle, measure, left_in_bundle),
    )
    return {case.name: case for case in made}


CASES = ("measure", "measure --baseline", "report", "export", "export --overwrite", "export --overwrite, then measure")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--all", action="store_true", help="kill before every call, also before those of one kind")
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    failed = False
    with tempfile.TemporaryDirectory(prefix="kill-points-") as folder:
        for name in given.only:
            case = cases(Path(folder))[name]
            points = (lambda calls: range(1, len(calls) + 1)) if given.all else every_kind
            outcome = attack(case, Path(folder), points, lambda line: print(f"  {line}", flush=True))
            print(f"{name}: {outcome.calls} calls, {outcome.kills} kills, {len(outcome.lost)} losses", flush=True)
            failed |= bool(outcome.lost)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
