"""Columns of Parquet files that hold whole files: bytes, or Hugging Face's {bytes, path}."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from compressor.data.parquet_footer import reading
from compressor.errors import KdcError

__all__ = ["Cells", "encoded_in", "may_hold_files"]

CACHE_BYTES = 256 << 20


def may_hold_files(pa: Any, kind: Any) -> bool:
    """Whether a type is bytes, or a struct that has bytes or a path."""
    if not pa.types.is_struct(kind):
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
    inner = {kind.field(number).name: kind.field(number).type for number in range(kind.num_fields)}
    held, path = inner.get("bytes"), inner.get("path")
    texts = path is not None and (pa.types.is_string(path) or pa.types.is_large_string(path))
    return texts or (held is not None and may_hold_files(pa, held) and not pa.types.is_struct(held))


def encoded_in(value: object, where: str, read: Callable[[str], bytes], sample: str) -> bytes:
    """The bytes of a file from a cell: bytes, or Hugging Face's {bytes, path}. `read`: those of a path; `sample`: what
    it is to be."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value:
        return read(value)
    raise KdcError(f"{where} cannot be decoded: it holds no {sample}")


class Cells:
    """One column of a Parquet file, by row: its row groups are read as they are needed, since a whole column of files
    may be larger than memory. For threads, which mostly ask for neighbouring rows."""

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
