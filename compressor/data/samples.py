"""The values of this package: what a source lists (Part, Found), and what kdc works with (Split, Dataset)."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compressor.data.splits import WANTED
from compressor.schema.preprocess import PixelRange
from compressor.schema.student import DataInfo

__all__ = [
    "UNLABELLED",
    "Content",
    "Dataset",
    "Found",
    "Part",
    "Sample",
    "Split",
    "contents_of",
    "drawn",
]

# An encoded image (a whole file), or pixels: uint8 [h, w] or [h, w, 3].
Content: TypeAlias = bytes | NDArray[np.uint8]

UNLABELLED = -1
"""The label of a training sample that has none."""


@dataclass(frozen=True, eq=False)
class Part:
    """One split as a source lists it, before anything is checked or split off. `labels` are class names, one a sample.

    `content(i)` fetches sample i as its kind of data has it (an image: `Content`) and may raise KdcError; `where(i)`
    names it in messages: a path, or a file and row.
    `pixel_range`: how encoded images of more than 8 bits are read (see `images.decode`). `groups`: what no split is to
    tear apart, such as the speaker of each sample; empty: nothing is.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    content: Callable[[int], Any]
    where: Callable[[int], str]
    encoded: bool
    pixel_range: PixelRange | None = None
    groups: tuple[str, ...] = ()


# A sample that can be read: the part that it came in, its row there, and the digest of what it shows.
Sample: TypeAlias = tuple[Part, int, bytes]


@dataclass(frozen=True, eq=False)
class Found:
    """What a source holds: the classes in its own order, its parts by split name, and what a reader should know."""

    class_names: tuple[str, ...]
    parts: Mapping[str, Part]
    notes: tuple[str, ...] = ()

    def samples(self) -> Iterator[tuple[Part, int]]:
        """Every sample as (part, row): train first, and within a split in the source's order."""
        ordered = [self.parts[name] for name in WANTED if name in self.parts]
        return ((part, row) for part in ordered for row in range(len(part.ids)))


@dataclass(frozen=True, eq=False)
class Split:
    """One of train, validation and test. `ids` are unique and never absolute paths; `labels` int64 [N] index the class
    names, or are UNLABELLED, in train alone; `read(i)` gives sample i as its task works with it (an image in RGB), or
    raises KdcError naming its path or row. `contents`, uint64 [N]: the first 8 bytes of the digest of what each sample
    shows (`contents_of`), whatever it is called and in whatever file it lies."""

    name: str
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    read: Callable[[int], Any]
    contents: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, rows: NDArray[np.int64], labels: NDArray[np.int64] | None = None) -> "Split":
        """The samples `rows`, int64 [n], in that order; with other `labels`, int64 [n], where some are given."""
        return Split(
            name=self.name,
            ids=tuple(self.ids[row] for row in rows),
            labels=self.labels[rows] if labels is None else labels,
            read=lambda number: self.read(int(rows[number])),
            contents=self.contents[rows],
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """Checked data: every sample can be read, every class stands in train, no sample stands in two splits. `samples`:
    what these are called."""

    info: DataInfo
    train: Split
    validation: Split
    test: Split
    samples: str = "images"


def contents_of(digests: Iterable[bytes]) -> NDArray[np.uint64]:
    """The first 8 bytes of each digest, as one number: among a million images, two different ones get the same by
    chance once in 37 million data sets."""
    return np.array([int.from_bytes(digest[:8], "big") for digest in digests], np.uint64)


def drawn(split: Split, row: int, salt: str) -> tuple[bytes, str]:
    """What to sort samples by, to draw some of them: a hash of what they show, so that the same ones are drawn whatever
    they are called and in whatever order they come. `salt` keeps one drawing apart from another."""
    return hashlib.sha256(f"{salt}\n{split.contents[row]}".encode()).digest(), split.ids[row]
