"""`digits`: 1,797 handwritten digits, which lie beside this file. Small, real, offline.

digits.npz: `images` uint8 [1797, 8, 8], values 0 to 16, and `labels` uint8 [1797]. They are the test set of "Optical
Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak 1998, UCI Machine Learning Repository, data set 80,
licence CC BY 4.0), unchanged, and in the order of scikit-learn's load_digits.
"""

from pathlib import Path

import numpy as np

from compressor.data.samples import Found, Part
from compressor.progress import Progress

__all__ = ["find_digits"]

FILE = Path(__file__).with_name("digits.npz")


def find_digits(location: str, progress: Progress) -> Found:
    """1,797 greyscale images of 8 x 8, classes "0" to "9". Their values 0 to 16 are scaled to 0 to 255."""
    with np.load(FILE, allow_pickle=False) as loaded:
        images, labels = loaded["images"], loaded["labels"]
    pixels = np.rint(images * (255 / 16)).astype(np.uint8)
    part = Part(
        ids=tuple(f"train/{row}" for row in range(len(pixels))),
        labels=tuple(str(label) for label in labels),
        content=lambda row: pixels[row],
        where=lambda row: f"digits row {row}",
        encoded=False,
    )
    return Found(tuple(str(digit) for digit in range(10)), {"train": part})
