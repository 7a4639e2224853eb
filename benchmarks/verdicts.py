"""Can a release be bet on the verdicts? Ties and real slowdowns, simulated and measured, quiet and beside CPU hogs.

    python -m benchmarks.verdicts simulated [--sessions 200]
    python -m benchmarks.verdicts real [--ties 40] [--each 20] [--seconds 15] [--hogs 2]

`real`: every session is a whole `kdc measure --baseline` (fresh processes, A/A copy, looks while the verdict is open)
on a chain of equal convolutions (chain_bundle.py): 30 against 30 of them, 33 against 30 (a tenth more work), 31 against
30. `max_slowdown` is the line judged: at 1.1 and 0.9 for ties, which must not fail the one nor pass the other; at 1.0
for slowdowns. Prints how often each verdict came out, the spread of the reported ratio, and how many sessions were
marked as disturbed.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.chain_bundle import NAME, write_chain_bundle
from compressor import pipeline
from compressor.measure.machine import this_machine
from compressor.progress import Silent
from compressor.report import build_report, seal
from compressor.schema.base import read_json, write_json
from compressor.schema.bundle import Bundle
from compressor.schema.profile import Budget
from compressor.schema.report import Report
from compressor.stats import judge, look_confidence, paired_ratio, widen

BASE = 30
CASES = {"tie": 30, "10 % more work": 33, "3 % more work": 31}
HOG = "while True: pass"
NOISE = {"independent": 0.0, "autocorrelated (phi 0.5)": 0.5}
LOOKS = (30, 60, 120, 240)


@dataclass(frozen=True)
class Outcome:
    """One session: the verdict at each limit asked for, the ratio, the smallest effect that it could have told."""

    verdicts: dict[float, str]
    ratio: float
    smallest: float
    rounds: int
    disturbed: bool


@contextmanager
def hogs(count: int) -> Iterator[None]:
    running = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def session(folder: Path, blocks: int, limits: tuple[float, ...], seconds: float, threads: int) -> Outcome:
    """A whole measurement of `blocks` convolutions beside BASE of them; sampling goes by the first of the limits."""
    machine = this_machine()
    bundle, baseline = folder / "bundle", folder / "baseline"
    for place, count in ((baseline, BASE), (bundle, blocks)):
        write_chain_bundle(place, count, threads, Budget(max_slowdown=limits[0]), machine)
        seal(place)
    how = pipeline.Measuring(baseline=baseline, seconds=seconds, throughput=False)
    report = pipeline.measure(bundle, how, progress=Silent())[0].report
    verdicts = {limit: _verdict(bundle, limit) for limit in limits}
    return _outcome(report, verdicts)


def _verdict(bundle: Path, limit: float) -> str:
    """The verdict on max_slowdown had the limit been this one."""
    manifest = read_json(bundle / "bundle.json", Bundle)
    profile = manifest.profile.model_copy(update={"budget": Budget(max_slowdown=limit)})
    write_json(bundle / "bundle.json", manifest.model_copy(update={"profile": profile}))
    return next(check.verdict for check in build_report(bundle).checks if check.line == "max_slowdown")


def _outcome(report: Report, verdicts: dict[float, str]) -> Outcome:
    row = next(row for row in report.rows if row.name == NAME)
    told = report.session
    if row.slowdown is None or told is None or told.smallest_effect is None:
        sys.exit(f"the session has no ratio: {row.error}")
    return Outcome(verdicts, row.slowdown.value, told.smallest_effect, told.rounds, bool(told.disturbed))


def show(case: str, outcomes: list[Outcome], limits: tuple[float, ...]) -> None:
    ratios = [outcome.ratio for outcome in outcomes]
    spread = 100 * statistics.stdev(ratios[:10]) / statistics.mean(ratios[:10]) if len(ratios) > 1 else float("nan")
    for limit in limits:
        counted = Counter(outcome.verdicts[limit] for outcome in outcomes)
        said = ", ".join(f"{counted[verdict]} {verdict}" for verdict in ("pass", "fail", "inconclusive"))
        print(f"{case}: limit {limit:g}: {said} of {len(outcomes)}", flush=True)
    rounds = statistics.median(outcome.rounds for outcome in outcomes)
    smallest = 100 * statistics.median(outcome.smallest for outcome in outcomes)
    print(
        f"    ratio {statistics.median(ratios):.4f} [{min(ratios):.4f}-{max(ratios):.4f}], variation over the first "
        f"{len(ratios[:10])} sessions {spread:.2f} %; smallest effect {smallest:.2f} % (median); rounds {rounds:.0f} "
        f"(median); marked as disturbed: {sum(outcome.disturbed for outcome in outcomes)}",
        flush=True,
    )


def real(ties: int, each: int, seconds: float, hog_count: int, threads: int) -> None:
    plan = [("tie", ties, (1.1, 0.9), 0), ("tie", 10, (1.0,), 0), ("tie", each, (1.1, 0.9), hog_count)]
    plan += [(case, each, (1.0,), count) for case in list(CASES)[1:] for count in (0, hog_count)]
    for case, sessions, limits, count in plan:
        outcomes = []
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as folder, hogs(count):
            for _ in range(sessions):
                outcomes.append(session(Path(folder), CASES[case], limits, seconds, threads))
        beside = f"beside {count} CPU hogs" if count else "quiet"
        show(f"{case}, {beside} ({(time.monotonic() - begin) / sessions:.0f} s a session)", outcomes, limits)


def simulated(sessions: int) -> None:
    """Sessions whose truth is known, on noise that both contestants share but for 2 % a round."""
    rng = np.random.default_rng(0)
    for noise, phi in NOISE.items():
        for truth, limits in ((1.0, (1.1, 0.9, 1.0)), (1.1, (1.0, 1.1)), (1.03, (1.0,))):
            for limit in limits:
                counted = Counter(_simulated_verdict(rng, truth, limit, phi) for _ in range(sessions))
                said = ", ".join(f"{counted[verdict]} {verdict}" for verdict in ("pass", "fail", "inconclusive"))
                print(f"{noise} noise, true ratio {truth:g}, limit {limit:g}: {said} of {sessions}", flush=True)


def _simulated_verdict(rng: np.random.Generator, truth: float, limit: float, phi: float) -> str:
    logs = {name: _noise(rng, phi) for name in ("shared", "student", "baseline", "first", "again")}
    times = {
        name: np.exp(
            0.2 * logs["shared"][:, None] + 0.02 * logs[name][:, None] + 0.02 * rng.normal(size=(LOOKS[-1], 6))
        )
        for name in ("student", "baseline", "first", "again")
    }
    times["student"] *= truth
    for look, rounds in enumerate(LOOKS, start=1):
        confidence = look_confidence(look)
        blocks = {name: {number: list(row) for number, row in enumerate(t[:rounds])} for name, t in times.items()}
        aa = paired_ratio(blocks["again"], blocks["first"], confidence)
        ratio = widen(paired_ratio(blocks["student"], blocks["baseline"], confidence), aa)
        verdict = judge(ratio.low, ratio.high, limit, at_most=True)
        if verdict != "inconclusive":
            return verdict
    return "inconclusive"


def _noise(rng: np.random.Generator, phi: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """A first-order autoregressive series of unit variance [rounds]."""
    shocks = rng.normal(size=LOOKS[-1]) * (1 - phi**2) ** 0.5
    values = np.empty(LOOKS[-1])
    values[0] = rng.normal()
    for index in range(1, LOOKS[-1]):
        values[index] = phi * values[index - 1] + shocks[index]
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("simulated", "real"))
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--ties", type=int, default=40)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=15.0, help="for the rounds of a session")
    parser.add_argument("--hogs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.what == "simulated":
        simulated(given.sessions)
    else:
        real(given.ties, given.each, given.seconds, given.hogs, given.threads)


if __name__ == "__main__":
    main()
