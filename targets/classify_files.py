"""Reads a picture's file for the example programs: with Pillow where it is installed, else plain PNG, PPM and PGM.

Standard library and numpy only; runs on Python 3.9 and later.
"""

from __future__ import annotations

import importlib
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # [height, width, 3], RGB
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # PNG's colour types: grey, RGB, palette, grey and alpha, RGB and alpha


class PictureError(Exception):
    """The picture cannot be read: one line for people."""


def read_picture(path: Path) -> Pixels:
    """The picture, upright, in RGB: [height, width, 3]. Alpha is dropped. Raises PictureError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PictureError(f"cannot read {path}: {error.strerror}") from error
    pillow = find_pillow()
    if pillow is not None:
        return with_pillow(path, pillow)
    try:
        found = png(content) if content[:8] == b"\x89PNG\r\n\x1a\n" else pnm(content)
    except (zlib.error, struct.error, ValueError, IndexError) as error:
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


def with_pillow(path: Path, pillow: Any) -> Pixels:
    try:
        pillow.init()
        with pillow.open(path, formats=[name for name in FORMATS if name in pillow.OPEN]) as opened:
            opened.load()
            picture = importlib.import_module("PIL.ImageOps").exif_transpose(opened)
            if picture.mode.startswith("I;16") or (picture.mode == "I" and opened.format in ("PNG", "PPM")):
                # 16 bits a pixel: scaled, where convert("RGB") would show everything above 255 as white.
                wide = np.asarray(picture).astype(np.uint32)
                picture = pillow.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
            elif picture.mode == "P" and "transparency" in picture.info:
                picture = picture.convert("RGBA")
            return np.asarray(picture.convert("RGB"))
    except Exception as error:  # on damaged bytes, Pillow's decoders raise nearly anything
        raise PictureError(f"{path} is no picture that can be read: {error}") from error


def png(content: bytes) -> Pixels | None:
    """A PNG (www.w3.org/TR/png): 8 bit, not interlaced; None for any other, and for one that a camera turned."""
    chunks: dict[bytes, bytes] = {}
    place = 8
    while place < len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        chunks[kind] = chunks.get(kind, b"") + content[place + 8 : place + 8 + length]
        place += 12 + length
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if depth != 8 or interlaced or b"eXIf" in chunks or colour not in CHANNELS:
        return None
    channels = CHANNELS[colour]
    raw = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8)
    pixels = unfiltered(raw.reshape(height, 1 + width * channels), channels).reshape(height, width, channels)
    if colour == 3:
        return np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)[pixels[:, :, 0]]
    return np.repeat(pixels[:, :, :1], 3, axis=2) if channels < 3 else np.ascontiguousarray(pixels[:, :, :3])


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
    pixels = np.frombuffer(content, np.uint8, width * height * channels, header.end())
    return np.repeat(pixels.reshape(height, width, channels), 3 // channels, axis=2)
