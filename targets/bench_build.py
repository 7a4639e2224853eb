"""Models that can only be made where they run: build_*.py makes them before anything is loaded.

Standard library only; runs on Python 3.9 and later. Used by bench.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.bench_plan import Plan
    from targets.bench_rounds import attempt
    from targets.bench_runner import Contestant, RunnerError
    from targets.bench_tell import Teller
    from targets.runner_environment import runner_environment
else:
    from bench_plan import Plan
    from bench_rounds import attempt
    from bench_runner import Contestant, RunnerError
    from bench_tell import Teller
    from runner_environment import runner_environment

BUILD_SECONDS = 3600.0  # a Jetson tries thousands of kernels, and takes minutes for a small network


@contextmanager
def built_models(contestants: list[Contestant], plan: Plan, folder: Path, teller: Teller) -> Iterator[None]:
    """Build what has to be built, into a folder in `folder` that is gone afterwards: the bundle stays as it was sealed.
    A contestant whose model cannot be built is out. A copy loads the engine of its original, so that they differ in
    nothing."""
    originals = [
        contestant for contestant in contestants if contestant.variant.get("build") and contestant.copy_of is None
    ]
    if not originals:
        yield
        return
    with tempfile.TemporaryDirectory(prefix=".kdc-tmp.built-", dir=folder) as temporary:
        for count, contestant in enumerate(originals, 1):
            with attempt(contestant, teller):
                contestant.model = os.fspath(build(contestant, plan, Path(temporary), teller))
            for copy in (candidate for candidate in contestants if candidate.copy_of == contestant.name):
                copy.model = contestant.model
                if not contestant.alive:
                    copy.fail(contestant.record["error"])
            teller.step("building", count, len(originals), contestant.name)
        yield


def build(contestant: Contestant, plan: Plan, folder: Path, teller: Teller) -> Path:
    """The file that build_*.py makes of the contestant's model; RunnerError, with its last words, where it does not."""
    variant = contestant.variant
    script = contestant.script.with_name(variant["build"])
    if not script.is_file():
        raise RunnerError(f"{script.name} does not lie beside bench.py")
    out = folder / f"{contestant.name}.engine"
    command = [plan.python, str(script), variant["model"], "--out", str(out), "--runtime", variant["runtime"]]
    command += ["--batch", str(plan.batch), "--json"]
    try:
        # In this process's group, unlike a runner: nothing but a signal ends it, and Ctrl-C shall.
        done = subprocess.run(
            command,
            cwd=plan.bundle,
            env=runner_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise RunnerError(f"{script.name} was not done within {BUILD_SECONDS:.0f} s") from error
    except OSError as error:
        raise RunnerError(f"cannot start {script.name} with {Path(plan.python).name}: {error.strerror}") from error
    if done.returncode or not out.is_file():
        raise RunnerError(last_words(done))
    teller.note(f"{contestant.name}: built on this machine{figures(done.stdout)}")
    return out


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [" ".join(line.split()) for line in done.stderr.splitlines() if line.strip()]
    ending = f"its process died (signal {-done.returncode})" if done.returncode < 0 else f"exit code {done.returncode}"
    return lines[-1][:500] if lines else f"the model was not built: {ending}, without a word"


def figures(answer: str) -> str:
    """What the script tells of it, for people: " in 93.1 s, 4.20 MB, tensorrt 10.3.0"; nothing where it tells less."""
    try:
        told: Any = json.loads(answer)
        size = f"{told['engine_bytes'] / 1e6:.2f} MB"
        return f" in {told['seconds']:.1f} s, {size}, {told['runtime']} {told['version']}"
    except (ValueError, TypeError, KeyError):
        return ""
