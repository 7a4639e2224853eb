"""`parquet:PATH`: a table with the encoded images inside, or with paths of images."""

import itertools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compressor.data.labels import label_texts
from compressor.data.parquet_footer import footer_of, reading
from compressor.data.samples import Found
from compressor.errors import KdcError, needs
from compressor.files.reading import json_value
from compressor.install import install_line
from compressor.progress import Progress
from compressor.tasks.image_classification.sources.folder import read_image
from compressor.tasks.image_classification.sources.split_columns import SplitColumns
from compressor.tasks.image_classification.sources.tables import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    Table,
    files_by_split,
    image_file,
    join,
    path_table,
    pick,
    split_column,
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
        values: list[Any] = reading(path, lambda parquet: _column(parquet, path, name).to_pylist())
        return values

    def where(row: int) -> str:
        return f"{path} row {row}"

    if split is None:
        _refuse_split_columns(pa, schema, path, (image, label))
    names = _hugging_face_names(schema, label, path)
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


def _column(parquet: Any, path: Path, name: str) -> Any:
    # By the file, not by read_table, which takes a folder's name such as `split=train` for one more column.
    with parquet.ParquetFile(path) as file:
        return file.read(columns=[name])[name]


def _refuse_split_columns(pa: Any, schema: Any, path: Path, taken: Sequence[str]) -> None:
    """Raise KdcError for a column of texts, or of yes and no, that says which split a row is of."""
    names = [name for name in schema.names if name not in taken and _may_say_splits(pa, schema.field(name).type)]
    columns = SplitColumns(dict(enumerate(names)))
    if not names:
        return

    def see(parquet: Any) -> None:
        with parquet.ParquetFile(path) as file:
            for first in itertools.islice(file.iter_batches(batch_size=16, columns=names), 1):
                for number, name in enumerate(names):
                    columns.see(number, first[name].to_pylist())
            for number in columns.left:  # what is left is short and few: texts of other kinds are not read whole
                columns.see(number, file.read(columns=[names[number]])[names[number]].unique().to_pylist())

    reading(path, see)
    columns.require_none(path)


def _may_say_splits(pa: Any, kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(texts or pa.types.is_boolean(kind) or pa.types.is_integer(kind))


def _hugging_face_names(schema: Any, label: str, path: Path) -> tuple[str, ...] | None:
    """The class names that `datasets` wrote beside the columns: without them, labels would be bare numbers."""
    said = (schema.metadata or {}).get(b"huggingface")
    if said is None:
        return None
    feature = json_value(said, f"{path}: what Hugging Face wrote into it")
    for key in ("info", "features", label):
        feature = feature.get(key) if isinstance(feature, dict) else None
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise KdcError(f"{path}: what Hugging Face wrote into it is damaged: the names of column {label} are no texts")
    return tuple(names)


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
