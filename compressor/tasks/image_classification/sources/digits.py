"""`digits`: scikit-learn's handwritten digits, which come with the package. Small, real, offline."""

import numpy as np

from compressor.data.samples import Found, Part
from compressor.progress import Progress

__all__ = ["find_digits"]


def find_digits(place: str, progress: Progress) -> Found:
    """1,797 greyscale pictures of 8 x 8, classes "0" to "9". Their values 0 to 16 are scaled to 0 to 255."""
    from sklearn.datasets import load_digits  # takes a second to import

    loaded = load_digits()
    pixels = np.rint(loaded.images * (255 / 16)).astype(np.uint8)
    part = Part(
        ids=tuple(f"train/{row}" for row in range(len(pixels))),
        labels=tuple(str(label) for label in loaded.target),
        content=lambda row: pixels[row],
        where=lambda row: f"digits row {row}",
        encoded=False,
    )
    return Found(tuple(str(digit) for digit in range(10)), {"train": part})
