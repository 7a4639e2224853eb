"""The process at this end of the pipe to a device: ssh, adb, or an interpreter on this machine."""

import json
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from compressor.errors import EXIT_INCONCLUSIVE, KdcError

__all__ = ["LostConnection", "Pipe", "PipeError", "as_object"]

SAID = 8000  # of what the program said on stderr: the last bytes
GOODBYE_S = 15.0  # for the device to tidy up. Longer than its agent waits for bench.py


class PipeError(Exception):
    """The process ended by itself: `code`, and the last of what it `said` on stderr."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(f"exit code {code}: {said}")
        self.code = code
        self.said = said


class LostConnection(KdcError):  # noqa: N818  (what happened is no error of anybody's)
    """The pipe ended in the middle of a session. What the device sent before is good; the device tidies up itself."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, EXIT_INCONCLUSIVE)


class Pipe:
    """A process and its two pipes. What it says on stderr (banners, warnings) is kept for messages and shown to nobody.

    A session of its own: Ctrl-C in a terminal reaches kdc alone, which then lets the device tidy up before it hangs up.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """`environment`: None for this process's own, which the user's ssh or adb needs."""
        # A file and no pipe: an ssh that stays in the background to share its connection would hold a pipe open.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the process that writes to it)
        try:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,
            )
        except BaseException:
            self._errors.close()
            raise

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except OSError:
            raise self._ended() from None

    def line(self) -> bytes:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._ended()
        return line

    def read(self, size: int) -> bytes:
        assert self.process.stdout is not None
        data = self.process.stdout.read(size)
        if len(data) < size:
            raise self._ended()
        return data

    def said(self) -> str:
        """The last of what the process said on stderr."""
        size = self._errors.seek(0, 2)
        self._errors.seek(max(0, size - SAID))
        return self._errors.read().decode("utf-8", "replace")

    def _ended(self) -> PipeError:
        try:
            code = self.process.wait(GOODBYE_S)
        except subprocess.TimeoutExpired:  # it closed its stdout and lives on
            self.process.kill()
            code = self.process.wait()
        return PipeError(code, self.said())

    def __enter__(self) -> "Pipe":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        """The other side sees the end of its stdin, tidies up, and ends; what it still says is read away."""
        if self._errors.closed:
            return
        deadline = time.monotonic() + GOODBYE_S
        try:
            # In small steps: once it has ended, a grandchild that still holds its stdout is not waited for.
            while self.process.poll() is None and time.monotonic() < deadline:
                with suppress(subprocess.TimeoutExpired):
                    self.process.communicate(timeout=0.2)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            for end in (self.process.stdin, self.process.stdout, self._errors):
                with suppress(OSError):  # what was still buffered for a process that is gone
                    if end is not None:
                        end.close()


def as_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object that `line` holds; None where it holds none."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
