"""Files that appear whole or not at all, under a temporary name until then; and their sha256."""

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.errors import os_error

__all__ = [
    "TEMPORARY",
    "file_sha256",
    "is_temporary",
    "link_or_copy",
    "temporary_beside",
    "write_atomically",
    "write_text",
]

TEMPORARY = ".kdc-tmp."
"""How every file or folder begins that becomes something else's name when it is whole. What a kill leaves of them is
no one's data: integrity checks pass over them, and the next command that writes there removes them."""


def is_temporary(name: str) -> bool:
    """Whether a file or folder of that name is one that a command of kdc did not finish."""
    return name.startswith(TEMPORARY)


def temporary_beside(path: Path) -> Path:
    """A new name in the folder of `path`, for what is to become `path`. Nothing is made."""
    return path.with_name(f"{TEMPORARY}{path.stem[:100]}.{secrets.token_hex(4)}{path.suffix[:20]}")


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed to `path` when all went well, removed otherwise."""
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not tempfile's: that is for its owner alone, whatever the umask says.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise os_error(error, f"writing {path}") from error
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise os_error(error, f"writing {path}") from error
    finally:
        temporary.unlink(missing_ok=True)


def link_or_copy(source: Path, to: Path) -> None:
    """`source` also under the name `to`: a hard link; a copy, where the file system has no links or permits none. Of a
    link to something else, another one. Raises OSError."""
    if not source.is_symlink():
        try:
            os.link(source, to)
            return
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
    shutil.copyfile(source, to, follow_symlinks=False)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`: all of it, or nothing."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
