"""The process at this end of the pipe to a device: ssh, adb, or an interpreter on this machine."""

import io
import os
import subprocess
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from compressor.errors import EXIT_INCONCLUSIVE, KdcError
from compressor.files.reading import json_value

__all__ = ["LostConnection", "Pipe", "PipeError", "as_object", "end_pipes_of"]

SAID = 8000  # of what the program said on stderr: the last bytes
MOST_LINE = 4_000_000  # bytes of one event; those of a bundle with hundreds of variants take a tenth
GOODBYE_S = 15.0  # for the device to tidy up. Longer than its agent waits for bench.py

_open: set["Pipe"] = set()
_opening = threading.Lock()


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
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._said = b""
        self.thread = threading.get_ident()
        with _opening:
            _open.add(self)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        """Keep the last of stderr, however much comes."""
        assert self.process.stderr is not None
        with suppress(OSError, ValueError), self.process.stderr as errors:
            while part := os.read(errors.fileno(), 1 << 16):
                self._said = (self._said + part)[-SAID:]

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(data)
            self.process.stdin.flush()
        except OSError:
            raise self._ended() from None

    def line(self) -> bytes:
        assert self.process.stdout is not None
        line = self.process.stdout.readline(MOST_LINE)
        if not line.endswith(b"\n"):
            if len(line) == MOST_LINE:
                self.process.kill()  # what says such things is not waited for
                raise KdcError(f"a line of more than {MOST_LINE // 1_000_000} MB came, where an event was expected")
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
        # Not until its end: an ssh that stays in the background to share its connection holds the pipe open.
        self._listener.join(1.0 if self.process.poll() is not None else 0.0)
        return self._said.decode("utf-8", "replace")

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
        with _opening:
            _open.discard(self)
        if self.process.stdin is None or self.process.stdin.closed:
            return
        with suppress(OSError):  # what was still buffered for a process that is gone
            self.process.stdin.close()
        drain = threading.Thread(target=self._drain, daemon=True)
        drain.start()
        try:
            self.process.wait(GOODBYE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
        # Once it has ended, a grandchild that still holds its pipes is not waited for.
        drain.join(1.0)
        self._listener.join(1.0)

    def _drain(self) -> None:
        assert isinstance(self.process.stdout, io.BufferedReader)
        with suppress(OSError, ValueError), self.process.stdout as output:
            while output.read1(1 << 16):
                pass


def end_pipes_of(threads: Collection[int | None]) -> None:
    """End the processes whose pipes these threads have opened: who waits for a word of one sees its end."""
    with _opening:
        pipes = [pipe for pipe in _open if pipe.thread in threads]
    for pipe in pipes:
        with suppress(OSError):
            pipe.process.terminate()


def as_object(line: bytes) -> dict[str, Any] | None:
    """The JSON object that `line` holds; None where it holds none."""
    try:
        value = json_value(line, "an event")
    except KdcError:
        return None
    return value if isinstance(value, dict) else None
