"""`parquet:PATH`: a table with the encoded pictures inside, or with paths of pictures."""

import json
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from compressor.data.folder import read_picture
from compressor.data.labels import label_texts
from compressor.data.samples import Found
from compressor.data.tables import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    SPLIT_COLUMNS,
    Table,
    files_by_split,
    join,
    path_table,
    pick,
    picture_file,
)
from compressor.errors import KdcError, needs
from compressor.progress import Progress

__all__ = ["encoded_picture", "find_parquet"]

CACHE_BYTES = 256 << 20


def find_parquet(place: str, progress: Progress) -> Found:
    """Pictures as bytes, as Hugging Face's {bytes, path}, or as paths relative to the file. Integer labels get the
    names that Hugging Face keeps in the file's metadata, where it has them."""
    needs("pyarrow", "pip install 'kdc[hf]'", "parquet: data")
    files, notes = files_by_split(place, "parquet")
    return join({split: [_table(path) for path in paths] for split, paths in files.items()}, notes)


def _table(path: Path) -> Table:
    pa = needs("pyarrow", "pip install 'kdc[hf]'", "parquet: data")
    schema = _reading(path, lambda parquet: parquet.read_schema(path))
    image = pick(schema.names, IMAGE_COLUMNS, "pictures", path)
    label = pick(schema.names, LABEL_COLUMNS, "labels", path)
    split = next((name for name in schema.names if name.lower() in SPLIT_COLUMNS), None)

    def column(name: str) -> list[Any]:
        values: list[Any] = _reading(path, lambda parquet: parquet.read_table(path, columns=[name]))[name].to_pylist()
        return values

    def where(row: int) -> str:
        return f"{path} row {row}"

    names = _hugging_face_names(schema, label)
    labels = label_texts(column(label), where, names)
    splits = column(split) if split else None
    note = f"pictures from column {image}, labels from column {label}"
    kind = schema.field(image).type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return path_table(path, column(image), labels, where, splits, names, note)
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_struct(kind)):
        raise KdcError(f"{path}: column {image} holds {kind}; expected bytes, {{bytes, path}} or the path of a picture")
    cells = _Cells(path, image)

    def content(row: int) -> bytes:
        return encoded_picture(cells.at(row), where(row), path)

    return Table(path, labels, None, splits, content, where, names, note)


def encoded_picture(value: object, where: str, table: Path | None) -> bytes:
    """The bytes of a picture from a cell: bytes, or Hugging Face's {bytes, path}; paths are relative to `table`."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value:
        return read_picture(picture_file(value, table) if table else Path(value))
    raise KdcError(f"{where} cannot be decoded: it holds no picture")


def _hugging_face_names(schema: Any, label: str) -> tuple[str, ...] | None:
    """The class names that `datasets` wrote beside the columns: without them, labels would be bare numbers."""
    try:
        feature = json.loads(schema.metadata[b"huggingface"])["info"]["features"][label]
        return tuple(feature["names"]) if feature["_type"] == "ClassLabel" else None
    except (TypeError, KeyError, ValueError):
        return None


def _reading(path: Path, read: Any) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return read(parquet)
    except (pyarrow.ArrowException, OSError) as error:
        raise KdcError(f"{path} is no readable Parquet file: {str(error).splitlines()[0]}") from error


class _Cells:
    """One column of a Parquet file, by row: its row groups are read as they are needed, since a whole column of
    pictures may be larger than memory. For threads, which mostly ask for neighbouring rows."""

    def __init__(self, path: Path, column: str) -> None:
        self._path = path
        self._column = column
        self._groups: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()
        metadata = _reading(path, lambda parquet: parquet.read_metadata(path))
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])

    def at(self, row: int) -> object:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with self._lock:
            if group not in self._groups:
                self._groups[group] = _reading(self._path, lambda parquet: self._read(parquet, group))
            self._groups.move_to_end(group)
            while len(self._groups) > 1 and sum(cells.nbytes for cells in self._groups.values()) > CACHE_BYTES:
                self._groups.popitem(last=False)
            cells = self._groups[group]
        value: object = cells[row - int(self._starts[group])].as_py()
        return value

    def _read(self, parquet: Any, group: int) -> Any:
        with parquet.ParquetFile(self._path) as file:
            return file.read_row_group(group, columns=[self._column])[self._column]
