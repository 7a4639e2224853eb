"""A part of a resized image is, bit for bit, what Pillow makes of the whole; a strip takes no gigabytes."""

import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from compressor.schema.preprocess import ImagePreprocess, Interpolation
from compressor.tasks.image_classification import resize_and_crop
from compressor.tasks.image_classification.preprocessing import RESAMPLE
from compressor.tasks.image_classification.resampling import resized_window

SHAPES = [
    ((3, 50), (40, 666)),
    ((50, 3), (666, 40)),
    ((37, 53), (37, 20)),
    ((20, 53), (37, 53)),
    ((100, 80), (31, 22)),
    ((1, 300), (32, 9600)),
    ((300, 1), (9600, 32)),
    ((1, 1), (5, 7)),
]


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_a_part_equals_pillows_whole(
    shape: tuple[int, int], size: tuple[int, int], interpolation: Interpolation
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    (height, width), how = size, RESAMPLE[interpolation]
    whole = np.asarray(Image.fromarray(pixels).resize((width, height), how))
    for (top, rows), (left, columns) in (
        ((height // 3, min(20, height - height // 3)), (width // 2 - 2, 5)),
        ((0, height), (0, width)),
        ((height - 1, 1), (width - 1, 1)),
    ):
        found = resized_window(pixels, size, ((top, rows), (left, columns)), interpolation)
        assert np.array_equal(found, whole[top : top + rows, left : left + columns])


def strip(side: int = 224, **others: object) -> ImagePreprocess:
    return ImagePreprocess.model_validate(
        {"input_size": (side, side), "resize": (side, side), "mean": (0, 0, 0), "std": (1, 1, 1), **others}
    )


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize("upright", [True, False])
def test_a_strip_that_is_cropped_before_it_is_resized(upright: bool, interpolation: Interpolation) -> None:
    """2 x 30,000 at 32 px: 15 million pixels wide is what Pillow still does; the same with another bound."""
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3_000, 3), np.uint8)
    image = Image.fromarray(pixels.swapaxes(0, 1).copy() if upright else pixels)
    how = strip(32, interpolation=interpolation)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compressor.tasks.image_classification.preprocessing.MOST_SIDE", 1 << 30)
        whole = resize_and_crop(image, how)
        patch.setattr("compressor.tasks.image_classification.preprocessing.MOST_SIDE", 1_000)
        assert np.array_equal(resize_and_crop(image, how), whole)
    assert whole.std() > 10


STRIPS = """
import resource, sys
import numpy as np
from PIL import Image
from compressor.tasks.image_classification import resize_and_crop
from compressor.schema.preprocess import ImagePreprocess
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
how = ImagePreprocess(input_size=(224, 224), resize=(256, 256), mean=(0, 0, 0), std=(1, 1, 1))
for shape in ((1, 20_000), (20_000, 1), (1, 100_000), (100_000, 1), (3, 1_000_000), (1, 1)):
    pixels = np.full((*shape, 3), 7, np.uint8)
    pixels[shape[0] // 2, shape[1] // 2] = 200
    found = resize_and_crop(Image.fromarray(pixels), how)
    assert found.shape == (224, 224, 3) and found.min() >= 0 and found.max() >= 190, (shape, found.max())
oblong = how.model_copy(update={"resize": (64, 256)})
assert resize_and_crop(Image.fromarray(np.full((1, 50_000, 3), 7, np.uint8)), oblong).max() == 7
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_strip_takes_no_gigabytes() -> None:
    """Resized whole, 1 x 100,000 would be 22 million pixels long and 224 high: 20 GB."""
    ended = subprocess.run([sys.executable, "-c", STRIPS], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 300, "MB"
