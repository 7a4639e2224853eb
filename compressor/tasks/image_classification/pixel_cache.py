"""The images of a split as a training reads them, over and over: decoded once to disk, or anew each time."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from compressor.data.samples import Split
from compressor.files.rows import RowFile
from compressor.processes.threads import in_order
from compressor.schema.preprocess import ImagePreprocess
from compressor.tasks.image_classification.preprocessing import pillow_warnings_ignored, resize_and_crop

__all__ = ["Decoding", "Images", "Stored", "bytes_of"]

Rows = NDArray[np.int64]
Pixels = tuple[NDArray[np.uint8], ...]


class Images(Protocol):
    """Images of one split, each prepared in one or several ways."""

    def batches(self, rows: Iterable[Rows]) -> Iterator[Pixels]:
        """For each of `rows` (int64 [B]) the images, uint8 [B, h, w, 3], prepared in each of the ways."""


class Stored:
    """Decoded once, to one file a way of preparing; a batch is read from there."""

    def __init__(self, split: Split, ways: Sequence[ImagePreprocess], paths: Sequence[Path]) -> None:
        """`paths`: files that `decode_split` wrote."""
        self._shapes = [(*preprocess.input_size, 3) for preprocess in ways]
        self._files = []
        for shape, path in zip(self._shapes, paths, strict=True):
            size = int(np.prod(shape))
            self._files.append(RowFile(path, size, path.stat().st_size - len(split) * size))

    def batches(self, rows: Iterable[Rows]) -> Iterator[Pixels]:
        for wanted in rows:
            files = zip(self._files, self._shapes, strict=True)
            yield tuple(file.read(wanted).reshape(-1, *shape) for file, shape in files)


class Decoding:
    """Decoded each time that they are asked for, by threads that run ahead (Pillow works without Python's lock): for
    data that is larger, decoded, than the disk may hold. Memory holds the few batches ahead, whatever the data's size.
    """

    def __init__(self, split: Split, ways: Sequence[ImagePreprocess]) -> None:
        self._split, self._ways = split, ways

    def batches(self, rows: Iterable[Rows]) -> Iterator[Pixels]:
        lists = list(rows)
        flat = [int(row) for wanted in lists for row in wanted]
        with pillow_warnings_ignored(), closing(in_order(self._prepared, flat)) as images:
            for wanted in lists:
                batch = [next(images) for _ in wanted]
                yield tuple(np.stack(way) for way in zip(*batch, strict=True))

    def _prepared(self, row: int) -> Pixels:
        image = self._split.read(row)
        return tuple(resize_and_crop(image, preprocess) for preprocess in self._ways)


def bytes_of(samples: int, ways: Iterable[ImagePreprocess]) -> int:
    """What `samples` images take, decoded in each of the ways."""
    return samples * sum(3 * preprocess.input_size[0] * preprocess.input_size[1] for preprocess in ways)
