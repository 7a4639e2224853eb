"""Images as they travel to a device: uint8, resized and cropped; only the normalization is left to the runner."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.schema.preprocess import ImagePreprocess
from compressor.tasks.image_classification.preprocessing import normalise

__all__ = ["StoredImages"]


class StoredImages:
    """See `tasks.base.Stored`. `pixels`: uint8 [N, height, width, 3], which lie in the .npy file `path`; None where no
    runner is to read them."""

    def __init__(self, pixels: NDArray[np.uint8], preprocess: ImagePreprocess, path: Path | None = None) -> None:
        self.pixels, self._preprocess, self._path = pixels, preprocess, path

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def lengths(self) -> None:
        """Images are all as large."""

    @property
    def request(self) -> dict[str, object]:
        assert self._path is not None, "no runner can read these"
        return {"inputs": str(self._path.resolve()), "mean": self._preprocess.mean, "std": self._preprocess.std}

    @property
    def cost(self) -> int:
        return len(self) * self._preprocess.input_size[0] * self._preprocess.input_size[1]

    def fed(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return {"input": normalise(self.pixels[rows], self._preprocess)}

    def first(self, most: int, folder: Path) -> "StoredImages":
        if most >= len(self):
            return self
        path = folder / "images.npy"
        np.save(path, self.pixels[:most])
        return StoredImages(self.pixels[:most], self._preprocess, path)
