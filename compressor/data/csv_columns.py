"""The columns of a CSV file that count, and which split each row is of, where a column says so."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compressor.data.csv_rows import csv_text, rows_of
from compressor.data.separators import separated, separator_of
from compressor.data.split_columns import SplitColumns
from compressor.data.table_files import split_column

__all__ = ["CsvColumns", "csv_columns"]


@dataclass(frozen=True, eq=False)
class CsvColumns:
    """`names`: the columns that were chosen. `lines`: the number of each row's (last) line. `values`: each row's, in
    the order of `names`. `splits`: what the column split says of each row; None where there is none. `note`: the rest
    of a note to people, where the columns are not separated by commas."""

    path: Path
    names: Sequence[str]
    lines: Sequence[int]
    values: Sequence[Sequence[str]]
    splits: Sequence[str] | None
    note: str

    def column(self, number: int) -> list[str]:
        return [row[number] for row in self.values]

    def where(self, row: int) -> str:
        return f"{self.path} line {self.lines[row]}"


def csv_columns(path: Path, choose: Callable[[Sequence[str]], Sequence[str]]) -> CsvColumns:
    """A CSV file with a header, in UTF-8 (`separator_of`). `choose`: its columns -> those that count. Raises KdcError
    for what is no such file, and for a column that says splits and is not called so."""
    separator = separator_of(path)
    with csv_text(path) as file:
        rows = rows_of(file, path, separator=separator)
        header = [name.strip() for name in next(rows, (0, []))[1]]
        names = choose(header)
        split = split_column(header, path)
        unread = {} if split else {at: name for at, name in enumerate(header) if name not in names}
        split_columns = SplitColumns(unread)
        # Only what counts is kept: a table may have many more columns.
        wanted = [header.index(name) for name in (*names, *((split,) if split else ()))]
        lines, values = [], []
        for line, row in rows:
            lines.append(line)
            values.append([row[index] for index in wanted])
            for index in split_columns.left:
                split_columns.see(index, [row[index]])
    split_columns.require_none(path)
    splits = [row[-1].strip() for row in values] if split else None
    return CsvColumns(path, names, lines, values, splits, separated(separator))
