"""Image files of kinds that Pillow does not write, byte by byte."""

import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["chunk", "png", "tiff", "with_chunks"]


def chunk(kind: bytes, body: bytes) -> bytes:
    """One of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels: NDArray[np.generic]) -> bytes:
    """[h, w], [h, w, 2], [h, w, 3] or [h, w, 4] of 8 or 16 bits."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[1 if pixels.ndim == 2 else pixels.shape[2]]
    depth = pixels.dtype.itemsize * 8
    rows = pixels.astype(pixels.dtype.newbyteorder(">"))
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def with_chunks(encoded: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks after its header."""
    return encoded[:33] + b"".join(chunks) + encoded[33:]


def tiff(
    pixels: NDArray[np.generic],
    photometric: int,
    *,
    bits: int = 0,
    sample_format: int = 1,
    raw: bytes = b"",
    deflate: bool = False,
    apart: bool = False,
) -> bytes:
    """In the byte order of `pixels`, [h, w] or [h, w, n]; `raw`: packed otherwise, in `bits` bits; `apart`: each
    channel for itself."""
    order = ">" if pixels.dtype.byteorder == ">" else "<"
    height, width = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    channels = [pixels[..., number] for number in range(samples)] if apart else [pixels]
    strips = [raw] if raw else [channel.tobytes() for channel in channels]
    if deflate:
        strips = [zlib.compress(strip) for strip in strips]
    data = b"".join(strips)
    starts = [8 + sum(map(len, strips[:number])) for number in range(len(strips))]
    tags: list[tuple[int, str, Sequence[int]]] = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [bits or pixels.dtype.itemsize * 8] * samples),
        (259, "H", [8 if deflate else 1]),
        (262, "H", [photometric]),
        (273, "I", starts),
        (277, "H", [samples]),
        (278, "I", [height]),
        (279, "I", [len(strip) for strip in strips]),
        (284, "H", [2 if apart else 1]),
        (339, "H", [sample_format] * samples),
    ]
    place = 8 + len(data) + 2 + 12 * len(tags) + 4
    entries, beyond = b"", b""
    for number, kind, values in tags:
        value = struct.pack(f"{order}{len(values)}{kind}", *values).ljust(4, b"\0")
        if len(value) > 4:
            value, beyond = struct.pack(f"{order}I", place + len(beyond)), beyond + value
        entries += struct.pack(f"{order}HHI", number, {"H": 3, "I": 4}[kind], len(values)) + value
    magic = b"II*\0" if order == "<" else b"MM\0*"
    table = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)
    return magic + struct.pack(f"{order}I", 8 + len(data)) + data + table + beyond
