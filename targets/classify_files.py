"""Reads a picture's file for the example programs: with Pillow where it is installed, else plain PNG, PPM and PGM.

Standard library and numpy only; runs on Python 3.9 and later.
"""

from __future__ import annotations

import importlib
import io
import re
import stat
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # [height, width, 3], RGB
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # PNG's colour types: grey, RGB, palette, grey and alpha, RGB and alpha
MOST_PIXELS, MOST_BYTES = 178_956_970, 1_000_000_000  # of a picture, and of its file
TURNED = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF's orientation -> Pillow's Transpose
TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")


class PictureError(Exception):
    """The picture cannot be read: one line for people."""


def read_picture(path: Path, pixel_range: Any = None) -> Pixels:
    """The picture, upright, in RGB: [height, width, 3]. Alpha is dropped. `pixel_range`: of preprocess.json, which
    values become black and white in pictures of more than 8 bits a channel. Raises PictureError."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device may never end
            raise PictureError(f"{path} is no regular file")
        if status.st_size > MOST_BYTES:
            raise PictureError(f"{path} is larger than {MOST_BYTES:,} bytes, the most that is read")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise PictureError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    pillow = find_pillow()
    if pillow is not None:
        return with_pillow(path, content, pillow, pixel_range)
    try:
        found = png(content) if content[:8] == b"\x89PNG\r\n\x1a\n" else pnm(content)
    except (zlib.error, struct.error, ValueError, IndexError, KeyError) as error:
        raise PictureError(f"{path} is damaged: {error}") from error
    if found is None:
        raise PictureError(
            f"{path} needs Pillow: pip install pillow (or convert it to a plain PNG, 8 bit, not interlaced)"
        )
    return found


def find_pillow() -> Any:
    try:
        return importlib.import_module("PIL.Image")
    except ImportError:
        return None


def with_pillow(path: Path, content: bytes, pillow: Any, pixel_range: Any) -> Pixels:
    """As kdc reads pictures for training: what it refuses is refused here."""
    pillow.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # large pictures, odd metadata
        try:
            try:
                return opened(content, pillow, pixel_range)
            except pillow.DecompressionBombError:
                raise
            except Exception:
                bare = without_texts(content)
                if bare is None:
                    raise
                return opened(bare, pillow, pixel_range)
        except pillow.DecompressionBombError:
            raise PictureError(f"{path} has more than {MOST_PIXELS:,} pixels, the most that is read") from None
        except Exception as error:  # on damaged bytes, Pillow's decoders raise nearly anything
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise PictureError(f"{path} is no picture that can be read: {said}") from error


def opened(content: bytes, pillow: Any, pixel_range: Any) -> Pixels:
    known = [name for name in FORMATS if name in pillow.OPEN]
    with pillow.open(io.BytesIO(content), formats=known) as picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise pillow.DecompressionBombError
        packed = any(is_deep(tile[3]) for tile in picture.tile)
        picture.load()
        try:
            turn = TURNED.get(picture.getexif().get(0x0112, 1))
        except Exception:  # damaged metadata beside sound pixels
            turn = None
        rgb = in_rgb(picture, packed, pillow, pixel_range)
        return np.asarray(rgb if turn is None else rgb.transpose(turn))


def is_deep(how: Any) -> bool:
    """Whether pixels are unpacked from 16 bits a channel, as a tile of Pillow's says."""
    parts = how if isinstance(how, tuple) else (how,)
    return ";16" in str(parts[0]) or (len(parts) == 2 and isinstance(parts[1], int) and parts[1] > 255)


def in_rgb(picture: Any, packed: bool, pillow: Any, pixel_range: Any) -> Any:
    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        return pillow.fromarray(grey(picture, pixel_range)).convert("RGB")
    if 2 in tag(picture, 339):
        raise ValueError("its pixels are signed 8-bit integers, which are not read")
    if packed and pixel_range is not None:
        raise ValueError(f"it has 16 bits a channel in colour, so that pixel_range {pixel_range} cannot be applied")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


def grey(picture: Any, pixel_range: Any) -> Pixels:
    """One channel of more than 8 bits: scaled, where convert("RGB") would show everything above 255 as white."""
    values = np.asarray(picture)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("some of its pixels are no finite numbers")
    if pixel_range is not None:
        black, white = pixel_range
    elif picture.mode.startswith("I;16"):
        black, white = 0, 2 ** min(tag(picture, 258) or (16,)) - 1
    elif picture.mode == "I" and picture.format in ("PNG", "PPM"):
        black, white = 0, 65535
    else:
        raise ValueError("its pixels are not 8 bit, and preprocess.json has no pixel_range for them")
    rows = []
    for part in np.array_split(values, max(1, values.size >> 22)):  # in double precision they take eight times a byte
        with np.errstate(over="ignore"):
            scaled = np.floor((part.astype(np.float64) - black) * 255 / (white - black) + 0.5)
        rows.append(np.clip(scaled, 0, 255).astype(np.uint8))
    found = np.concatenate(rows)
    return 255 - found if tag(picture, 262) == (0,) else found  # a TIFF whose white is zero


def tag(picture: Any, number: int) -> tuple[Any, ...]:
    """A tag of a TIFF; empty where there is none."""
    value = picture.tag_v2.get(number) if picture.format == "TIFF" and hasattr(picture, "tag_v2") else None
    return () if value is None else value if isinstance(value, tuple) else (value,)


def without_texts(content: bytes) -> bytes | None:
    """A PNG without its texts and colour profile, damaged ones above all; None where there is nothing to leave out."""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return None
    kept, place = [content[:8]], 8
    while place + 8 <= len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] not in TEXTS:
            kept.append(content[place:end])
        place = end
    bare = b"".join(kept)
    return bare if len(bare) < len(content) else None


def png(content: bytes) -> Pixels | None:
    """A PNG (www.w3.org/TR/png): 8 bit, not interlaced; None for any other, and for one that a camera turned."""
    chunks: dict[bytes, bytes] = {}
    data, place = [], 8
    while place < len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        body = content[place + 8 : place + 8 + length]
        if kind in TEXTS and body.startswith((b"Raw profile type", b"XML:com.adobe.xmp")):
            return None  # it may say how to turn the picture
        if kind == b"IDAT":
            data.append(body)
        chunks[kind] = body
        place += 12 + length
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
