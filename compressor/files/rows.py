"""Rows of equal size in a file, read where they lie: training data that does not fit into memory."""

import os
import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.errors import KdcError, os_error

__all__ = ["RowFile"]


class RowFile:
    """`path`: a header of `offset` bytes, then rows of `row` bytes.

    Read and written with pread and pwrite, not through a memory map. The system keeps what was read in memory either
    way, but mapped pages would count as memory of this process, which would then grow with the data; and on a full
    disk, or where another process cut the file short, a mapped page kills the process where a call can raise an error.
    """

    def __init__(self, path: Path, row: int, offset: int = 0, *, writable: bool = False) -> None:
        self.path, self.row, self._offset = path, row, offset
        try:
            self._file = os.open(path, os.O_RDWR if writable else os.O_RDONLY)
        except OSError as error:
            raise os_error(error, f"opening {path}") from error
        # A file that was removed takes its space until nobody has it open any more.
        self.close = weakref.finalize(self, os.close, self._file)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The rows with these numbers, in this order: uint8 [N, row]."""
        records = np.empty((len(rows), self.row), np.uint8)
        for record, number in zip(records, rows.tolist(), strict=True):
            try:
                got = os.preadv(self._file, [record.data], self._offset + number * self.row)
            except OSError as error:
                raise os_error(error, f"reading {self.path}") from error
            if got != self.row:
                raise KdcError(f"{self.path} is damaged: it ends within row {number}")
        return records

    def run(self, first: int, count: int) -> NDArray[np.uint8]:
        """`count` rows from number `first` on, in one read: uint8 [count, row]."""
        records = np.empty((count, self.row), np.uint8)
        view, done = records.data.cast("B") if count else memoryview(b""), 0
        while done < len(view):
            try:
                got = os.preadv(self._file, [view[done:]], self._offset + first * self.row + done)
            except OSError as error:
                raise os_error(error, f"reading {self.path}") from error
            if not got:
                raise KdcError(f"{self.path} is damaged: it ends within row {first + done // self.row}")
            done += got
        return records

    def write(self, rows: NDArray[np.int64], values: NDArray[np.uint8]) -> None:
        """Put `values`, uint8 [N, row], in these rows; raises KdcError where the disk is full."""
        try:
            for number, value in zip(rows.tolist(), values, strict=True):
                if os.pwrite(self._file, value.data, self._offset + number * self.row) != self.row:
                    raise KdcError(f"{self.path}: row {number} was written in part")
        except OSError as error:
            raise os_error(error, f"writing {self.path}") from error
