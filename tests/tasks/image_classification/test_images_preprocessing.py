"""resize_and_crop and normalise against timm's evaluation transform and Hugging Face's processor, to the last bit."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from timm.data import create_transform

from compressor.schema.preprocess import ImagePreprocess, Interpolation
from compressor.tasks.image_classification import normalise, resize_and_crop
from tests.kit import version_of

MakeImage = Callable[..., Image.Image]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SIZES = [(37, 53), (53, 37), (40, 40), (224, 224), (300, 101), (9, 200), (255, 257), (3, 3), (1, 50)]


def timm_transform(size: tuple[int, int], **options: Any) -> Any:
    return create_transform((3, *size), is_training=False, mean=MEAN, std=STD, **options)


def settings(size: tuple[int, int], crop_pct: float, **others: Any) -> ImagePreprocess:
    resize = int(size[0] / crop_pct), int(size[1] / crop_pct)
    return ImagePreprocess(input_size=size, resize=resize, mean=MEAN, std=STD, **others)


def same(image: Image.Image, how: ImagePreprocess, transform: Any) -> None:
    pixels = resize_and_crop(image, how)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*how.input_size, 3)
    assert np.array_equal(normalise(pixels[None], how)[0], transform(image).numpy())


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("crop_pct", [1.0, 0.95, 0.875, 0.5])
@pytest.mark.parametrize("mode", ["center", "squash"])
def test_timm_sizes_and_crops(make_image: MakeImage, shape: tuple[int, int], crop_pct: float, mode: str) -> None:
    for side in (31, 32, 64):
        how = settings((side, side), crop_pct, resize_mode="squash" if mode == "squash" else "shorter")
        transform = timm_transform((side, side), crop_pct=crop_pct, crop_mode=mode, interpolation="bicubic")
        same(make_image(1, *shape), how, transform)


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
def test_timm_interpolations(make_image: MakeImage, interpolation: Interpolation) -> None:
    how = settings((48, 48), 0.875, interpolation=interpolation)
    same(make_image(2, 100, 130), how, timm_transform((48, 48), crop_pct=0.875, interpolation=interpolation))


@pytest.mark.parametrize("shape", SIZES[:-1])  # timm itself fails on a side that rounds to 0
@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_timm_oblong_inputs(
    make_image: MakeImage, shape: tuple[int, int], mode: str, interpolation: Interpolation
) -> None:
    if (mode, interpolation) == ("center", "bicubic") and version_of("timm") < (1, 0, 31):
        pytest.skip("timm below 1.0.31 resizes for an oblong crop bilinearly, whatever is asked for")
    resize_mode = "squash" if mode == "squash" else "shorter"
    how = settings((32, 56), 0.9, resize_mode=resize_mode, interpolation=interpolation)
    transform = timm_transform((32, 56), crop_pct=0.9, crop_mode=mode, interpolation=interpolation)
    same(make_image(3, *shape), how, transform)


def test_a_image_smaller_than_the_crop_is_padded_with_black() -> None:
    white = Image.new("RGB", (4, 4), "white")
    how = ImagePreprocess(input_size=(7, 6), resize=(4, 4), mean=MEAN, std=STD)
    pixels = resize_and_crop(white, how)[..., 0]
    expected = np.zeros((7, 6), np.uint8)
    expected[1:5, 1:5] = 255  # 3 rows are missing: 1 above and 2 below; 2 columns: 1 on each side
    assert np.array_equal(pixels, expected)
    transform = timm_transform((7, 6), crop_pct=1.0)
    transform.transforms = transform.transforms[1:]  # without its resize
    same(white, how, transform)


@pytest.mark.parametrize("shape", SIZES)
def test_hugging_face_squash(make_image: MakeImage, shape: tuple[int, int]) -> None:
    image = make_image(4, *shape)
    vit = pytest.importorskip("transformers.models.vit.image_processing_pil_vit")
    processor = vit.ViTImageProcessorPil(
        size={"height": 48, "width": 40}, resample=Image.Resampling.BILINEAR, image_mean=MEAN, image_std=STD
    )
    how = ImagePreprocess(
        input_size=(48, 40), resize=(48, 40), resize_mode="squash", interpolation="bilinear", mean=MEAN, std=STD
    )
    theirs = processor(image, return_tensors="np")["pixel_values"]
    assert np.abs(normalise(resize_and_crop(image, how)[None], how) - theirs).max() < 1e-6


def test_normalise_by_hand() -> None:
    how = ImagePreprocess(input_size=(1, 1), resize=(1, 1), mean=(0.5, 0.0, 1.0), std=(0.5, 1.0, 2.0))
    values = normalise(np.array([[[[255, 51, 0]]]], np.uint8), how)
    assert values.dtype == np.float32
    assert values.flags.c_contiguous
    assert values.ravel().tolist() == [1.0, pytest.approx(0.2), -0.5]
