"""Runner processes, and the contestants that live in them.

Standard library only; runs on Python 3.9 and later. Used by bench.py.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.bench_plan import BLOCK_DROPPED, BenchError, Entry, Plan
    from targets.runner_environment import runner_environment
else:
    from bench_plan import BLOCK_DROPPED, BenchError, Entry, Plan
    from runner_environment import runner_environment

ANSWER_SECONDS = 900.0  # a runner that has not answered by then is given up; predictions may take as long as they like
DISTINCT_INPUTS = 32  # that a model is timed on, so that no cache holds the answer
NO_FAULT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC)  # of the model's: the machine's


class RunnerError(Exception):
    """One contestant cannot go on; the others can. `kind`: the runner's own word for it, "" where it gave none."""

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class Runner:
    """One process of run_*.py. It ends with `close`, or with this process, whose pipe it reads."""

    def __init__(self, python: str, script: Path, bundle: Path) -> None:
        if not script.is_file():
            raise RunnerError(f"{script.name} does not lie beside bench.py")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (see close)
        self.began = time.perf_counter()
        try:
            # A session of its own: Ctrl-C in a terminal reaches bench.py alone, which then ends its runners in order.
            self._process = subprocess.Popen(
                [python, str(script)],
                cwd=bundle,
                env=runner_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except OSError as error:
            self._errors.close()
            if error.errno in NO_FAULT:
                raise BenchError(f"cannot start a runner: {error.strerror}") from error
            raise RunnerError(f"cannot start {script.name} with {Path(python).name}: {error.strerror}") from error

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, op: str, limit: float | None = ANSWER_SECONDS, **fields: Any) -> dict[str, Any]:
        """The answer to one request; RunnerError where it refuses, dies, or is silent for `limit` seconds."""
        process = self._process
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
        except (OSError, ValueError, RecursionError):  # it closed its end, or wrote something else than an answer
            reply = None
        finally:
            if watchdog:
                watchdog.cancel()
        if not isinstance(reply, dict):
            silent = limit and time.monotonic() - begin >= limit
            raise RunnerError(f"no answer to {op} within {limit:.0f} s" if silent else self._last_words(op))
        if not reply.get("ok"):
            raise RunnerError(str(reply.get("message", "failed without a message")), str(reply.get("kind", "")))
        return reply

    def _last_words(self, op: str) -> str:
        self._process.kill()  # where it had not ended: what it wrote was no answer
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        ending = f"died (signal {-code})" if code < 0 else f"ended with exit code {code}"
        return f"its process {ending} during {op}" + (f": {lines[-1][:300]}" if lines else "")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # a request that was still buffered for a process that is gone
                if pipe is not None:
                    pipe.close()


class Contestant:
    """One artefact in the session. `record`: the noun Contestant, filled step by step. `runner`: the process that runs
    its blocks, None before and afterwards."""

    def __init__(self, entry: Entry, plan: Plan) -> None:
        self.name, self.variant, self.copy_of = entry.name, entry.variant, entry.copy_of
        self.plan = plan
        self.script = Path(__file__).resolve().parent / entry.variant["runner"]
        self.model: str = entry.variant["model"]  # another one, where it has to be built on this machine
        self.distinct = 0
        self.runner: Runner | None = None
        self.record: dict[str, Any] = {
            "variant": self.name,
            "copy_of": self.copy_of,
            "requested_precision": entry.variant["precision"],
            "threads": plan.threads,
        }

    @property
    def alive(self) -> bool:
        return "error" not in self.record

    def process(self) -> Runner:
        """A fresh process of its runner, for the caller to close."""
        return Runner(self.plan.python, self.script, self.plan.bundle)

    def load(self, runner: Runner, streams: int = 1, threads: int | None = None) -> dict[str, Any]:
        """Load the model in `runner` and hand over the inputs; the answer to `load`, with `distinct` inputs."""
        asked = {"model": self.model, "precision": self.variant["precision"], "streams": streams}
        loaded = runner.ask("load", threads=threads or self.plan.threads, **asked)
        return {**loaded, "distinct": self.feed(runner, self.plan.length)}

    def feed(self, runner: Runner, length: int | None = None) -> int:
        """Hand over the inputs, each of `length` tokens where that is stated and they vary; how many different ones."""
        stated = {"length": length} if length and self.variant.get("mask") else {}
        path = self.variant["inputs"]
        reply = runner.ask("inputs", path=path, distinct=DISTINCT_INPUTS, **stated, **self._preprocess())
        distinct: int = reply["distinct"]
        return distinct

    def start(self) -> None:
        """Start it a few times, one after the other; the last process stays and will run the blocks. So the time from
        a process's start to its first answer is known, and in which precision it computes: reading that may disturb
        a process, so one is asked that ends right afterwards."""
        self.record["artefact_sha256"] = self._read_files()
        starts = []
        for count in range(self.plan.fresh_starts):
            with closing(self.process()) as runner:
                starts.append(self._begin(runner)[0])
                if count == self.plan.fresh_starts - 1:
                    self.record["executed_precision"] = runner.ask("executed")["executed_precision"]
        self.runner = self.process()
        start, loaded = self._begin(self.runner)
        self.distinct = loaded["distinct"]
        for key in ("runtime_version", "idle_rss_mb"):
            self.record[key] = loaded[key]
        self.record["starts"] = [*starts, start]

    def _begin(self, runner: Runner) -> tuple[dict[str, float], dict[str, Any]]:
        """The noun Start of a process that was just started, and its answer to `load`."""
        loaded = self.load(runner)
        first_ms = runner.ask("first")["first_ms"]
        start_ms = (time.perf_counter() - runner.began) * 1000
        return {"start_ms": start_ms, "load_ms": loaded["load_ms"], "first_ms": first_ms}, loaded

    def _read_files(self) -> str | None:
        """One sha256 for the artefact's files, of the text that `sha256sum` prints for them; None where one cannot be
        read, of which load says what is wrong. So every start finds them in the page cache, the first one too."""
        lines = []
        try:
            for entry in self.variant.get("files", ()):
                digest = hashlib.sha256()
                with (self.plan.bundle / entry["path"]).open("rb") as file:
                    for chunk in iter(lambda file=file: file.read(1 << 20), b""):  # type: ignore[misc]
                        digest.update(chunk)
                lines.append(f"{digest.hexdigest()}  {entry['path']}\n")
        except OSError:
            return None
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """An answer of the process that runs the blocks."""
        assert self.runner is not None
        return self.runner.ask(op, **fields)

    def block(self, number: int) -> dict[str, Any]:
        """The times of one block in round `number`."""
        times = self.ask("block", n=self.plan.block_length)
        wall, cpu = times["wall_ms"], times["cpu_ms"][BLOCK_DROPPED:]
        return {"dropped_ms": wall[:BLOCK_DROPPED], "wall_ms": wall[BLOCK_DROPPED:], "cpu_ms": cpu}

    def predict(self, out: Path) -> None:
        """Write the logits of all the inputs to `out`, in a fresh process."""
        asked = {"inputs": self.variant["inputs"], "out": os.fspath(out), **self._preprocess()}
        with closing(self.process()) as runner:
            self.load(runner)
            try:
                runner.ask("predict", limit=None, **asked)
            except RunnerError as error:
                if error.kind == "disk":
                    raise BenchError(f"cannot write the logits: {error}") from error
                raise

    def profile(self, out: Path) -> None:
        """Write to `out` how long each of the model's layers takes, in a fresh process: its latency is not judged."""
        with closing(self.process()) as runner:
            self.load(runner)
            reply = runner.ask("profile", n=self.plan.explain)
        told = {key: reply[key] for key in ("profiler", "each", "calls_ms", "nodes")}
        try:
            out.write_text(json.dumps(told, allow_nan=False) + "\n", encoding="utf-8")
        except OSError as error:
            raise BenchError(f"cannot write the times of layers: {error.strerror}") from error

    def _preprocess(self) -> dict[str, Any]:
        preprocess = self.variant["preprocess"]
        normalization = {key: preprocess[key] for key in ("mean", "std") if isinstance(preprocess.get(key), list)}
        mask = {"mask": self.variant["mask"]} if self.variant.get("mask") else {}
        return {**normalization, **mask, "batch": self.plan.batch}

    def fail(self, reason: str) -> None:
        """Keep why it cannot run, and nothing else of it: half a record would be taken for a measurement."""
        self.end()
        kept = ("variant", "copy_of", "requested_precision", "threads")
        self.record = {key: self.record[key] for key in kept}
        self.record["error"] = reason

    def end(self) -> None:
        if self.runner is not None:
            self.runner.close()
            self.runner = None
