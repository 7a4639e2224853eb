"""Columns of Parquet files: their values, the class names beside them, and those that say which split a row is of."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.data.parquet_footer import reading
from compressor.data.split_columns import SplitColumns
from compressor.errors import KdcError
from compressor.files.reading import json_value

__all__ = ["column_in", "hugging_face_names", "refuse_split_columns"]


def column_in(parquet: Any, path: Path, name: str) -> Any:
    # By the file, not by read_table, which takes a folder's name such as `split=train` for one more column.
    with parquet.ParquetFile(path) as file:
        return file.read(columns=[name])[name]


def refuse_split_columns(pa: Any, schema: Any, path: Path, taken: Sequence[str]) -> None:
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


def hugging_face_names(schema: Any, label: str, path: Path) -> tuple[str, ...] | None:
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
