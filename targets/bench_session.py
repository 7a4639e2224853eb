"""The parts of a measuring session: the plan, read from the bundle; the runner process of each contestant; and the
session's place on disk, with its lock.

Standard library only; runs on Python 3.9 and later. Used by bench.py.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 900.0  # a runner that has not answered by then is given up; predictions may take as long as they like
DISTINCT_INPUTS = 32  # that a model is timed on, so that no cache holds the answer
PUBLISHED = "measurement.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # of a variant: it becomes a file's name


class BenchError(Exception):
    """The bundle, the command or the place on disk is not in order: nothing can be measured."""


class RunnerError(Exception):
    """One contestant cannot go on. The others can."""


@dataclass(frozen=True)
class Plan:
    """What to measure and how long. `seconds` caps the latency rounds, once there are enough for a p90."""

    bundle: Path
    threads: int
    batch: int
    variants: list[dict[str, Any]]
    rounds: int
    seconds: float
    seed: int
    predict: bool
    python: str


def read_plan(args: argparse.Namespace) -> Plan:
    """The command line and BUNDLE/bundle.json together; BenchError where they are not in order."""
    path = Path(args.bundle) / "bundle.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["schema"] != 1:
            raise BenchError(f"{path} has schema {manifest['schema']}, this script reads schema 1")
        profile, variants = manifest["profile"], manifest["variants"]
        threads, batch = int(profile["threads"]), int(profile["batch"])
        for variant in variants:
            _check(variant, path)
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise BenchError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    names = [variant["name"] for variant in variants]
    if not names or len(set(names)) != len(names):
        raise BenchError(f"{path} is damaged: it needs variants with names that differ, found {names}")
    unknown = [name for name in args.variant or [] if name not in names]
    if unknown:
        raise BenchError(f"{path} has no variant {unknown[0]}; it has: {', '.join(names)}")
    chosen = [variant for variant in variants if not args.variant or variant["name"] in args.variant]
    bundle = path.parent.resolve()
    return Plan(bundle, threads, batch, chosen, args.rounds, args.seconds, args.seed, not args.no_predict, args.python)


def _check(variant: dict[str, Any], path: Path) -> None:
    for key in ("name", "precision", "runner", "model", "inputs"):
        if not isinstance(variant[key], str):
            raise BenchError(f"{path} is damaged: variants[].{key} is not a text")
    if not NAME.fullmatch(variant["name"]):
        raise BenchError(f"{path}: the variant name {variant['name']!r} may have only letters, digits, . _ and -")
    if not re.fullmatch(r"run_\w+\.py", variant["runner"]):
        raise BenchError(f"{path}: variant {variant['name']}: a runner is run_*.py, found {variant['runner']!r}")
    preprocess = variant["preprocess"]
    if len(preprocess["mean"]) != 3 or len(preprocess["std"]) != 3:
        raise BenchError(f"{path}: variant {variant['name']}: preprocess needs three means and three deviations")


class Contestant:
    """One variant of the bundle in a runner process of its own. `record`: the noun Contestant, filled step by step."""

    def __init__(self, variant: dict[str, Any], threads: int, batch: int) -> None:
        self.variant = variant
        self.name = str(variant["name"])
        self.batch = batch
        self.distinct = 0
        self.record: dict[str, Any] = {
            "variant": self.name,
            "requested_precision": variant["precision"],
            "threads": threads,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process that writes to it)

    @property
    def alive(self) -> bool:
        return "error" not in self.record

    def start(self, python: str, script: Path, bundle: Path) -> None:
        try:
            # A session of its own: Ctrl-C in a terminal reaches bench.py alone, which then ends its runners in order.
            self._process = subprocess.Popen(
                [python, str(script)],
                cwd=bundle,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError as error:
            raise RunnerError(f"cannot start {script.name} with {Path(python).name}: {error.strerror}") from error

    def load(self) -> None:
        """Load the model, hand over the inputs, and run the first inference."""
        variant = self.variant
        loaded = self.ask(
            "load", model=variant["model"], threads=self.record["threads"], precision=variant["precision"]
        )
        for key in ("runtime_version", "executed_precision", "load_ms", "idle_rss_mb"):
            self.record[key] = loaded[key]
        inputs = self.ask("inputs", path=variant["inputs"], distinct=DISTINCT_INPUTS, **self._preprocess())
        self.distinct = inputs["distinct"]
        self.record["first_ms"] = self.ask("first")["first_ms"]

    def predict(self, out: Path) -> None:
        """Write the logits of all the inputs to `out`, a path inside the bundle: the runner works there."""
        self.ask("predict", limit=None, inputs=self.variant["inputs"], out=str(out), **self._preprocess())

    def _preprocess(self) -> dict[str, Any]:
        preprocess = self.variant["preprocess"]
        return {"mean": preprocess["mean"], "std": preprocess["std"], "batch": self.batch}

    def ask(self, op: str, limit: float | None = ANSWER_SECONDS, **fields: Any) -> dict[str, Any]:
        """The runner's answer to one request; RunnerError where it refuses, dies, or is silent for `limit` seconds."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = threading.Timer(limit, process.kill) if limit else None
        if watchdog:
            watchdog.daemon = True
            watchdog.start()
        begin = time.monotonic()
        try:
            process.stdin.write(json.dumps({"op": op, **fields}).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
            reply = json.loads(line) if line else None
        except (OSError, ValueError):  # it closed its end, or wrote something else than an answer
            reply = None
        finally:
            if watchdog:
                watchdog.cancel()
        if not isinstance(reply, dict):
            silent = limit and time.monotonic() - begin >= limit
            raise RunnerError(f"no answer to {op} within {limit:.0f} s" if silent else self._last_words(op))
        if not reply.get("ok"):
            raise RunnerError(f"{reply.get('message', 'failed without a message')}")
        return reply

    def _last_words(self, op: str) -> str:
        assert self._process is not None
        self._process.kill()  # where it had not ended: what it wrote was no answer
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return f"the runner {how} during {op}" + (f": {lines[-1][:300]}" if lines else "")

    def fail(self, reason: str) -> None:
        """Keep why it cannot run, and nothing else of it: half a record would be taken for a measurement."""
        self.end()
        kept = ("variant", "requested_precision", "threads")
        self.record = {key: self.record[key] for key in kept}
        self.record["error"] = reason

    def end(self) -> None:
        self._errors.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):  # a request that was still buffered for a process that is gone
                    if pipe is not None:
                        pipe.close()
            self._process = None


@contextmanager
def session_folder(bundle: Path) -> Iterator[Path]:
    """A folder in BUNDLE/measurements for a session's unfinished files, and the only session on that bundle meanwhile.
    Both are gone afterwards, whatever happened."""
    measurements = bundle / "measurements"
    lock = measurements / ".lock"
    try:
        measurements.mkdir(exist_ok=True)
        _take_lock(lock)
    except OSError as error:
        raise BenchError(f"cannot write to {measurements}: {error.strerror}") from error
    try:
        for left in measurements.glob(".session-*"):  # of a session that was killed
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=".session-", dir=measurements))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.unlink(missing_ok=True)


def _take_lock(lock: Path) -> None:
    """Create `lock` with this process's id in it. A lock whose process is gone is put aside, by a rename: of two
    sessions that find it at once, one succeeds."""
    for _ in range(2):
        try:
            handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            holder = _holder(lock)
            if holder is None or _runs(holder):
                who = f"process {holder}" if holder else "another process"
                raise BenchError(
                    f"{lock.parent.parent} is being measured by {who}; if that is not so, remove {lock}"
                ) from None
            stale = lock.with_name(f".lock.{os.getpid()}")
            lock.replace(stale).unlink(missing_ok=True)
            continue
        os.write(handle, str(os.getpid()).encode())
        os.close(handle)
        return
    raise BenchError(f"another session took {lock} at the same moment")


def _holder(lock: Path) -> int | None:
    try:
        return int(lock.read_text())
    except (OSError, ValueError):  # just created, or just removed
        return None


def _runs(process_id: int) -> bool:
    if os.name != "posix":  # on Windows os.kill(…, 0) is no question: it ends the process
        return True
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
