"""`parquet:PATH`: a table with the encoded images inside, or with paths of images."""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from compressor.data.labels import label_texts
from compressor.data.parquet_columns import column_in, hugging_face_names, refuse_split_columns
from compressor.data.parquet_footer import footer_of, reading
from compressor.data.samples import Found
from compressor.data.table_files import files_by_split, pick, split_column
from compressor.data.table_rows import Table, join
from compressor.errors import KdcError, needs
from compressor.install import install_line
from compressor.progress import Progress
from compressor.tasks.image_classification.sources.folder import read_image
from compressor.tasks.image_classification.sources.tables import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    image_file,
    path_table,
)

__all__ = ["encoded_image", "find_parquet"]

CACHE_BYTES = 256 << 20


def find_parquet(location: str, progress: Progress) -> Found:
    """Images as bytes, as Hugging Face's {bytes, path}, or as paths relative to the file. Integer labels get the
    names that Hugging Face keeps in the file's metadata, where it has them."""
    needs("pyarrow", install_line("pyarrow"), "parquet: data")
    files, notes = files_by_split(location, "parquet")
    return join({split: [_table(path) for path in paths] for split, paths in files.items()}, notes)


def _table(path: Path) -> Table:
    pa = needs("pyarrow", install_line("pyarrow"), "parquet: data")
    schema, metadata = footer_of(path)
    image = pick(schema.names, IMAGE_COLUMNS, "images", path)
    label = pick(schema.names, LABEL_COLUMNS, "labels", path)
    split = split_column(schema.names, path)

    def column(name: str) -> list[Any]:
        values: list[Any] = reading(path, lambda parquet: column_in(parquet, path, name).to_pylist())
        return values

    def where(row: int) -> str:
        return f"{path} row {row}"

    if split is None:
        refuse_split_columns(pa, schema, path, (image, label))
    names = hugging_face_names(schema, label, path)
    labels = label_texts(column(label), where, names)
    splits = column(split) if split else None
    note = f"images from column {image}, labels from column {label}"
    kind = schema.field(image).type
    if pa.types.is_dictionary(kind):  # a categorical column of pandas
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return path_table(path, column(image), labels, where, splits, names, note)
    if not _may_hold_images(pa, kind):
        raise KdcError(f"{path}: column {image} holds {kind}; expected bytes, {{bytes, path}} or the path of an image")
    cells = _Cells(path, image, metadata)

    def content(row: int) -> bytes:
        return encoded_image(cells.at(row), where(row), path)

    return Table(path, labels, None, splits, content, where, names, note)


def encoded_image(value: object, where: str, table: Path | None) -> bytes:
    """The bytes of an image from a cell: bytes, or Hugging Face's {bytes, path}; paths are relative to `table`."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value:
        return read_image(image_file(value, table) if table else Path(value))
    raise KdcError(f"{where} cannot be decoded: it holds no image")


def _may_hold_images(pa: Any, kind: Any) -> bool:
    """Whether a type is bytes, or a struct that has bytes or a path."""
    if not pa.types.is_struct(kind):
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
    inner = {kind.field(number).name: kind.field(number).type for number in range(kind.num_fields)}
    held, path = inner.get("bytes"), inner.get("path")
    texts = path is not None and (pa.types.is_string(path) or pa.types.is_large_string(path))
    return texts or (held is not None and _may_hold_images(pa, held) and not pa.types.is_struct(held))


class _Cells:
    """One column of a Parquet file, by row: its row groups are read as they are needed, since a whole column of
    images may be larger than memory. For threads, which mostly ask for neighbouring rows."""

    def __init__(self, path: Path, column: str, metadata: Any) -> None:
        self._path = path
        self._column = column
        self._groups: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])

    def at(self, row: int) -> object:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        with self._lock:
            if group not in self._groups:
                self._groups[group] = reading(self._path, lambda parquet: self._read(parquet, group))
            self._groups.move_to_end(group)
            while len(self._groups) > 1 and sum(cells.nbytes for cells in self._groups.values()) > CACHE_BYTES:
                self._groups.popitem(last=False)
            cells = self._groups[group]
        value: object = cells[row - int(self._starts[group])].as_py()
        return value

    def _read(self, parquet: Any, group: int) -> Any:
        with parquet.ParquetFile(self._path) as file:
            return file.read_row_group(group, columns=[self._column])[self._column]
