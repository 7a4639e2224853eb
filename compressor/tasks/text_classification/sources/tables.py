"""`csv:PATH` and `parquet:PATH`: tables with a column of texts, or two of pairs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from compressor.data.csv_columns import csv_columns
from compressor.data.labels import label_texts
from compressor.data.parquet_columns import column_in, hugging_face_names, refuse_split_columns
from compressor.data.parquet_footer import footer_of, reading
from compressor.data.samples import Found
from compressor.data.table_files import files_by_split, split_column
from compressor.data.table_rows import Table, join
from compressor.errors import KdcError, needs
from compressor.install import install_line
from compressor.progress import Progress
from compressor.schema.student import Columns
from compressor.tasks.text_classification.sources.columns import Chosen, choose, require_words

__all__ = ["find_csv", "find_parquet", "rows_in"]


def find_csv(location: str, columns: Columns, progress: Progress, *, labelled: bool = True) -> Found:
    """CSV with a header, in UTF-8 with or without a byte order mark (`separator_of`)."""
    files, notes = files_by_split(location, "csv")
    tables = {split: [_read_csv(path, columns, labelled) for path in paths] for split, paths in files.items()}
    return join(tables, notes, "texts")


def find_parquet(location: str, columns: Columns, progress: Progress, *, labelled: bool = True) -> Found:
    """Integer labels get the names that Hugging Face keeps in the file's metadata, where it has them."""
    needs("pyarrow", install_line("pyarrow"), "parquet: data")
    files, notes = files_by_split(location, "parquet")
    tables = {split: [_read_parquet(path, columns, labelled) for path in paths] for split, paths in files.items()}
    return join(tables, notes, "texts")


def _read_csv(path: Path, columns: Columns, labelled: bool) -> Table:
    chosen: list[Chosen] = []

    def choose_in(header: Sequence[str]) -> tuple[str, ...]:
        chosen.append(choose(header, columns, path, labelled=labelled))
        _refuse_doubles(header, chosen[0].names, path)
        return chosen[0].names

    read = csv_columns(path, choose_in)
    count = len(chosen[0].text)
    for number, name in enumerate(chosen[0].text):
        require_words(read.column(number), name, columns, path)
    rows = read.values
    labels = label_texts(read.column(count), read.where, gaps=True) if labelled else ("",) * len(rows)
    note = f"{chosen[0].note}{read.note}"
    return Table(path, labels, None, read.splits, lambda row: tuple(rows[row][:count]), read.where, None, note)


def _refuse_doubles(header: Sequence[str], names: Sequence[str], path: Path) -> None:
    twice = [name for name in names if header.count(name) > 1]
    if twice:
        raise KdcError(f"{path} has several columns {twice[0]}", "keep one of them")


def _read_parquet(path: Path, columns: Columns, labelled: bool) -> Table:
    pa = needs("pyarrow", install_line("pyarrow"), "parquet: data")
    schema, _ = footer_of(path)
    numeric = [field.name for field in schema if not _holds_texts(pa, field.type)]
    chosen = choose(schema.names, columns, path, numeric, labelled=labelled)
    _refuse_doubles(schema.names, chosen.names, path)
    split = split_column(schema.names, path)
    for name in chosen.text:
        _require_texts(pa, schema.field(name).type, name, path)

    def values(name: str) -> list[Any]:
        read: list[Any] = reading(path, lambda parquet: column_in(parquet, path, name).to_pylist())
        return read

    def where(row: int) -> str:
        return f"{path} row {row}"

    if split is None:
        refuse_split_columns(pa, schema, path, chosen.names)
    cells = [values(name) for name in chosen.text]
    for name, column in zip(chosen.text, cells, strict=True):
        require_words(column, name, columns, path)
    content = rows_in(cells)
    names, labels = None, ("",) * len(cells[0])
    if chosen.label is not None:
        names = hugging_face_names(schema, chosen.label, path)
        labels = label_texts(values(chosen.label), where, names, gaps=True)
    return Table(path, labels, None, values(split) if split else None, content, where, names, chosen.note)


def _holds_texts(pa: Any, kind: Any) -> bool:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner))


def _require_texts(pa: Any, kind: Any, name: str, path: Path) -> None:
    if not _holds_texts(pa, kind):
        raise KdcError(f"{path}: column {name} holds {kind}, and is to hold texts", "--text-column NAME")


def rows_in(columns: Sequence[Sequence[object]]) -> Callable[[int], tuple[object, ...]]:
    """Row -> its cells."""
    return lambda row: tuple(column[row] for column in columns)
