"""CSV files that are not ours, read a row at a time and within bounds."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from compressor.errors import KdcError, first_line, os_error
from compressor.files.reading import open_regular

if TYPE_CHECKING:
    import _csv

__all__ = ["MOST_COLUMNS", "csv_text", "require_few", "rows_of"]

MOST_LINE = 16_000_000
MOST_COLUMNS = 100_000
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@contextmanager
def csv_text(path: Path) -> Iterator[IO[str]]:
    """A regular file as text; raises KdcError for what is met while it is read and is no CSV in UTF-8."""
    try:
        with open_regular(path) as plain, io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise os_error(error, f"reading {path}") from error
    except UnicodeDecodeError as error:
        where = f": line {line}" if (line := _first_not_utf8(path)) else ""
        raise KdcError(
            f"{path} is no CSV file in UTF-8{where}: {first_line(error)}", "save it as CSV in UTF-8"
        ) from error
    except csv.Error as error:
        raise KdcError(f"{path} is no CSV file in UTF-8: {first_line(error)}", "save it as CSV in UTF-8") from error


def _first_not_utf8(path: Path) -> int | None:
    """The number of the first line that is no UTF-8: it is decoded in blocks, ahead of the rows."""
    with open_regular(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(MOST_LINE), b""), 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return None


def rows_of(file: IO[str], path: Path, before: int = 0, separator: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, the header first, each with the number of its (last) line; `before`: the lines of
    the file that were read already. Raises KdcError for lines that no table has, and for rows unlike the header."""
    csv.field_size_limit(MOST_LINE)
    reader = csv.reader(_lines(file, path, before), strict=True, delimiter=separator)
    columns = None
    for row in _parsed(reader, path, before):
        line = before + reader.line_num
        if columns is None:
            columns = len(row)
            require_few(row, path)
        if row and len(row) != columns:
            raise KdcError(f"{path} line {line} has {len(row)} values, the header has {columns}")
        if row:
            yield line, row


def _parsed(reader: "_csv.Reader", path: Path, before: int) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise KdcError(
            f"{path} line {before + reader.line_num} is no line of a CSV file: {first_line(error)}",
            "is a quote opened and not closed, there or in a line before? within quotes a quote is doubled",
        ) from error


def _lines(file: IO[str], path: Path, number: int) -> Iterator[str]:
    while line := file.readline(MOST_LINE + 1):
        number += 1
        if len(line) > MOST_LINE:
            raise KdcError(f"{path} line {number} is longer than {MOST_LINE:,} characters, the most that is read")
        if "\0" in line:
            raise KdcError(f"{path} line {number} holds a zero byte: it is no text in UTF-8", "save it as CSV in UTF-8")
        yield line


def require_few(header: Sequence[str], path: Path) -> None:
    """Raise KdcError for a header of more columns than a table has, or of one that other separators make up."""
    if len(header) > MOST_COLUMNS:
        raise KdcError(f"{path} has {len(header):,} columns; at most {MOST_COLUMNS:,} are read")
    if len(header) == 1:
        for sign, name in SEPARATORS.items():
            if sign in header[0]:
                raise KdcError(f"{path} is separated by {name}, not by commas", "save it as CSV with commas")
