"""Arrays of plain numbers in .npy files that are not ours, checked before and read in parts: a part at a time is in
memory, however many samples and classes there are."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import KdcError
from compressor.files.reading import open_regular

__all__ = ["ArrayFile", "open_array"]

PART = 1_000_000
"""Numbers that are read at a time: 8 MB in float64, and a few times that in what is computed from them."""


@dataclass(frozen=True)
class ArrayFile:
    """An array that lies in the file `path` from byte `offset` on, in C order."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    def read(self) -> NDArray[Any]:
        """The whole array."""
        return np.concatenate(list(self.parts())) if math.prod(self.shape) else np.empty(self.shape, self.dtype)

    def rows(self, numbers: Sequence[int]) -> NDArray[Any]:
        """Some of its rows, [len(numbers), ...]; the others are not read. Raises KdcError as `parts` does."""
        row_shape = self.shape[1:]
        size = math.prod(row_shape) * self.dtype.itemsize
        with open_regular(self.path) as file:
            read = []
            for number in numbers:
                file.seek(self.offset + number * size)
                read.append(file.read(size))
        if any(len(content) != size for content in read):
            raise KdcError(f"{self.path} is damaged: it became shorter while it was read")
        return np.frombuffer(b"".join(read), self.dtype).reshape(-1, *row_shape)

    def parts(self) -> Iterator[NDArray[Any]]:
        """The array, some rows after the other. Raises KdcError where the file shrank since it was opened first."""
        rows, *row_shape = self.shape
        width = math.prod(row_shape)
        step = max(1, PART // max(1, width))
        with open_regular(self.path) as file:
            file.seek(self.offset)
            for start in range(0, rows, step):
                count = min(step, rows - start) * width
                content = file.read(count * self.dtype.itemsize)
                if len(content) != count * self.dtype.itemsize:
                    raise KdcError(f"{self.path} is damaged: it became shorter while it was read")
                yield np.frombuffer(content, self.dtype).reshape(-1, *row_shape)


def open_array(path: Path) -> ArrayFile:
    """The array of plain numbers in a .npy file, its header checked and its numbers not read yet. Raises KdcError.

    Not np.load: from a hostile header that allocates what the file does not hold, and with memory mapping a dtype of
    zero bytes ends the process. Here the header must be that of an array which exactly fills the file.
    """
    try:
        with open_regular(path) as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"version {version} of the format")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(file)
            if dtype.names and len(dtype.names) == 1:  # records of one input are that input
                dtype, sides = dtype[0].subdtype or (dtype[0], ())
                shape = (*shape, *sides)
            if dtype.kind not in "fiu" or any(side < 0 for side in shape):
                raise ValueError(f"found {dtype} of shape {shape}, expected plain numbers")
            if fortran_order and len(shape) > 1:
                raise ValueError("its columns lie one after the other (Fortran order), expected its rows")
            size = os.fstat(file.fileno()).st_size - file.tell()
            if size != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{size} bytes do not hold {dtype} of shape {shape}")
            return ArrayFile(path, shape, dtype, file.tell())
    # The header parser fails in many ways: ValueError, SyntaxError, TokenError, TypeError, OverflowError, …
    except Exception as error:
        raise KdcError(f"{path} is damaged: no .npy array that may be read ({error})") from None
