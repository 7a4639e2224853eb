"""Is a run that was killed and resumed the run that never stopped? Whole processes, SIGKILL at random moments.

    python -m benchmarks.kills [--runs 20] [--cache-runs 5] [--seed 0]

Trains a tiny student on part of scikit-learn's digits: once whole, then RUNS times with a kill at a random moment of
what is left, again and again until a run comes to its end by itself (three kills at most), always with --resume. Then
CACHE-RUNS times with a kill while the teacher's answers are being written, into a cache of its own each time. Compares
the students byte by byte; exit code 1 where one differs.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMON = ["--data", "digits", "--input-size", "16", "--quiet", "--set", "crop_pct=1.0"]
KILLS = 3


def kdc(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "compressor", *map(str, arguments)]


def command(work: Path, name: str, cache: object) -> list[str]:
    """A distillation of a few seconds, whose answers are kept from the third epoch on."""
    return kdc(
        "distill", "--teacher", f"run:{work / 'teacher'}", "--student", "timm:test_efficientnet",
        "--student-init", "random", "--epochs", 6, "--batch-size", 64, "--set", "views.distinct=2", *COMMON,
        "--out", work / name, "--teacher-cache", cache,
    )  # fmt: skip


def killed_until_done(line: list[str], out: Path, whole_s: float, chance: random.Random) -> int:
    """Run `line`, kill it at a random moment, resume, and so on; how often it was killed before it ended."""
    for kills in range(KILLS + 1):
        resume = ["--resume"] if (out / "run.json").exists() else []
        process = subprocess.Popen([*line, *resume], stdout=subprocess.DEVNULL)
        if kills < KILLS:
            try:
                process.wait(timeout=chance.uniform(0.1, 1.0) * whole_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            return kills
        if process.returncode != -signal.SIGKILL:
            sys.exit(f"{' '.join(line)} ended with {process.returncode}")
    raise AssertionError("the last one is not killed")


def kill_while_filling(line: list[str], cache: Path, chance: random.Random) -> None:
    """Start `line`, and kill it a moment after the records are there."""
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL)
    while not list(cache.glob("*/key.json")):
        if process.poll() is not None:
            sys.exit(f"{' '.join(line)} ended with {process.returncode} before it could be killed")
        time.sleep(0.01)
    time.sleep(chance.uniform(0.0, 1.0))
    process.send_signal(signal.SIGKILL)
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--cache-runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    os.environ["OMP_NUM_THREADS"] = "1"
    work = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        teach = kdc("teach", "--teacher", "timm:test_resnet", "--teacher-init", "random", "--epochs", 4, *COMMON)
        subprocess.run([*teach, "--out", work / "teacher"], check=True)
        begin = time.monotonic()
        subprocess.run(command(work, "whole", work / "cache"), check=True)
        whole_s = time.monotonic() - begin
        expected = (work / "whole" / "student.safetensors").read_bytes()
        print(f"never stopped: {whole_s:.1f} s", flush=True)
        equal = kills = 0
        for number in range(given.runs):
            out, cache = work / f"run{number}", work / "cache" if number % 2 else work / f"cache{number}"
            count = killed_until_done(command(work, out.name, cache), out, whole_s, chance)
            equal += (out / "student.safetensors").read_bytes() == expected
            kills += count
        print(
            f"{given.runs} runs, {kills} kills: {equal} students are byte for byte the one that never stopped",
            flush=True,
        )
        filled = 0
        for number in range(given.cache_runs):
            out, cache = work / f"filling{number}", work / f"filling-cache{number}"
            line = command(work, out.name, cache)
            kill_while_filling(line, cache, chance)
            subprocess.run(
                [*line, *(["--resume"] if (out / "run.json").exists() else [])], check=True, stdout=subprocess.DEVNULL
            )
            filled += (out / "student.safetensors").read_bytes() == expected
        print(f"{given.cache_runs} killed while answers were written: {filled} students are the same")
        sys.exit(0 if (equal, filled) == (given.runs, given.cache_runs) else 1)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
