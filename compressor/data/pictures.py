"""Encoded bytes -> RGB picture -> the uint8 pixels that a model wants -> normalised float32."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from compressor.errors import KdcError
from compressor.spec.preprocess import Preprocess

__all__ = ["SUFFIXES", "decode", "normalise", "pillow_warnings_ignored", "resize_and_crop"]

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .bmp .gif .webp .tif .tiff .ppm .pgm .pbm .pnm .jp2 .avif".split()  # noqa: SIM905
)
# Pillow goes by content, not by suffix, and would hand an EPS file to Ghostscript, whatever its name: name the formats.
Image.init()
FORMATS = tuple(
    name
    for name in ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
    if name in Image.OPEN
)
ORIENTATION_TAG = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def decode(encoded: bytes, where: str) -> Image.Image:
    """The first frame of an encoded picture in RGB; raises KdcError that names `where` if it cannot be decoded whole.

    - The EXIF orientation is applied: a phone's picture comes out upright, as its labeller saw it and as a camera's
      frame on the device will be (Hugging Face does so too; torchvision's ImageFolder does not). Code on a device that
      reads picture FILES must apply it as well.
    - Alpha is dropped, not composited, and CMYK goes the plain way: Pillow's `convert("RGB")`, as in torchvision.
    - 16-bit greyscale is scaled (65535 -> 255), where `convert("RGB")` would clip everything above 255 to white.
    """
    if not encoded:
        raise KdcError(f"{where} cannot be decoded: it is empty")
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as picture:
            picture.load()
            upright = UPRIGHT.get(picture.getexif().get(ORIENTATION_TAG, 1))
            rgb = _to_rgb(picture)
            return rgb if upright is None else rgb.transpose(upright)
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise KdcError(f"{where} cannot be decoded: it is no picture ({', '.join(FORMATS)} are read)") from None
    except Exception as error:  # on damaged bytes, Pillow's decoders raise nearly anything
        raise KdcError(f"{where} cannot be decoded: {error or type(error).__name__}") from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    mode = picture.mode
    # Pillow opens 16-bit PGM (and, before version 11, 16-bit PNG) as 32-bit integers that stay within 16 bits.
    if mode.startswith("I;16") or (mode == "I" and picture.format in ("PNG", "PPM")):
        wide = np.asarray(picture).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit {'integers' if mode == 'I' else 'floats'} of unknown range, not 8 bit")
    if mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # the same colours, without Pillow's warning
    return picture.convert("RGB")


@contextmanager
def pillow_warnings_ignored() -> Iterator[None]:
    """No warnings from Pillow (odd EXIF, 90-megapixel pictures) inside: what matters comes as an exception anyway.

    To be entered around a thread pool, not inside its workers: Python's warning filters are shared between threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def resize_and_crop(picture: Image.Image, how: Preprocess) -> NDArray[np.uint8]:
    """An RGB picture as uint8 [height, width, 3]: bit for bit what timm's evaluation transform does.

    For "shorter" with unequal sides in `resize` (a model with an oblong input), timm scales until both sides cover
    `resize`, and rounds; with equal sides, torchvision's Resize truncates. Where the picture is smaller than the crop,
    black is padded.
    """
    size = _resized(picture.height, picture.width, how)
    if size != (picture.height, picture.width):
        picture = picture.resize((size[1], size[0]), RESAMPLE[how.interpolation])
    return _centre_crop(np.asarray(picture), *how.input_size)


def _resized(height: int, width: int, how: Preprocess) -> tuple[int, int]:
    to_height, to_width = how.resize
    if how.resize_mode == "squash":
        return to_height, to_width
    if to_height != to_width:
        ratio = min(height / to_height, width / to_width)
        return max(1, round(height / ratio)), max(1, round(width / ratio))
    if height <= width:
        return to_height, int(to_height * width / height)
    return int(to_height * height / width), to_height


def _centre_crop(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    missing = max(0, height - pixels.shape[0]), max(0, width - pixels.shape[1])
    if any(missing):
        pixels = np.pad(pixels, (*((m // 2, (m + 1) // 2) for m in missing), (0, 0)))
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def normalise(pixels: NDArray[np.uint8], how: Preprocess) -> NDArray[np.float32]:
    """uint8 [N, h, w, 3] -> float32 [N, 3, h, w], `(pixel / 255 - mean) / std` in float32 and in that order, so that
    it equals torchvision's ToTensor and Normalize to the last bit."""
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32)
    planes /= np.float32(255)
    planes -= np.asarray(how.mean, np.float32)[:, None, None]
    planes /= np.asarray(how.std, np.float32)[:, None, None]
    return planes
