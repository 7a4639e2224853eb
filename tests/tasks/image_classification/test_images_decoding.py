"""decode_split: the pixels, the file, and what happens on a full disk or a damaged image."""

import resource
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image

from compressor.data.samples import Split
from compressor.errors import KdcError
from compressor.progress import Silent
from compressor.schema.preprocess import ImagePreprocess
from compressor.tasks.image_classification import decode_split, resize_and_crop

MakeImage = Callable[..., Image.Image]
T = TypeVar("T")
HOW = ImagePreprocess(input_size=(6, 8), resize=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def split_of(image: Callable[[int], Image.Image], count: int) -> Split:
    return Split(
        "train", tuple(map(str, range(count))), np.zeros(count, np.int64), image, np.arange(count, dtype=np.uint64)
    )


@pytest.mark.parametrize("count", [1, 15, 16, 17, 300])
def test_pixels_stand_in_order(make_image: MakeImage, tmp_path: Path, count: int) -> None:
    path = tmp_path / "deep" / "pixels.npy"
    pixels = decode_split(split_of(make_image, count), HOW, path, Silent())
    assert isinstance(pixels, np.memmap)
    assert not pixels.flags.writeable
    assert pixels.shape == (count, 6, 8, 3)
    assert pixels.dtype == np.uint8
    for row in range(0, count, 7):
        assert np.array_equal(pixels[row], resize_and_crop(make_image(row), HOW))
    assert np.array_equal(np.load(path), pixels)
    assert [entry.name for entry in path.parent.iterdir()] == ["pixels.npy"]


def test_a_damaged_image_leaves_no_file(make_image: MakeImage, tmp_path: Path) -> None:
    def image(row: int) -> Image.Image:
        if row == 70:
            raise KdcError("cat/70.jpg cannot be decoded")
        return make_image(row)

    with pytest.raises(KdcError, match=r"cat/70\.jpg"):
        decode_split(split_of(image, 100), HOW, tmp_path / "pixels.npy", Silent())
    assert list(tmp_path.iterdir()) == []


def test_few_images_are_decoded_ahead(make_image: MakeImage, tmp_path: Path) -> None:
    """A slow reader must not make decoded images pile up."""
    begun = 0
    lock = threading.Lock()
    furthest = 0

    def image(row: int) -> Image.Image:
        nonlocal begun
        with lock:
            begun += 1
        return make_image(row)

    class Slow(Silent):
        def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
            nonlocal furthest
            for number, item in enumerate(items):
                with lock:
                    furthest = max(furthest, begun - number)
                yield item

    decode_split(split_of(image, 3000), HOW, tmp_path / "pixels.npy", Slow())
    assert begun == 3000
    assert furthest <= 16 * (16 * 3 + 2)


def test_a_full_disk_is_an_error_not_a_signal(make_image: MakeImage, tmp_path: Path) -> None:
    """The limit on the size of files stands in for a full disk: a write through a memory map would not see either."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(KdcError, match=r"File too large while writing .*pixels\.npy") as raised:
            decode_split(split_of(make_image, 300), HOW, tmp_path / "pixels.npy", Silent())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert raised.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(make_image: MakeImage, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KdcError, match="while writing"):
        decode_split(split_of(make_image, 3), HOW, tmp_path / "file" / "pixels.npy", Silent())
