"""Reads an image's file for the example programs: with Pillow where it is installed, else plain PNG, PPM and PGM.

Standard library and numpy only; runs on Python 3.9 and later.
"""

from __future__ import annotations

import importlib
import io
import re
import stat
import struct
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # [height, width, 3], RGB
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # PNG's colour types: grey, RGB, palette, grey and alpha, RGB and alpha
MOST_PIXELS, MOST_BYTES = 178_956_970, 1_000_000_000  # of an image, and of its file
TURNED = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF's orientation -> Pillow's Transpose
SEGMENTS = {*range(0xE0, 0xF0), 0xFE} - {0xEE}
TEXTS = (b"tEXt", b"zTXt", b"iTXt")
PNG_PIXELS = (b"tRNS", b"acTL", b"fcTL", b"fdAT")  # what an image is made of besides PNG's critical chunks
NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}  # large byte first, and as this machine has it


class ImageError(Exception):
    """The image cannot be read: one line for people."""


def read_image(path: Path, pixel_range: Any = None) -> Pixels:
    """The image, upright, in RGB: [height, width, 3]. Alpha is dropped. `pixel_range`: of preprocess.json, which
    values become black and white in images of more than 8 bits a channel. Raises ImageError."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device may never end
            raise ImageError(f"{path} is no regular file")
        if status.st_size > MOST_BYTES:
            raise ImageError(f"{path} is larger than {MOST_BYTES:,} bytes, the most that is read")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    pillow = find_pillow()
    if pillow is not None:
        return with_pillow(path, content, pillow, pixel_range)
    try:
        pixels = png(content) if content[:8] == b"\x89PNG\r\n\x1a\n" else pnm(content)
    except (zlib.error, struct.error, ValueError, IndexError, KeyError) as error:
        raise ImageError(f"{path} is damaged: {error}") from error
    if pixels is None:
        raise ImageError(
            f"{path} needs Pillow: pip install pillow (or convert it to a plain PNG, 8 bit, not interlaced)"
        )
    return pixels


def find_pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError:
        return None


def with_pillow(path: Path, content: bytes, pillow: Any, pixel_range: Any) -> Pixels:
    """As kdc reads images for training: what it refuses is refused here."""
    pillow.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large images, odd metadata
        try:
            try:
                return opened(content, pillow, pixel_range)
            except pillow.DecompressionBombError:
                raise
            except Exception:
                bare = without_metadata(content)
                if bare is None:
                    raise
                return opened(bare, pillow, pixel_range)
        except pillow.DecompressionBombError:
            raise ImageError(f"{path} has more than {MOST_PIXELS:,} pixels, the most that is read") from None
        except Exception as error:  # on damaged bytes, Pillow's decoders raise nearly anything
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise ImageError(f"{path} is no image that can be read: {said}") from error


def opened(content: bytes, pillow: Any, pixel_range: Any) -> Pixels:
    known = [name for name in FORMATS if name in pillow.OPEN]
    with pillow.open(io.BytesIO(content), formats=known) as image:
        if image.width * image.height > MOST_PIXELS:
            raise pillow.DecompressionBombError
        mend_tiles(image)
        packed = any(is_deep(tile[3]) for tile in image.tile)
        image.load()
        try:
            turn = TURNED.get(image.getexif().get(0x0112, 1))
        except Exception:  # damaged metadata beside sound pixels
            turn = None
        rgb = in_rgb(image, packed and pixel_range is not None, pillow, pixel_range, content)
        return np.asarray(rgb if turn is None else rgb.transpose(turn))


def mend_tiles(image: Any) -> None:
    """Have Pillow read a TIFF as it lies: it takes 16 bits for 8 where each channel lies for itself, and turns signed
    and 32-bit values of a packed file of the other byte order, which libtiff has turned already."""
    if image.format != "TIFF":
        return
    deep, order = max(tag(image, 258) or (8,)) == 16, "B" if image.tag_v2.prefix == b"MM" else "L"
    for number, tile in enumerate(image.tile):
        codec, (mode, *rest) = tile[0], tile[3]
        if codec == "libtiff":
            mode = NATIVE.get(mode, mode)
        elif deep and len(mode) == 1:
            mode = f"{mode};16{order}"
        image.tile[number] = replaced(tile, (mode, *rest))


def replaced(tile: Any, arguments: Any) -> Any:
    """A tile of Pillow's, a plain tuple before version 11, with other arguments."""
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)


def is_deep(arguments: Any) -> bool:
    """Whether pixels are unpacked from 16 bits a channel, as a tile of Pillow's says."""
    parts = arguments if isinstance(arguments, tuple) else (arguments,)
    return ";16" in str(parts[0]) or (len(parts) == 2 and isinstance(parts[1], int) and parts[1] > 255)


def in_rgb(image: Any, in_range: bool, pillow: Any, pixel_range: Any, content: bytes) -> Any:
    """`in_range`: whether it has 16 bits a channel and its values are to be scaled; else the upper 8 bits count."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return pillow.fromarray(grey(image, pixel_range)).convert("RGB")
    if 2 in tag(image, 339):
        raise ValueError("its pixels are signed 8-bit integers, which are not read")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    rgb = image.convert("RGB")
    if not in_range:
        return rgb
    lower = lower_bytes(content, pillow) if image.mode.startswith("RGB") else None
    if lower is None:
        raise ValueError(f"it has 16 bits a channel, of which the upper 8 can be read: no pixel_range {pixel_range}")
    table = scaled(np.arange(65536), *pixel_range)
    return pillow.fromarray(table[np.asarray(rgb).astype(np.uint16) * np.uint16(256) + np.asarray(lower)])


def lower_bytes(content: bytes, pillow: Any) -> Any:
    """The lower bytes of an image of 16 bits a channel in colour, in RGB; None where Pillow has no such reader."""
    swapped = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
    with pillow.open(io.BytesIO(content)) as image:
        tiles = []
        for tile in image.tile:
            arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
            mode, _, order = str(arguments[0]).partition(";16")
            if mode not in ("RGB", "RGBA", "RGBX") or order not in swapped:
                return None
            raw_mode = f"{mode};16{swapped[order]}"
            args = (raw_mode, *arguments[1:]) if isinstance(tile[3], tuple) else raw_mode
            tiles.append(replaced(tile, args))
        image.tile = tiles
        return image.convert("RGB")


def scaled(values: Any, black: float, white: float) -> Pixels:
    with np.errstate(over="ignore"):
        levels = np.floor((values.astype(np.float64) - black) * 255 / (white - black) + 0.5)
    cut: Pixels = np.clip(levels, 0, 255).astype(np.uint8)
    return cut


def grey(image: Any, pixel_range: Any) -> Pixels:
    """One channel of more than 8 bits: scaled, where convert("RGB") would show everything above 255 as white."""
    values = np.asarray(image)
    if image.mode == "I" and tag(image, 258) == (32,) and 2 not in tag(image, 339):
        values = values.view(np.uint32)  # Pillow keeps their bits in signed numbers
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("some of its pixels are no finite numbers")
    if pixel_range is not None:
        black, white = pixel_range
    elif image.mode.startswith("I;16"):
        black, white = 0, 2 ** min(tag(image, 258) or (16,)) - 1
    elif image.mode == "I" and image.format in ("PNG", "PPM"):
        black, white = 0, 65535
    else:
        raise ValueError("its pixels are not 8 bit, and preprocess.json has no pixel_range for them")
    parts = np.array_split(values, max(1, values.size >> 22))  # in double precision they take eight times a byte
    levels = np.concatenate([scaled(part, black, white) for part in parts])
    return 255 - levels if tag(image, 262) == (0,) else levels  # a TIFF whose white is zero


def tag(image: Any, number: int) -> tuple[Any, ...]:
    """A tag of a TIFF; empty where there is none."""
    value = image.tag_v2.get(number) if image.format == "TIFF" and hasattr(image, "tag_v2") else None
    return () if value is None else value if isinstance(value, tuple) else (value,)


def without_metadata(content: bytes) -> bytes | None:
    """A PNG or JPEG without its texts, profiles and the like, damaged ones above all; None where it has none."""
    if content[:2] == b"\xff\xd8":
        return without_segments(content)
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return None
    kept, offset = [content[:8]], 8
    while offset + 8 <= len(content):
        end = offset + 12 + int.from_bytes(content[offset : offset + 4], "big")
        kind = content[offset + 4 : offset + 8]
        sound = zlib.crc32(content[offset + 4 : end - 4]) == int.from_bytes(content[end - 4 : end], "big")
        if kind[:1].isupper() or kind in PNG_PIXELS or (kind == b"eXIf" and sound):
            kept.append(content[offset:end])
        offset = end
    bare = b"".join(kept)
    return bare if len(bare) < len(content) else None


def without_segments(content: bytes) -> bytes | None:
    """A JPEG without comments and what applications add, but Adobe's segment 14, which says what the colours mean."""
    kept, offset = [content[:2]], 2
    while offset + 4 <= len(content) and content[offset] == 0xFF and content[offset + 1] != 0xDA:
        end = offset + 2 + int.from_bytes(content[offset + 2 : offset + 4], "big")
        if content[offset + 1] not in SEGMENTS:
            kept.append(content[offset:end])
        offset = end
    bare = b"".join([*kept, content[offset:]])
    return bare if len(bare) < len(content) else None


def png(content: bytes) -> Pixels | None:
    """A PNG (www.w3.org/TR/png): 8 bit, not interlaced; None for any other, and for one that a camera turned."""
    chunks: dict[bytes, bytes] = {}
    data, offset = [], 8
    while offset < len(content):
        length, kind = struct.unpack_from(">I4s", content, offset)
        body = content[offset + 8 : offset + 8 + length]
        if kind in TEXTS and body.startswith((b"Raw profile type", b"XML:com.adobe.xmp")):
            return None  # it may say how to turn the image
        if kind == b"IDAT":
            data.append(body)
        chunks[kind] = body
        offset += 12 + length
        if kind == b"IEND":
            break
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if depth != 8 or interlaced or b"eXIf" in chunks or colour not in CHANNELS:
        return None
    within(width, height)
    channels = CHANNELS[colour]
    wanted = height * (1 + width * channels)
    raw = np.frombuffer(zlib.decompressobj().decompress(b"".join(data), wanted), np.uint8)
    pixels = unfiltered(raw.reshape(height, 1 + width * channels), channels).reshape(height, width, channels)
    if colour == 3:
        return np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)[pixels[:, :, 0]]
    return np.repeat(pixels[:, :, :1], 3, axis=2) if channels < 3 else np.ascontiguousarray(pixels[:, :, :3])


def within(width: int, height: int) -> None:
    if not 1 <= width * height <= MOST_PIXELS:
        raise ValueError(f"it has {width:,} x {height:,} pixels, and at most {MOST_PIXELS:,} are read")


def unfiltered(rows: Pixels, channels: int) -> Pixels:
    """Undoes PNG's filters: each row begins with the number of its own (section 9 of the specification)."""
    out = np.zeros((len(rows) + 1, rows.shape[1] - 1), np.uint8)  # the row above the first one is zero
    for y, row in enumerate(rows):
        kind, coded = row[0], row[1:]
        if kind == 0:
            out[y + 1] = coded
        elif kind == 1:
            out[y + 1] = np.cumsum(coded.reshape(-1, channels), axis=0, dtype=np.uint8).ravel()
        elif kind == 2:
            out[y + 1] = coded + out[y]
        elif kind in (3, 4):
            out[y + 1] = along(coded.tobytes(), out[y].tobytes(), channels, paeth if kind == 4 else average)
        else:
            raise ValueError(f"a row of it has the filter {kind}")
    return out[1:]


def along(coded: bytes, above: bytes, channels: int, predict: Any) -> Pixels:
    """A row whose filter looks at the pixel before, so that it can only be done one after the other."""
    row = bytearray(channels) + bytearray(coded)
    above = bytes(channels) + above
    for x in range(channels, len(row)):
        row[x] = (row[x] + predict(row[x - channels], above[x], above[x - channels])) & 255
    return np.frombuffer(row, np.uint8)[channels:]


def average(left: int, above: int, corner: int) -> int:
    return (left + above) >> 1


def paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    by_left, by_above, by_corner = abs(guess - left), abs(guess - above), abs(guess - corner)
    if by_left <= by_above and by_left <= by_corner:
        return left
    return above if by_above <= by_corner else corner


def pnm(content: bytes) -> Pixels | None:
    """A binary PPM or PGM of 8 bit; None for anything else."""
    space = rb"(?:\s|#[^\n]*\n)+"
    header = re.match(rb"P([56])" + space + rb"(\d+)" + space + rb"(\d+)" + space + rb"255\s", content)
    if header is None:
        return None
    channels = 3 if header[1] == b"6" else 1
    width, height = int(header[2]), int(header[3])
    within(width, height)
    pixels = np.frombuffer(content, np.uint8, width * height * channels, header.end())
    return np.repeat(pixels.reshape(height, width, channels), 3 // channels, axis=2)
