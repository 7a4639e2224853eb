"""Files that are not ours, read within bounds: regular files alone, of a size and a depth that were stated beforehand.

A pipe would block whoever opens it, a device file never ends, and JSON nested deeply enough ends the interpreter.
"""

import json
import os
import select
import stat
import time
from pathlib import Path
from typing import Any, BinaryIO

from compressor.errors import KdcError, first_line, os_error

__all__ = ["JSON_BYTES", "JSON_DEPTH", "json_value", "open_regular", "read_bytes", "read_settings", "read_text"]

JSON_BYTES = 256_000_000
JSON_DEPTH = 100


def open_regular(path: Path) -> BinaryIO:
    """`path` opened for reading; raises KdcError where it is missing, may not be read, or is no regular file."""
    file, mode = _opened(path)
    if not stat.S_ISREG(mode):
        file.close()
        raise KdcError(f"{path} is {_kind(mode)}, not a regular file", "give a file")
    return file


def _opened(path: Path) -> tuple[BinaryIO, int]:
    """The file, whatever it is, and its mode."""
    # Without O_NONBLOCK, opening a pipe waits for whoever writes to it.
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        if isinstance(error, OSError):
            raise os_error(error, f"reading {path}") from error
        raise KdcError(f"{str(path)!r} is no path: {error}") from None
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise KdcError(f"{path} is a folder, not a regular file", "give a file")
        return os.fdopen(handle, "rb", buffering=0 if stat.S_ISFIFO(mode) else -1), mode
    except BaseException:
        os.close(handle)
        raise


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def read_bytes(path: Path, *, most: int) -> bytes:
    """The bytes of a regular file, `most` at most; raises KdcError."""
    with open_regular(path) as file:
        try:
            # A file that is larger is not even read, and `most` bytes are not asked for at once: there may be less
            # memory, and taking that much anew for each of many small files takes longer than reading them.
            data = b"" if (size := os.fstat(file.fileno()).st_size) > most else file.read(size + 1)
            if len(data) > size:  # it grows, or is of a kind that says no size
                data += file.read(most + 1 - len(data))
        except OSError as error:
            raise os_error(error, f"reading {path}") from error
    if max(size, len(data)) > most:
        raise KdcError(f"{path} is larger than {_size(most)}, which is the most that is read of such a file")
    return data


def _size(count: int) -> str:
    return f"{count / 1e6:g} MB" if count >= 1e6 else f"{count / 1e3:g} kB"


def read_text(path: Path, *, most: int) -> str:
    """The text (UTF-8) of a regular file of at most `most` bytes; raises KdcError."""
    try:
        return read_bytes(path, most=most).decode("utf-8")
    except UnicodeDecodeError:
        raise KdcError(f"{path} is not a text file in UTF-8") from None


PIPE_S = 10.0
"""For how long a pipe may be silent, and thrice that in all."""


def read_settings(path: Path, *, most: int) -> str:
    """The text of a file of settings, which may also be a pipe, as `--recipe <(…)` makes one; raises KdcError."""
    file, mode = _opened(path)
    with file:
        if not stat.S_ISFIFO(mode):
            return read_text(path, most=most)
        data = _from_pipe(file, path, most)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise KdcError(f"{path} is not a text in UTF-8") from None


def _from_pipe(file: BinaryIO, path: Path, most: int) -> bytes:
    """All that is written into a pipe, until its writers are gone."""
    data, begun = b"", time.monotonic()
    while True:
        ready, _, _ = select.select([file], [], [], PIPE_S)
        if not ready or time.monotonic() - begun > 3 * PIPE_S:
            raise KdcError(f"{path} is a pipe that nobody ends writing into", "give a file")
        part = file.read(most + 1 - len(data))
        data += part or b""
        if len(data) > most:
            raise KdcError(f"{path} is larger than {_size(most)}, which is the most that is read of such a file")
        if not part:  # also where no writer has come yet: then select would have waited
            return data


def json_value(text: str | bytes, where: str, *, depth: int = JSON_DEPTH) -> Any:
    """What JSON `text` says; raises KdcError that names `where` for what is no JSON, or nested deeper than `depth`."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise KdcError(f"{where}: nested deeper than {depth} levels") from None
    except ValueError as error:  # also an integer of more digits than Python converts
        raise KdcError(f"{where} is damaged: not JSON ({first_line(error)})") from None
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth):
        if not level:
            break
        level = [
            inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]  # fmt: skip
    if level:
        raise KdcError(f"{where}: nested deeper than {depth} levels")
    return value
