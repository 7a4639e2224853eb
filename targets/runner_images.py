"""The images of a bundle, as a runner feeds them to a model.

Standard library and numpy only; runs on Python 3.9 and later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.runner_requests import RequestError
else:
    from runner_requests import RequestError

Floats = npt.NDArray[np.float32]
Batch = npt.NDArray[Any]  # float32 [batch, 3, height, width], or uint8 [batch, height, width, 3]


def empty_batch(size: int, height: int, width: int, kind: str) -> Batch:
    """A batch to fill, for a model whose input is "float32", or "uint8": then it normalizes by itself."""
    return np.empty((size, height, width, 3) if kind == "uint8" else (size, 3, height, width), kind)


class Images:
    """uint8 [N, height, width, 3] in a .npy file, read one at a time, so that memory is the model's and not the data's.

    Each value has only 256 × 3 possible inputs, so `(x / 255 - mean) / std` is a table, computed once in float32.
    """

    def __init__(self, path: str, mean: Sequence[float], std: Sequence[float]) -> None:
        header = np.load(path, mmap_mode="r")
        if header.dtype != np.uint8 or header.ndim != 4 or header.shape[3] != 3 or not header.flags.c_contiguous:
            raise RequestError("failed", f"{path}: expected uint8 [N, H, W, 3], found {header.dtype} {header.shape}")
        if not len(header):
            raise RequestError("failed", f"{path}: no images in it")
        self.n, self.height, self.width = header.shape[:3]
        self._offset: int = header.offset
        self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115  (see close)
        self._image = np.empty(header.shape[1:], np.uint8)
        levels = np.arange(256, dtype=np.float32) / np.float32(255)
        self._table = (levels - np.asarray(mean, np.float32)[:, None]) / np.asarray(std, np.float32)[:, None]

    def new_batch(self, size: int, ports: Sequence[Any]) -> Batch:
        """A batch to fill; refused where the model takes another shape."""
        if len(ports) != 1:
            raise RequestError("failed", f"the model takes {[port[0] for port in ports]}, and images are one input")
        _, expected, kind = ports[0]
        batch = empty_batch(size, self.height, self.width, kind)
        fixed = [size if isinstance(size, int) else batch.shape[axis] for axis, size in enumerate(expected[:4])]
        if len(expected) != 4 or fixed != list(batch.shape):
            raise RequestError("failed", f"the model takes {expected}, the images make {list(batch.shape)}")
        return batch

    def fill(self, batch: Batch, rows: Iterable[int]) -> Batch:
        """`batch`, made by `empty_batch`, with the images `rows` in it: normalized; as they are where it is uint8."""
        for slot, row in enumerate(rows):
            self._file.seek(self._offset + row * self._image.nbytes)
            if self._file.readinto(self._image.data) != self._image.nbytes:
                raise RequestError("failed", "the file of images was cut short while it was read")
            if batch.dtype == np.uint8:
                batch[slot] = self._image
                continue
            for channel in range(3):
                np.take(self._table[channel], self._image[:, :, channel], out=batch[slot, channel], mode="clip")
        return batch

    def tokens(self, batch: Batch) -> None:
        """An image has none."""

    def close(self) -> None:
        self._file.close()
