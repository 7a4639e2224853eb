"""How an image becomes the model's input, as data (preprocess.json), in words, and as constants for C++; and the
example programs that classify images. It needs no torch."""

import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.runtimes import Example
from compressor.schema.bundle import Variant
from compressor.schema.manifest import ModelInput
from compressor.schema.preprocess import ImagePreprocess
from compressor.tasks.shipping import Shipping

__all__ = ["SHIPPING", "cpp_header", "model_input"]

SHARED = ("classify_images.py", "classify_files.py", "classify_classes.py")
SHARED_CPP = ("classify_images.hpp", "CMakeLists.txt")


class ImageShipping(Shipping):
    """Images: programs in Python, and in C++ where the runtime has one."""

    sample = "image"
    in_card = "RGB image"
    task_in_card = ImagePreprocess.task
    reads = "classify.py reads plain PNG, PPM and PGM by itself, JPEG and others with Pillow (`pip install pillow`)."
    argument = "IMAGE"
    prepared = "`preprocess.json` says how an image becomes the input, in words too"

    def input_files(self, variant: Variant, batch: int, model: str, cpp: bool) -> dict[str, bytes]:
        assert isinstance(variant.preprocess, ImagePreprocess), "the noun checks that its task's class stands there"
        given = model_input(variant.preprocess, batch, pixels=variant.baked)
        files = {"preprocess.json": (given.model_dump_json(indent=2) + "\n").encode()}
        return files | ({"preprocess.h": cpp_header(given, model).encode()} if cpp else {})

    def programs(self, example: Example) -> dict[str, str]:
        names = {name: name for name in (*SHARED, *example.beside)} | {"classify.py": example.python}
        if example.cpp:
            names |= {name: name for name in SHARED_CPP} | {"classify.cpp": example.cpp}
        return names

    def picture(self, stored: NDArray[Any], most: int) -> tuple[str, bytes] | None:
        """Not compressed, so that the same image is the same bytes with every release of zlib."""
        if stored.ndim != 3 or stored.shape[2] != 3 or stored.dtype != np.uint8 or not stored.size:
            return None
        from PIL import Image

        image = Image.fromarray(stored)
        image.thumbnail((most, most), Image.Resampling.BOX)
        file = io.BytesIO()
        image.save(file, "BMP")
        return "image/bmp", file.getvalue()


SHIPPING = ImageShipping()


def model_input(preprocess: ImagePreprocess, batch: int, *, pixels: bool) -> ModelInput:
    """The input lies [batch, 3, height, width], float32; one of `pixels`, uint8, [batch, height, width, 3]."""
    height, width = preprocess.input_size
    low = [(0 - mean) / std for mean, std in zip(preprocess.mean, preprocess.std, strict=True)]
    high = [(1 - mean) / std for mean, std in zip(preprocess.mean, preprocess.std, strict=True)]
    ranges = [(0.0, 255.0)] * 3 if pixels else [(round(a, 6), round(b, 6)) for a, b in zip(low, high, strict=True)]
    return ModelInput(
        name="image" if pixels else "input",
        type="uint8" if pixels else "float32",
        layout="NHWC" if pixels else "NCHW",
        shape=(batch, height, width, 3) if pixels else (batch, 3, height, width),
        resize=preprocess.resize,
        resize_mode=preprocess.resize_mode,
        interpolation=preprocess.interpolation,
        input_size=preprocess.input_size,
        mean=preprocess.mean,
        std=preprocess.std,
        pixel_range=preprocess.pixel_range,
        value_range=(ranges[0], ranges[1], ranges[2]),
        steps=_steps(preprocess, pixels),
    )


def _steps(preprocess: ImagePreprocess, pixels: bool) -> tuple[str, ...]:
    (to_height, to_width), (height, width) = preprocess.resize, preprocess.input_size
    if preprocess.resize_mode == "squash":
        resize = f"resize to {to_height}×{to_width} (height×width), whatever the aspect"
    elif to_height == to_width:
        resize = f"resize so that the shorter side is {to_height}, keeping the aspect; round the longer one down"
    else:
        resize = f"resize so that height ≥ {to_height} and width ≥ {to_width} are just covered, keeping the aspect"
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (preprocess.mean, preprocess.std))
    last = "hand over the pixels as they are: the model normalizes them itself"
    if not pixels:
        last = f"(pixel / 255 - mean) / std for each channel; mean {mean}; std {std}"
    black, white = preprocess.pixel_range or (0, 65535)
    return (
        "decode to RGB, 8 bit a channel, turned upright as EXIF says; drop alpha; of deeper grey images "
        f"{black:.10g} becomes 0 and {white:.10g} becomes 255, linearly, and what lies outside is cut off",
        f"{resize}; {preprocess.interpolation} with antialiasing, as Pillow's resize does (OpenCV's does not)",
        f"crop {height}×{width} at the centre; where the image is smaller, pad black",
        last,
        "lay it out as [batch, height, width, channel], NHWC, uint8"
        if pixels
        else "lay it out as [batch, channel, height, width], NCHW, float32",
    )


def cpp_header(given: ModelInput, model: str) -> str:
    """preprocess.h: the same, and the model's file, as constants."""
    text = json.dumps  # a JSON text is a C++ string literal, as long as nothing but ASCII is escaped

    def numbers(values: tuple[float, ...]) -> str:
        return "{" + ", ".join(f"{value!r}f" for value in values) + "}"

    black, white = given.pixel_range or (0.0, 65535.0)

    return (
        "// Made by kdc: what preprocess.json says, for C++.\n"
        "#pragma once\n\n"
        "namespace preprocess {\n\n"
        f"constexpr const char* model_file = {text(model)};\n"
        f"constexpr const char* input_name = {text(given.name)};\n"
        f"constexpr bool takes_pixels = {str(given.type == 'uint8').lower()};  // uint8 [batch, height, width, 3]\n"
        f"constexpr int batch = {given.shape[0]};\n"
        f"constexpr int height = {given.input_size[0]}, width = {given.input_size[1]};\n"
        f"constexpr int resize_height = {given.resize[0]}, resize_width = {given.resize[1]};\n"
        f"constexpr bool keep_aspect = {str(given.resize_mode == 'shorter').lower()};\n"
        f"constexpr double black = {float(black)!r}, white = {float(white)!r};  // of grey images of 16 bit\n"
        f"constexpr const char* interpolation = {text(given.interpolation)};\n"
        f"constexpr float mean[3] = {numbers(given.mean)};\n"
        f"constexpr float std_dev[3] = {numbers(given.std)};\n\n"
        "}  // namespace preprocess\n"
    )
