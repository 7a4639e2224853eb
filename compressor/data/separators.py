"""What separates the columns of a CSV file: commas, or what stands in their place where a comma is a decimal point."""

import csv
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from compressor.data.csv_rows import SEPARATORS, csv_text, rows_of
from compressor.errors import KdcError

__all__ = ["separated", "separator_of"]

COMMA = ","
LOOKED_AT = 200
"""Rows."""
NAMES = {COMMA: "commas", **SEPARATORS}


def separator_of(path: Path) -> str:
    """The sign that the header's columns stand apart by: a comma, a semicolon, a tab or a bar. Where its header has
    several of them, that by which all of the first rows have as many values. Raises KdcError where this is so of
    several."""
    with csv_text(path) as file:
        first = next((line for line in file if line.strip()), "")
    signs = [sign for sign in NAMES if _columns(first, sign) > 1]
    if len(signs) < 2:
        return signs[0] if signs else COMMA
    even = [sign for sign in signs if _is_even(path, sign)]
    if len(even) > 1:
        names = " or by ".join(NAMES[sign] for sign in even)
        raise KdcError(
            f"{path} may be separated by {names}: its header has both, and its rows are even either way",
            "name the columns without these signs, or put the names in quotes",
        )
    return even[0] if even else signs[0]


def separated(separator: str) -> str:
    """The rest of a note to people, where it is not by commas."""
    return "" if separator == COMMA else f"; columns are separated by {NAMES[separator]}"


def _columns(header: str, sign: str) -> int:
    try:
        return len(next(csv.reader([header], delimiter=sign, strict=True), []))
    except csv.Error:
        return 0


def _is_even(path: Path, sign: str) -> bool:
    """Whether the first rows have as many values as the header."""
    try:
        with csv_text(path) as file:
            rows: Iterator[object] = rows_of(file, path, separator=sign)
            return len(list(islice(rows, LOOKED_AT))) > 1
    except KdcError:
        return False
