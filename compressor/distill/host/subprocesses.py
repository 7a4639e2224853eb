"""Trainings in processes of their own, so many at a time: started, watched, and stopped with their states saved."""

import ctypes
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from compressor.distill.loop.interrupt import stop_requests
from compressor.errors import EXIT_USAGE, KdcError, os_error
from compressor.files.locks import locked
from compressor.processes.cores import usable_cores
from compressor.progress import Progress

__all__ = ["Child", "train_in_processes"]

LOOK_EVERY_S = 0.2
SAVING_S = 60.0
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

ATTEMPT = "---- started"
"""Begins a line of a log: what follows was said by this start of the training, not by an earlier one."""


@dataclass(frozen=True)
class Child:
    """A training to be started. `name`: for people; `command`: its arguments; `out`: its run; `log`: what it says."""

    name: str
    command: tuple[str, ...]
    out: Path
    log: Path
    epochs: int

    @property
    def finished(self) -> bool:
        return (self.out / "student.json").is_file()

    @property
    def epochs_done(self) -> int:
        try:
            return len((self.out / "history.jsonl").read_text(encoding="utf-8").splitlines())
        except OSError:
            return 0


def train_in_processes(children: Sequence[Child], at_once: int, progress: Progress) -> None:
    """Train what is not finished yet; what has a state goes on from there (the command gets --resume).

    Each gets its share of the cores as threads. On an interruption, or where one fails, the others are asked to stop,
    and save their states. Raises KdcError that names the log of the one that failed.

    On Linux they are also asked to stop where this process ends without a word (SIGKILL; or the thread that calls this,
    were it not the main one). Elsewhere they then train on, and must be ended by hand before --resume.
    """
    waiting, running = deque(child for child in children if not child.finished), dict[str, subprocess.Popen[bytes]]()
    for child in children:
        if child.finished:
            progress.note(f"{child.name} is finished already")
    environment = {**os.environ}
    share = max(1, usable_cores() // max(1, min(at_once, len(waiting))))
    environment.setdefault("OMP_NUM_THREADS", str(share))
    by_name = {child.name: child for child in children}
    total = sum(child.epochs for child in children)
    try:
        # A flag: an exception amid the start of a child would leave that one running, unknown to us.
        with stop_requests() as asked:
            while waiting or running:
                while waiting and len(running) < at_once and not asked():
                    child = waiting.popleft()
                    running[child.name] = _started(child, environment)
                    progress.note(f"{child.name} trains; its log: {child.log}")
                for name, process in list(running.items()):
                    if process.poll() is not None:
                        del running[name]
                        _ended(by_name[name], process.returncode, progress)
                progress.at("epochs in all", sum(child.epochs_done for child in children), total)
                time.sleep(LOOK_EVERY_S)
                if asked():
                    raise KeyboardInterrupt
    except BaseException:
        progress.end()
        _stop(list(running.values()))
        raise
    progress.end()


def _started(child: Child, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    # Where the command before was killed, its children still save their states.
    with locked(child.out, "kdc specialists", wait_s=SAVING_S):
        resume = ["--resume"] if (child.out / "run.json").is_file() else []
    try:
        child.log.parent.mkdir(parents=True, exist_ok=True)
        with child.log.open("ab") as log:
            log.write(f"{ATTEMPT} {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
            log.flush()
            # A session of its own: the terminal's Ctrl-C is for us alone, who then ask each once. Two in a row would
            # stop it before its state is saved.
            return subprocess.Popen(
                [*child.command, *resume], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env=dict(environment), start_new_session=True, preexec_fn=_ends_with(os.getpid()),
            )  # fmt: skip
    except OSError as error:
        raise os_error(error, f"starting {child.name}") from error


def _ends_with(parent: int) -> Callable[[], None] | None:
    """For a new process, before its program begins: SIGTERM is to reach it when `parent` ends (prctl(2)), so that it
    saves its state and nothing writes to its run any more. None where the system has no such thing."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: as little as possible happens between fork and exec

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it ended before that
            os.kill(os.getpid(), signal.SIGKILL)

    return ask


def _ended(child: Child, code: int, progress: Progress) -> None:
    if code == 0 and child.finished:
        row = json.loads((child.out / "student.json").read_text(encoding="utf-8"))["validation"]
        progress.note(f"{child.name} is finished: validation accuracy {row['accuracy']:.2%}, n={row['n']}")
        return
    lines = child.log.read_text(encoding="utf-8", errors="replace").splitlines() if child.log.is_file() else []
    last_attempt = itertools.takewhile(lambda line: not line.startswith(ATTEMPT), reversed(lines))
    said = next((line for line in last_attempt if line.startswith("kdc: error: ")), "")
    reason = said.removeprefix("kdc: error: ") or f"it ended with exit code {code}"
    raise KdcError(
        f"{child.name} failed: {reason}; its log: {child.log}",
        "mend it, then give the same command with --resume",
        code if code > EXIT_USAGE and code < 128 else EXIT_USAGE,
    )


def _stop(processes: "Sequence[subprocess.Popen[bytes]]") -> None:
    """Ask once and wait while states are saved. Another Ctrl-C stops them at once, and one more without a word."""
    try:
        with stop_requests([signal.SIGINT]) as insisted:
            _send(processes, signal.SIGTERM)
            while any(process.poll() is None for process in processes) and not insisted():
                time.sleep(LOOK_EVERY_S / 4)
            _send(processes, signal.SIGINT)
            for process in processes:
                process.wait()
    except KeyboardInterrupt:
        _send(processes, signal.SIGKILL)
        for process in processes:
            process.wait()


def _send(processes: "Sequence[subprocess.Popen[bytes]]", number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            process.send_signal(number)
