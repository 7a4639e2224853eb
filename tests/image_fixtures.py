"""Small generated images, and folders of them."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeImage = Callable[..., Image.Image]
MakeBytes = Callable[..., bytes]
MakeFolder = Callable[..., Path]


def _image(seed: int, height: int = 12, width: int = 10) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def _encoded(seed: int, suffix: str = "PNG", height: int = 12, width: int = 10) -> bytes:
    file = io.BytesIO()
    _image(seed, height, width).save(file, suffix)
    return file.getvalue()


@pytest.fixture
def make_image() -> MakeImage:
    return _image


@pytest.fixture
def make_bytes() -> MakeBytes:
    return _encoded


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """`make_folder({"cat": 10, "dog": 12})`: a folder with so many images a class; keys may be "train/cat"."""

    def make(counts: dict[str, int], name: str = "images") -> Path:
        root = tmp_path / name
        for number, (folder, count) in enumerate(counts.items()):
            (root / folder).mkdir(parents=True)
            for image in range(count):
                (root / folder / f"{image:03}.png").write_bytes(_encoded(1000 * number + image))
        return root

    return make
