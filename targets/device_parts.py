"""Of device_agent.py: the pipe to kdc, child processes, and the folders that sessions left behind.

Standard library only; POSIX; runs on Python 3.9 and later.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

OWNER = ".owner"  # in a session's folder; locked as long as its agent lives
CHUNK = 1 << 18
LINE_LIMIT = 1 << 20
SAID = 4000  # of a child's stderr: the last bytes
END_SECONDS = 10.0  # for bench.py to end its runners, before it is killed
NEW_SECONDS = 60.0  # a folder without an owner that is younger than that is being made just now
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HUNG_UP = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)


class Gone(BaseException):
    """kdc is gone, or this process was told to end. Nobody waits for an answer."""


class RequestError(Exception):
    """A request that cannot be answered; `kind` is "disk", "failed" or "bad-request"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def leave() -> Gone:
    """To be raised. From here on signals are ignored: what is left is tidying up, and it shall not stop half-way."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    return Gone()


def stop(number: int, frame: object) -> None:
    raise leave()


def take(size: int) -> bytes:
    """At least one byte and at most `size` of stdin, never more: what follows may be bench.py's."""
    data = os.read(0, size)
    if not data:
        raise leave()
    return data


def read_line() -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        if len(line) > LINE_LIMIT:
            raise leave()
        line += take(1)
    return bytes(line)


def send(data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(1, view) :]
    except OSError:
        raise leave() from None


def tell(reply: dict[str, Any]) -> None:
    # On a line of its own, also where a bench.py that was killed left half a line behind.
    send(b"\n" + json.dumps(reply).encode() + b"\n")


def run(folder: Path, arguments: list[str], stdin: int, stdout: int, limit: float | None) -> tuple[int, str]:
    """Python with `arguments`, in `folder`: its exit code, and the end of what it said on stderr."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"},
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        start_new_session=True,  # its process group is its own, and can be ended as a whole
    )
    try:
        said = watch(process, limit)
    finally:
        end(process)
    return process.returncode, said


def end(process: subprocess.Popen[bytes]) -> None:
    """End a child in order, so that it ends its own children; then whatever is left of its process group."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stderr is not None:
        process.stderr.close()


def watch(process: subprocess.Popen[bytes], limit: float | None) -> str:
    """Wait until `process` ends, without reading stdin but with an eye on it; the end of what it said on stderr."""
    assert process.stderr is not None
    errors = process.stderr.fileno()
    os.set_blocking(errors, False)
    poll = select.poll()
    poll.register(0, HUNG_UP)
    poll.register(errors, select.POLLIN)
    deadline = time.monotonic() + limit if limit else None
    said, patience = b"", 1000
    while True:
        for handle, event in poll.poll(patience):
            if handle == 0 and event & HUNG_UP:
                raise leave()
        data = drain(errors)
        if data is None:  # it has ended, or is just about to
            with suppress(KeyError):
                poll.unregister(errors)
            patience = 20
        said = (said + (data or b""))[-SAID:]
        if process.poll() is not None:
            return (said + (drain(errors) or b""))[-SAID:].decode("utf-8", "replace")
        if deadline is not None and time.monotonic() > deadline:
            raise RequestError("failed", f"no answer within {limit:g} s")


def drain(handle: int) -> bytes | None:
    """What can be read without waiting; None at the end."""
    try:
        return os.read(handle, CHUNK) or None
    except BlockingIOError:
        return b""


def parse(text: str) -> Any:
    """The JSON value that `text` holds: all of it, or its first line; None where there is none."""
    for part in (text, text.partition("\n")[0]):
        with suppress(ValueError, RecursionError):
            return json.loads(part)
    return None


def sweep(left: Path, token: str) -> None:
    """Remove a session's folder that is this user's and whose agent is gone. One with the same `token` is the same
    kdc's, from before its connection was lost: the device may not have noticed yet, so its agent is told to end."""
    info = left.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        return
    try:
        lock = os.open(left / OWNER, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        if time.time() - info.st_mtime > NEW_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
        return
    try:
        if not locked(lock):
            owner: Any = parse(os.read(lock, CHUNK).decode("utf-8", "replace"))
            if not isinstance(owner, dict) or owner.get("token") != token or not token:
                return
            os.kill(int(owner["pid"]), signal.SIGTERM)
            deadline = time.monotonic() + 2 * END_SECONDS
            while not locked(lock) and time.monotonic() < deadline:
                time.sleep(0.05)
        else:
            shutil.rmtree(left, ignore_errors=True)
    finally:
        os.close(lock)


def locked(handle: int) -> bool:
    """Whether nobody held the lock; then this process does."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
