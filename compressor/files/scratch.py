"""A folder for what a command tries out, among the system's temporary files: gone afterwards, even after a kill."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from compressor.errors import KdcError
from compressor.files.locks import LOCK, is_held, locked

__all__ = ["scratch"]


@contextmanager
def scratch(purpose: str, command: str) -> Iterator[Path]:
    """An empty folder `kdc-PURPOSE-…`, of this call alone. What kills left of others for the same purpose goes first.

    `command`: to be named to others, e.g. "kdc distill --plan". Raises OSError.
    """
    prefix = f"kdc-{purpose}-"
    _sweep(Path(tempfile.gettempdir()), prefix, command)
    with tempfile.TemporaryDirectory(prefix=prefix) as folder, locked(Path(folder), command):
        yield Path(folder)


def _sweep(shelf: Path, prefix: str, command: str) -> None:
    """Remove the folders whose processes have died: those of this user with a lock that nobody holds. One without a
    lock is being made just now, or does not come from here."""
    if os.name != "posix":  # no locks that end with their process
        return
    for folder in shelf.glob(f"{prefix}*"):
        with suppress(OSError, KdcError):
            made = folder.lstat()
            if not stat.S_ISDIR(made.st_mode) or made.st_uid != os.getuid():
                continue
            if is_held(folder) or not (folder / LOCK).is_file():
                continue
            without: list[str] = []
            with locked(folder, command, warn=without.append):  # KdcError: another one is at work in it
                if not without:
                    shutil.rmtree(folder)
