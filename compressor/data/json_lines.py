"""JSON lines: a JSON object a line, in UTF-8, read a line at a time and within bounds."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.errors import KdcError, os_error
from compressor.files.reading import json_value, open_regular

__all__ = ["MOST_LINE", "JsonLine", "json_lines"]

MOST_LINE = 16_000_000
"""Bytes."""
MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, eq=False)
class JsonLine:
    """A line that is not empty: its number (from 1), the byte that it begins at, and what it says. `ended`: by a line
    feed; `values` is None of a last line that is not, and is no JSON: whoever wrote it was stopped within it."""

    number: int
    start: int
    values: dict[str, Any] | None
    ended: bool


def json_lines(path: Path) -> Iterator[JsonLine]:
    """The lines of a file; raises KdcError that names the line which is too long, no UTF-8, no JSON or no object."""
    start = number = 0
    try:
        with open_regular(path) as file:
            while raw := file.readline(MOST_LINE + 1):
                number += 1
                if len(raw) > MOST_LINE:
                    raise KdcError(f"{path} line {number} is longer than {MOST_LINE:,} bytes, the most that is read")
                if raw.strip():
                    yield JsonLine(number, start, _object(raw, path, number), raw.endswith(b"\n"))
                start += len(raw)
    except OSError as error:
        raise os_error(error, f"reading {path}") from error


def _object(raw: bytes, path: Path, number: int) -> dict[str, Any] | None:
    where, torn = f"{path} line {number}", not raw.endswith(b"\n")
    try:
        values = json_value((raw.removeprefix(MARK) if number == 1 else raw).decode("utf-8"), where)
    except UnicodeDecodeError as error:
        if torn:
            return None
        raise KdcError(f"{where} is no text in UTF-8: {error.reason}", "save it as JSON lines in UTF-8") from None
    except KdcError as error:
        if torn and "not JSON" in error.message:
            return None
        raise KdcError(error.message, "JSON lines: an object a line") from None
    if not isinstance(values, dict):
        raise KdcError(f"{where} is no JSON object", 'JSON lines: an object a line, as {"prompt": "…"}')
    return values
