"""Tables of answers as files: CSV or Parquet, by the name's ending. What the columns mean is said in `outputs`."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compressor.data.csv_rows import MOST_LINE, csv_text, rows_of
from compressor.data.parquet_footer import footer_of
from compressor.errors import EXIT_MISSING, KdcError, first_line, needs
from compressor.files.reading import json_value, open_regular
from compressor.files.writing import written
from compressor.install import install_line
from compressor.schema.base import parse
from compressor.schema.predictions import OutputsInfo

__all__ = ["ENDINGS", "RawTable", "read_table", "require_ending", "require_table", "table_writer", "written_by_kdc"]

ENDINGS = (".csv", ".parquet")
MARK = "#kdc "
MOST_CELLS = 100_000_000  # as texts they take 8 GB
MOST_COLUMNS = 100_000
INSTALL = install_line("pyarrow")

Column: TypeAlias = Sequence[str] | NDArray[np.float32]
Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RawTable:
    """A file's columns. `texts(name)`, `numbers(name)`: one of them, or KdcError that names the row which is empty, or
    no number; a number may be NaN or infinite. `where(row)` names a row. `info`: what kdc wrote into the file."""

    columns: tuple[str, ...]
    rows: int
    texts: Callable[[str], list[str]]
    numbers: Callable[[str], Floats]
    where: Callable[[int], str]
    info: OutputsInfo | None


def require_ending(path: Path, label: str) -> None:
    """Raise KdcError where the name ends on no known format."""
    if path.suffix.lower() not in ENDINGS:
        raise KdcError(
            f"{label} {path} ends on none of {', '.join(ENDINGS)}", f"for example {path.with_suffix('.csv')}"
        )


def require_table(path: Path) -> None:
    """Raise KdcError where there is no file, or its name ends on no known format."""
    require_ending(path, "the table of answers")
    if not path.exists():
        raise KdcError(f"the table of answers {path} does not exist", "kdc predict --teacher … --data … --out FILE")


def read_table(path: Path) -> RawTable:
    """The columns of a file; raises KdcError where it is missing or damaged, or names a column twice."""
    require_table(path)
    table = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    if len(table.columns) > MOST_COLUMNS:
        raise KdcError(f"{path} has {len(table.columns):,} columns; permitted: {MOST_COLUMNS:,}")
    twice = [name for name, count in Counter(table.columns).items() if count > 1]
    if twice:
        raise KdcError(f"{path} has two columns named {twice[0]}")
    if not table.rows:
        raise KdcError(f"{path} has no rows")
    return table


def written_by_kdc(path: Path) -> bool:
    """Whether the file is a table that `table_writer` wrote, as it says of itself."""
    try:
        if path.suffix.lower() != ".csv":
            return _read_parquet(path).info is not None
        with open_regular(path) as file:
            first = file.readline(MOST_LINE).decode("utf-8", "replace")
        return first.startswith(MARK) and bool(_info(first.removeprefix(MARK), path))
    except OSError:
        return False
    except KdcError as error:
        if error.exit_code == EXIT_MISSING:  # pyarrow
            raise
        return False


def _read_csv(path: Path) -> RawTable:
    with csv_text(path) as file:
        first = file.readline(MOST_LINE)
        info = _info(first.removeprefix(MARK), path) if first.startswith(MARK) else None
        if not info:
            file.seek(0)
        # A hand may have put blanks around; what kdc wrote has them where a class or an id has them.
        clean: Callable[[str], str] = str if info else str.strip
        lines = rows_of(file, path, 1 if info else 0)
        header = tuple(clean(name) for name in next(lines, (0, []))[1])
        rows = []
        for numbered_row in lines:
            rows.append(numbered_row)
            if len(rows) * len(header) > MOST_CELLS:
                raise KdcError(f"{path} has more than {MOST_CELLS:,} values, the most that is read of a CSV", "Parquet")

    place_of = {name: number for number, name in enumerate(header)}

    def where(row: int) -> str:
        return f"{path} line {rows[row][0]}"

    def texts(name: str) -> list[str]:
        number = place_of[name]
        return _present([clean(row[number]) for _, row in rows], name, where)

    def numbers(name: str) -> Floats:
        with np.errstate(over="ignore"):  # to infinity, which whoever reads it refuses
            return np.array([_number(text, name, row, where) for row, text in enumerate(texts(name))], np.float32)

    return RawTable(header, len(rows), texts, numbers, where, info)


def _number(text: str, column: str, row: int, where: Callable[[int], str]) -> float:
    try:
        return float(text)
    except ValueError:
        raise KdcError(f"{where(row)}: column {column} holds {text!r}, which is no number") from None


def _present(values: list[Any], column: str, where: Callable[[int], str]) -> list[Any]:
    for row, value in enumerate(values):
        if value is None or value == "":
            raise KdcError(f"{where(row)}: column {column} is empty")
    return values


def _read_parquet(path: Path) -> RawTable:
    pyarrow = needs("pyarrow", INSTALL, f"reading {path}")
    from pyarrow import parquet

    schema, metadata = footer_of(path)
    rows = metadata.num_rows
    said = (schema.metadata or {}).get(b"kdc")

    def where(row: int) -> str:
        return f"{path} row {row}"

    def column(name: str) -> Any:
        try:
            return parquet.read_table(path, columns=[name])[name]
        except (pyarrow.ArrowException, OSError) as error:
            raise KdcError(f"{path} is no readable Parquet file: {first_line(error)}") from error

    def texts(name: str) -> list[str]:
        return [str(value) for value in _present(column(name).to_pylist(), name, where)]

    def numbers(name: str) -> Floats:
        values = column(name)
        kind = values.type
        if not (pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind)):
            raise KdcError(f"{path}: column {name} holds {kind}; numbers are expected")
        if values.null_count:
            _present(values.to_pylist(), name, where)
        with np.errstate(over="ignore"):
            floats: Floats = values.to_numpy().astype(np.float32)
        return floats

    info = _info(said.decode("utf-8", "replace"), path) if said else None
    return RawTable(tuple(schema.names), rows, texts, numbers, where, info)


def _info(text: str, path: Path) -> OutputsInfo:
    return parse(OutputsInfo, json_value(text, f"what kdc wrote into {path}"), str(path))


@contextmanager
def table_writer(path: Path, info: OutputsInfo, columns: Sequence[str]) -> Iterator[Callable[[list[Column]], None]]:
    """A function that appends rows, given as the values of all columns (texts, or float32). The file appears
    at `path` when all went well (see `written`)."""
    with written(path, "kdc predict") as temporary:
        write = _csv_writer if path.suffix.lower() == ".csv" else _parquet_writer
        with write(temporary, info.model_dump_json(), columns) as append:
            yield append


@contextmanager
def _csv_writer(path: Path, said: str, columns: Sequence[str]) -> Iterator[Callable[[list[Column]], None]]:
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"{MARK}{said}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)

        def append(values: list[Column]) -> None:
            # Nine digits are a float32, exactly.
            texts = [[f"{x:.9g}" for x in part] if isinstance(part, np.ndarray) else part for part in values]
            writer.writerows(zip(*texts, strict=True))

        yield append


@contextmanager
def _parquet_writer(path: Path, said: str, columns: Sequence[str]) -> Iterator[Callable[[list[Column]], None]]:
    pyarrow = needs("pyarrow", INSTALL, f"writing {path}")
    from pyarrow import parquet

    writer = None
    try:

        def append(values: list[Column]) -> None:
            nonlocal writer
            arrays = [pyarrow.array(part) for part in values]
            fields = [pyarrow.field(name, array.type) for name, array in zip(columns, arrays, strict=True)]
            schema = pyarrow.schema(fields, metadata={"kdc": said})
            if writer is None:
                writer = parquet.ParquetWriter(path, schema)
            writer.write_table(pyarrow.table(arrays, schema=schema))

        yield append
    finally:
        if writer is not None:
            writer.close()
