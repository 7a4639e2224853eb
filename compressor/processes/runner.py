"""One runner of targets/ as a process of this machine, asked one request at a time.

For choosing on validation data while a bundle is made, and for asking a runtime what works here. Latency is never
measured through it: that is bench.py's, which runs the contestants side by side.
"""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from compressor.assets import asset_dir
from compressor.errors import EXIT_MISSING, EXIT_USAGE, KdcError, os_error
from compressor.processes.child_environment import child_environment
from compressor.runtimes import Runtime, runtime_for

__all__ = ["Runner", "RunnerDiedError", "RunnerError", "open_runner"]

ANSWER_S = 900.0
"""What any request may take, as bench.py waits too: a runtime imported from a slow disk, a model compiled for the
device."""
PIXEL_S = 20e-6
"""What each pixel of the images may take beside that: 1 s an image of 224 px, many times what a student needs on one
slow core. A hang is an endless wait otherwise; a limit that is too short would throw away an hour's work."""


ENDING_S = 5.0
"""What a process that has closed its end may take to be gone, so that it is known how it ended."""


class RunnerError(KdcError):
    """The runner refused a request, or ended. `kind`: its own word for why, "" where it ended without one."""

    def __init__(self, message: str, kind: str, hint: str = "") -> None:
        super().__init__(message, hint, EXIT_MISSING if kind == "missing" else EXIT_USAGE)
        self.kind = kind


class RunnerDiedError(RunnerError):
    """Its process died by a signal: a fault of the runtime's, or of the machine's."""


class Runner:
    """A running process: the runner of `runtime`."""

    def __init__(self, process: "subprocess.Popen[str]", errors: IO[bytes], runtime: Runtime) -> None:
        self._process, self._errors, self._runtime = process, errors, runtime
        self._ended = False  # by this process

    def ask(self, op: str, pixels: int = 0, /, **fields: Any) -> dict[str, Any]:
        """The reply to a request, without `ok`. `pixels`: of all the images that it has to go through.

        Raises RunnerError for a refusal, and where no answer comes in time: then the process is ended.
        """
        limit = ANSWER_S + pixels * PIXEL_S
        with self._ended_after(limit) as late:
            line = self._say(json.dumps({"op": op, **fields}))
        if late.is_set():
            raise RunnerError(
                f"{self._runtime.name}: {self._runtime.runner} did not answer {op} within {limit:g} s", ""
            )
        reply = self._read(line)
        if reply.pop("ok") is not True:
            kind, said = str(reply.get("kind", "")), str(reply.get("message", "it gave no reason"))
            # "pip install … (cannot import …)": the hint has the install line already.
            reason = said[said.find("(") + 1 :].removesuffix(")") if kind == "missing" else said
            hint = self._runtime.install if kind == "missing" else ""
            raise RunnerError(f"{self._runtime.name}: {reason}", kind, hint)
        return reply

    @contextmanager
    def _ended_after(self, limit: float) -> Iterator[threading.Event]:
        """The process is killed where the inside takes longer, and the event is set: whoever reads its answer then
        reads the end of it. A timer, since a pipe cannot be read with a time limit on every system."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self._ended = True
            self._process.kill()

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()

    def _say(self, request: str) -> str:
        """The line that the process answers; "" where it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
            return self._process.stdout.readline()
        except OSError:
            return ""

    def _read(self, line: str) -> dict[str, Any]:
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict) or "ok" not in reply:
            code, said = self._end(silent=not line)
            if code < 0 and not line and not self._ended:
                ending = f"its process died (signal {-code})"
                raise RunnerDiedError(f"{self._runtime.name}: {ending}{f': {said}' if said else ''}", "")
            said = said or f"exit status {code}, without a word"
            raise RunnerError(f"{self._runtime.name}: its runner ended: {said}", "")
        return reply

    def _end(self, silent: bool) -> tuple[int, str]:
        """How the process ended, which is ended here where it has not (`silent`: it says nothing any more), and its
        last words."""
        if silent:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDING_S)
        self._process.kill()
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        said = [" ".join(line.split()) for line in lines if line.strip()]
        return code, said[-1] if said else ""


@contextmanager
def open_runner(runtime: str, folder: Path | None = None) -> Iterator[Runner]:
    """The runner of `runtime` in a fresh interpreter; `folder` is where its relative paths begin."""
    row = runtime_for(runtime, "kdc")
    command = [sys.executable, str(asset_dir("targets") / row.runner)]
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=folder, encoding="utf-8",
                env=child_environment(),
            )  # fmt: skip
        except OSError as error:
            raise os_error(error, f"starting targets/{row.runner}") from error
        try:
            yield Runner(process, errors, row)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # a request that nobody read any more
                        pipe.close()
