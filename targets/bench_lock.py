"""One measurement at a time on a machine: two at once would measure one another.

The lock is an flock on a file in the folder for temporary files. It belongs to the process and ends with it, however
that ends, so it is never stale. Standard library only; runs on Python 3.9 and later. Used by bench.py.
"""

from __future__ import annotations

import importlib
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.bench_plan import BusyError
else:
    from bench_plan import BusyError

fcntl: Any
try:
    fcntl = importlib.import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

NAME = "kdc-bench.lock"
POLL_SECONDS = 0.2
REMIND_SECONDS = 60.0  # also how soon a waiting measurement notices that nobody listens any more
ATTEMPTS = 10


@dataclass(frozen=True)
class Hold:
    """`waited_s`: for the measurement before to end. `alone`: the lock is held, so that there is no other one."""

    waited_s: float
    alone: bool


@contextmanager
def machine_lock(wait: float, note: Callable[[str], None]) -> Iterator[Hold]:
    """Holds the machine for this measurement; waits up to `wait` seconds for another one to end, then BusyError."""
    handle = _open(note)
    if handle is None:
        yield Hold(0.0, alone=False)
        return
    try:
        yield _acquire(handle, wait, note)
    finally:
        os.close(handle)  # this releases the lock. The file stays: removing it would part those who wait for it


def _open(note: Callable[[str], None]) -> int | None:
    """A descriptor of the lock's file, readable at least; None, and a note, where this system gives none."""
    without = "two measurements at once on this machine would not notice each other"
    if fcntl is None:
        note(f"there are no file locks here: {without}")
        return None
    try:
        return _descriptor(Path(tempfile.gettempdir()) / NAME)
    except OSError as error:
        note(f"{NAME} cannot be used ({error.strerror}): {without}")
        return None


def _descriptor(path: Path) -> int:
    # Others' files in /tmp may be opened, but not with O_CREAT (fs.protected_regular). Reading is enough for flock.
    # O_NOFOLLOW and O_NONBLOCK: somebody may have put a link or a pipe there.
    careful = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for _ in range(ATTEMPTS):
        try:
            handle = os.open(path, os.O_RDONLY | careful)
        except FileNotFoundError:
            try:
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | careful, 0o644)
                os.fchmod(handle, 0o644)  # whatever the umask: other users' measurements have to read it
            except FileExistsError:  # another one was quicker
                continue
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
        break
    raise OSError(0, "it is no file")


def _acquire(handle: int, wait: float, note: Callable[[str], None]) -> Hold:
    begin = time.monotonic()
    reminded = -REMIND_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            waited = time.monotonic() - begin
            return Hold(waited if reminded >= 0 else 0.0, alone=True)
        except BlockingIOError:
            waited = time.monotonic() - begin
        except OSError as error:
            note(f"{NAME} cannot be locked ({error.strerror}): two measurements at once would not notice each other")
            return Hold(0.0, alone=False)
        reason = f"another measurement runs on this machine{_holder(handle)}"
        if waited >= wait:
            raise BusyError(
                f"{reason} and did not end within {wait:.0f} s; try again, or let it wait longer with --wait"
            )
        if waited - reminded >= REMIND_SECONDS:
            note(f"{reason}; waiting up to {wait - waited:.0f} s")
            reminded = waited
        time.sleep(min(POLL_SECONDS, wait - waited))


def _holder(handle: int) -> str:
    """ " (process N)" from /proc/locks; "" where it does not tell, e.g. of another container."""
    wanted = str(os.fstat(handle).st_ino)
    try:
        rows = [line.split() for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return ""
    pids = {row[4] for row in rows if len(row) > 5 and row[1] == "FLOCK" and row[5].rpartition(":")[2] == wanted}
    return f" (process {pids.pop()})" if len(pids) == 1 and pids != {"0"} else ""
