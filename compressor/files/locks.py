"""One command at a time writes a folder or a file: a lock that ends with its process, however that ends."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path

from compressor.errors import KdcError, os_error
from compressor.files.reading import json_value

__all__ = ["LOCK", "is_held", "is_lock", "locked"]

LOCK = ".kdc.lock"
"""In a folder that a command writes; beside a file, after its name. What a kill leaves of it locks nothing."""

NOBODY_KNOWN = "another command of kdc"

_held: dict[Path, int] = {}
"""What this process has locked, and how often: a command may be a part of another."""


def is_lock(name: str) -> bool:
    """Whether a file of that name is a lock of kdc's."""
    return name.endswith(LOCK) and name.startswith(".")


def is_held(folder: Path) -> bool:
    """Whether this very process has locked `folder`."""
    return folder.resolve() / LOCK in _held


@contextmanager
def locked(
    target: Path, command: str, *, file: bool = False, wait_s: float = 0.0, warn: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Inside, no other command of kdc writes `target`: a folder, which is made where it is missing, or a `file`.

    Args:
        target: what is to be written.
        command: the command that writes it, e.g. "kdc distill", to be named to others.
        wait_s: how long to wait for another command that writes it, in seconds.
        warn: told where the file system has no locks; then nothing is locked.

    Raises:
        KdcError: another command writes it, which is named with its process and machine.
    """
    lock = target.resolve().with_name(f".{target.resolve().name}{LOCK}") if file else target.resolve() / LOCK
    if lock in _held:
        _held[lock] += 1
        try:
            yield
        finally:
            _held[lock] -= 1
        return
    made = _make(lock.parent)
    handle = _acquired(lock, target, wait_s, warn)
    try:
        if handle is not None:
            _sign(handle, command)
        _held[lock] = 1
        yield
    finally:
        _held.pop(lock, None)
        if handle is not None:
            # Removed while it is held: who has opened it meanwhile sees that it is not the one in the folder any more.
            with suppress(OSError):
                if os.path.samestat(os.fstat(handle), lock.stat()):
                    lock.unlink()
            os.close(handle)
        for folder in made:
            with suppress(OSError):  # something lies in it: it stays
                folder.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make `folder`; returns what had to be made, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_error(error, f"making {folder}") from error
    return missing


def _acquired(lock: Path, target: Path, wait_s: float, warn: Callable[[str], None] | None) -> int | None:
    """The open lock file, locked; None where the file system has no locks."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return None
    until = time.monotonic() + max(wait_s, 0.5)  # who holds it may not have signed it yet
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileNotFoundError:  # who had it removed the folder too, which was empty
            _make(lock.parent)
            continue
        except OSError as error:
            raise os_error(error, f"locking {target}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.exists() and os.path.samestat(os.fstat(handle), lock.stat()):
                return handle
            os.close(handle)  # who had it removed it in between: try the new one
            continue
        except BlockingIOError:
            owner = _owner(handle)
            os.close(handle)
        except OSError as error:
            os.close(handle)
            if warn is not None:
                reason = error.strerror or error
                warn(f"{target} cannot be locked ({reason}): let no other command write it now")
            return None
        if time.monotonic() >= until or (not wait_s and owner != NOBODY_KNOWN):
            raise KdcError(
                f"{target} is being written by {owner}", "wait until that has ended, or write to another place"
            )
        time.sleep(0.1)


def _sign(handle: int, command: str) -> None:
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    owner = {"command": command, "pid": os.getpid(), "host": socket.gethostname(), "started": started}
    with suppress(OSError):  # a full disk: it is locked all the same
        os.truncate(handle, 0)
        os.pwrite(handle, json.dumps(owner).encode(), 0)


def _owner(handle: int) -> str:
    try:
        owner = json_value(os.pread(handle, 4096, 0), LOCK)
        command, pid, host, started = (str(owner[key])[:200] for key in ("command", "pid", "host", "started"))
        return f"{command} (process {pid} on {host}, since {started})"
    except (OSError, KdcError, ValueError, TypeError, LookupError):
        return NOBODY_KNOWN
