"""Encoded bytes -> RGB image -> the uint8 pixels that a model wants -> normalised float32."""

import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from compressor.errors import KdcError, first_line
from compressor.schema.preprocess import ImagePreprocess, PixelRange, Preprocess
from compressor.tasks.image_classification.depth import Seen, colour_of, grey_of, mend_tiles, swapped
from compressor.tasks.image_classification.resampling import resized_window

__all__ = [
    "MOST_PIXELS",
    "SUFFIXES",
    "decode",
    "normalise",
    "of_images",
    "pillow_warnings_ignored",
    "read",
    "resize_and_crop",
]

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
MOST_PIXELS = 178_956_970
"""Of an image: where Pillow takes it for a decompression bomb. The shipped examples have the same bound."""
TOO_LARGE = f"it has more than {MOST_PIXELS:,} pixels, the most that is read"
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC, START_OF_SCAN = b"\xff\xd8", 0xDA
SEGMENTS = {*range(0xE0, 0xF0), 0xFE} - {0xEE}
PNG_PIXELS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")
"""What an image is made of besides its critical chunks, whose names begin with a capital letter."""
MOST_RESIZED, MOST_SIDE = 1 << 24, 1 << 17
"""Pixels of a resized image, and of its side, that Pillow is asked for whole: 64 MB, and as much for its weights."""
RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def decode(encoded: bytes, where: str, pixel_range: PixelRange | None = None) -> Image.Image:
    """The first frame of an encoded image in RGB; raises KdcError that names `where` if it cannot be decoded whole.

    - The EXIF orientation is applied: a phone's image comes out upright, as its labeller saw it and as a camera's
      frame on the device will be (Hugging Face does so too; torchvision's ImageFolder does not). Code on a device that
      reads image FILES must apply it as well. Where EXIF or XMP is damaged, the pixels are read, unturned.
    - Alpha is dropped, not composited, and CMYK goes the plain way: Pillow's `convert("RGB")`, as in torchvision. So
      are colour profiles.
    - Greyscale of more than 8 bits is scaled: the values of `pixel_range` become 0 to 255, by default the whole range
      of its kind (65535 -> 255), where `convert("RGB")` would clip everything above 255 to white. 32-bit pixels have no
      range of their own, and are read where one is stated. So is RGB of 16 bits a channel; else its upper 8 are read.
      JPEG 2000, and a PGM whose largest value is not 65535, are brought to 16 bits before.
    """
    return read(encoded, where, pixel_range)[0]


def read(encoded: bytes, where: str, pixel_range: PixelRange | None = None) -> tuple[Image.Image, Seen]:
    """As `decode`, and what is to be said of the file."""
    if not encoded:
        raise KdcError(f"{where} cannot be decoded: it is empty")
    try:
        try:
            return _read(encoded, pixel_range)
        except (MemoryError, Image.DecompressionBombError):
            raise
        except Exception:
            bare = _without_metadata(encoded)
            if bare is None:
                raise
            return _read(bare, pixel_range)
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        raise KdcError(f"{where} cannot be decoded: {TOO_LARGE}", "make it smaller") from None
    except UnidentifiedImageError:
        reason = f"it is no image ({', '.join(FORMATS)} are read)"
        if encoded[:4] in TIFF_MAGIC:
            reason = "it is a TIFF of a kind that Pillow does not read"
        raise KdcError(f"{where} cannot be decoded: {reason}") from None
    except Exception as error:  # on damaged bytes, Pillow's decoders raise nearly anything
        raise KdcError(f"{where} cannot be decoded: {first_line(error) or type(error).__name__}") from error


def _read(encoded: bytes, pixel_range: PixelRange | None) -> tuple[Image.Image, Seen]:
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        if image.width * image.height > MOST_PIXELS:
            raise Image.DecompressionBombError
        mend_tiles(image)
        packed = any(_is_deep(tile[3]) for tile in image.tile)
        image.load()
        if image.mode.startswith("I;16") or image.mode in ("I", "F"):
            grey, seen = grey_of(image, pixel_range)
            rgb = Image.fromarray(grey).convert("RGB")
        else:
            lower = _lower_bytes(encoded) if packed and pixel_range is not None else None
            rgb, seen = colour_of(image, packed, lower, pixel_range)
        upright = _upright(image)
        if upright is not None:
            rgb = rgb.transpose(upright)
            seen = replace(seen, shown=seen.shown and seen.shown.transpose(upright))
        with suppress(Exception):  # a later frame may be damaged, and is not read; MPO: a camera's own extras
            if image.format != "MPO" and getattr(image, "is_animated", False):
                seen = replace(seen, several=True)
        return rgb, seen


def _is_deep(arguments: object) -> bool:
    """Whether pixels are unpacked from 16 bits a channel: a tile of Pillow's says "RGB;16B", or of a PPM its largest
    value."""
    parts = arguments if isinstance(arguments, tuple) else (arguments,)
    return ";16" in str(parts[0]) or (len(parts) == 2 and isinstance(parts[1], int) and parts[1] > 255)


def _upright(image: Image.Image) -> Image.Transpose | None:
    """How to turn an image, as its metadata say; not at all where they are damaged."""
    with suppress(Exception):
        return UPRIGHT.get(image.getexif().get(ORIENTATION_TAG, 1))
    return None


def _without_metadata(encoded: bytes) -> bytes | None:
    """A PNG or JPEG without its texts, profiles and the like, whose damage (or size) is no reason to refuse sound
    pixels; None where there is nothing to leave out."""
    if encoded.startswith(JPEG_MAGIC):
        return _without_segments(encoded)
    if not encoded.startswith(PNG_MAGIC):
        return None
    kept, offset = [PNG_MAGIC], len(PNG_MAGIC)
    while offset + 8 <= len(encoded):
        end = offset + 12 + int.from_bytes(encoded[offset : offset + 4], "big")
        kind, checked = encoded[offset + 4 : offset + 8], encoded[offset + 4 : end - 4]
        sound = zlib.crc32(checked) == int.from_bytes(encoded[end - 4 : end], "big")
        if kind[:1].isupper() or kind in PNG_PIXELS or (kind == b"eXIf" and sound):
            kept.append(encoded[offset:end])
        offset = end
    bare = b"".join(kept)
    return bare if len(bare) < len(encoded) else None


def _without_segments(encoded: bytes) -> bytes | None:
    """A JPEG without comments and what applications add, but Adobe's segment 14, which says what the colours mean."""
    kept, offset = [JPEG_MAGIC], len(JPEG_MAGIC)
    while offset + 4 <= len(encoded) and encoded[offset] == 0xFF and encoded[offset + 1] != START_OF_SCAN:
        end = offset + 2 + int.from_bytes(encoded[offset + 2 : offset + 4], "big")
        if encoded[offset + 1] not in SEGMENTS:
            kept.append(encoded[offset:end])
        offset = end
    bare = b"".join([*kept, encoded[offset:]])
    return bare if len(bare) < len(encoded) else None


def _lower_bytes(encoded: bytes) -> Image.Image | None:
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        if not swapped(image):
            return None
        image.load()
        return image


@contextmanager
def pillow_warnings_ignored() -> Iterator[None]:
    """No warnings from Pillow (odd EXIF, 90-megapixel images) inside: what matters comes as an exception anyway.

    To be entered around a thread pool, not inside its workers: Python's warning filters are shared between threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def resize_and_crop(image: Image.Image, preprocess: ImagePreprocess) -> NDArray[np.uint8]:
    """An RGB image as uint8 [height, width, 3]: bit for bit what timm's evaluation transform does.

    For "shorter" with unequal sides in `resize` (a model with an oblong input), timm scales until both sides cover
    `resize`, and rounds; with equal sides, torchvision's Resize truncates. Where the image is smaller than the crop,
    black is padded. Of a long strip, whose resized image would take gigabytes, only the crop is computed.
    """
    size = _resized(image.height, image.width, preprocess)
    if (
        size[0] * size[1] > max(MOST_RESIZED, 4 * preprocess.input_size[0] * preprocess.input_size[1])
        or max(size) > MOST_SIDE
    ):
        starts = [max(0, round((side - crop) / 2)) for side, crop in zip(size, preprocess.input_size, strict=True)]
        window = [
            (start, min(crop, side)) for start, side, crop in zip(starts, size, preprocess.input_size, strict=True)
        ]
        return _centre_crop(
            resized_window(np.asarray(image), size, window, preprocess.interpolation), *preprocess.input_size
        )
    if size != (image.height, image.width):
        image = image.resize((size[1], size[0]), RESAMPLE[preprocess.interpolation])
    return _centre_crop(np.asarray(image), *preprocess.input_size)


def _resized(height: int, width: int, preprocess: ImagePreprocess) -> tuple[int, int]:
    to_height, to_width = preprocess.resize
    if preprocess.resize_mode == "squash":
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


def normalise(pixels: NDArray[np.uint8], preprocess: ImagePreprocess) -> NDArray[np.float32]:
    """uint8 [N, h, w, 3] -> float32 [N, 3, h, w], `(pixel / 255 - mean) / std` in float32 and in that order, so that
    it equals torchvision's ToTensor and Normalize to the last bit."""
    planes = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32)
    planes /= np.float32(255)
    planes -= np.asarray(preprocess.mean, np.float32)[:, None, None]
    planes /= np.asarray(preprocess.std, np.float32)[:, None, None]
    return planes


def of_images(preprocess: Preprocess) -> ImagePreprocess:
    """`preprocess`, which must be of this task."""
    assert isinstance(preprocess, ImagePreprocess), f"{type(preprocess).__name__} is of another task"
    return preprocess
