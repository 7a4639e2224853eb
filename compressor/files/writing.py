"""Files that a user names: made whole or not at all, replaced only when asked to, and written through where the name
stands for something else: a link, a pipe, a device."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.errors import KdcError, os_error
from compressor.files.atomic import TEMPORARY, write_atomically
from compressor.files.locks import locked
from compressor.processes.interruption import uninterrupted

__all__ = ["is_stream", "refuse_existing", "write_output", "written"]

OWN = re.compile(r"/dev/(?:fd/(\d+)|stdout|stderr)|/proc/self/fd/(\d+)")
"""What leads to something that this process has open, which may be a regular file."""


def is_stream(path: Path) -> bool:
    """Whether what is written to `path` goes through it: it is a pipe, a device, or what this process has open. Raises
    KdcError for a folder and a disk."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return _own_descriptor(path) is not None
    if stat.S_ISDIR(mode) or stat.S_ISBLK(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "disk"
        raise KdcError(f"--out {path} is a {kind}, not a file", "name a file")
    return not stat.S_ISREG(mode) or _own_descriptor(path) is not None


def _own_descriptor(path: Path) -> int | None:
    """The number of what this process has open, if `path` names it."""
    match = OWN.fullmatch(os.path.abspath(path))  # noqa: PTH100  (resolved, it would be what it leads to)
    if match is None:
        return None
    number = match[1] or match[2]
    return int(number) if number else (1 if match[0].endswith("stdout") else 2)


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise KdcError where a file stands at `path`, and may not be replaced."""
    if not is_stream(path) and path.exists() and not overwrite:
        raise KdcError(f"--out {path} exists", "--overwrite to replace it, or another --out")


@contextmanager
def written(path: Path, command: str, *, wait_s: float = 0.0) -> Iterator[Path]:
    """A name to write to, for what is to become the file `path`, which no other command writes meanwhile. A link stays,
    and the file that it leads to is replaced; a pipe or a device is the name itself. `wait_s`: for another command that
    writes it to end, seconds."""
    if is_stream(path):
        yield path
        return
    path = path.resolve()
    with locked(path, command, file=True, wait_s=wait_s):
        with uninterrupted():
            _sweep(path)
        with write_atomically(path) as temporary:
            yield temporary


def write_output(path: Path, text: str, command: str, *, overwrite: bool) -> None:
    """Write `text` (UTF-8) to the file `path`; see `refuse_existing` and `written`."""
    refuse_existing(path, overwrite=overwrite)
    with written(path, command) as target:
        refuse_existing(path, overwrite=overwrite)  # now that nobody else makes it
        try:
            descriptor = _own_descriptor(path)
            # Not to be made: a pipe whose reader has gone away leaves no file in its place.
            handle = os.open(target, os.O_WRONLY | os.O_APPEND) if descriptor is None else os.dup(descriptor)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise os_error(error, f"writing {path}") from error


def _sweep(path: Path) -> None:
    """Remove what kills left unfinished of `path`, which is locked: what `temporary_beside` names after it."""
    name = re.compile(re.escape(f"{TEMPORARY}{path.stem[:100]}.") + "[0-9a-f]{8}" + re.escape(path.suffix[:20]))
    try:
        for left in path.parent.iterdir():
            if name.fullmatch(left.name):
                left.unlink(missing_ok=True)
    except OSError as error:
        raise os_error(error, f"writing {path}") from error
