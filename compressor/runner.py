"""One runner of targets/ as a process of this machine, asked one request at a time.

For choosing on validation data while a bundle is made, and for asking a runtime what works here. Latency is never
measured through it: that is bench.py's, which runs the contestants side by side.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from compressor.assets import asset_dir
from compressor.errors import EXIT_MISSING, EXIT_USAGE, KdcError, os_error
from compressor.runtimes import runtime_for

__all__ = ["Runner", "RunnerError", "open_runner"]


class RunnerError(KdcError):
    """The runner refused a request, or ended. `kind`: its own word for why, "" where it ended without one."""

    def __init__(self, message: str, kind: str, hint: str = "") -> None:
        super().__init__(message, hint, EXIT_MISSING if kind == "missing" else EXIT_USAGE)
        self.kind = kind


class Runner:
    """A running process. `ask(op, **fields)` returns the reply, without `ok`; raises RunnerError for a refusal."""

    def __init__(self, process: "subprocess.Popen[str]", errors: IO[bytes], runtime: str, install: str) -> None:
        self._process, self._errors = process, errors
        self._runtime, self._install = runtime, install

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        reply = self._read(line)
        if reply.pop("ok") is not True:
            kind, said = str(reply.get("kind", "")), str(reply.get("message", "it gave no reason"))
            # "pip install … (cannot import …)": the hint has the install line already.
            reason = said[said.find("(") + 1 :].removesuffix(")") if kind == "missing" else said
            hint = self._install if kind == "missing" else ""
            raise RunnerError(f"{self._runtime}: {reason}", kind, hint)
        return reply

    def _read(self, line: str) -> dict[str, Any]:
        try:
            reply = json.loads(line)
        except ValueError:
            reply = None
        if not isinstance(reply, dict) or "ok" not in reply:
            raise RunnerError(f"{self._runtime}: its runner ended: {self._last_words()}", "")
        return reply

    def _last_words(self) -> str:
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        said = [" ".join(line.split()) for line in lines if line.strip()]
        code = self._process.returncode
        return said[-1] if said else f"exit status {code}, without a word"


@contextmanager
def open_runner(runtime: str, folder: Path | None = None) -> Iterator[Runner]:
    """The runner of `runtime` in a fresh interpreter; `folder` is where its relative paths begin."""
    row = runtime_for(runtime, "kdc")
    command = [sys.executable, str(asset_dir("targets") / row.runner)]
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=folder, encoding="utf-8"
            )
        except OSError as error:
            raise os_error(error, f"starting targets/{row.runner}") from error
        try:
            yield Runner(process, errors, runtime, row.install)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # a request that nobody read any more
                        pipe.close()
