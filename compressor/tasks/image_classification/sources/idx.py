"""`idx:PATH`: the format of MNIST, Fashion-MNIST and EMNIST: a folder of IDX files, plain or gzip."""

import gzip
import math
import os
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from compressor.data.labels import class_order, label_texts
from compressor.data.places import entries, present_path
from compressor.data.samples import Found, Part
from compressor.data.split_words import split_in
from compressor.errors import KdcError, os_error
from compressor.files.reading import open_regular, read_text
from compressor.names import lines_of
from compressor.progress import Progress

__all__ = ["find_idx"]

UNSIGNED_BYTE = 0x08
MOST_SIDES = 4  # [N, h, w, 3]
MOST_BYTES = 4_000_000_000
MOST_RATIO = 1032  # deflate never packs more (zlib.net/zlib_tech.html)
NAMES_BYTES = 16_000_000
PART = 1 << 24
PREFIXES = {"train": "train", "test": "t10k"}
EXPECTED = (
    "expected train-images-idx3-ubyte and train-labels-idx1-ubyte (or train-images.idx3-ubyte), "
    "and optionally t10k-images-… and t10k-labels-…, each plain or .gz"
)


def find_idx(location: str, progress: Progress) -> Found:
    """Images [N, h, w] or [N, h, w, 3]; classes by the lines of classes.txt, else "0", "1", … by label."""
    root = present_path(location, "idx", folder=True)
    names = _names(root / "classes.txt")
    parts = {}
    for split, prefix in PREFIXES.items():
        images, labels = _file(root, prefix, "images"), _file(root, prefix, "labels")
        if images and labels:
            parts[split] = _part(split, images, labels, names)
        elif images or labels:
            raise KdcError(f"{root} holds {(images or labels or root).name} without its counterpart; {EXPECTED}")
    if "train" not in parts:
        raise KdcError(f"{root} holds no training images; {EXPECTED}")
    _refuse_missed(root, parts)
    return Found(names or class_order(parts["train"].labels), parts)


def _names(path: Path) -> tuple[str, ...] | None:
    try:
        text = read_text(path, most=NAMES_BYTES)
    except KdcError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    lines = lines_of(text.removeprefix("\ufeff"))
    while lines and not lines[-1].strip():
        lines.pop()
    if not all(line.strip() for line in lines):  # dropping it would move every class after it by one
        number = next(number for number, line in enumerate(lines) if not line.strip())
        raise KdcError(f"{path} line {number + 1} is empty; expected the name of class {number}")
    return tuple(lines) or None


def _file(root: Path, prefix: str, kind: str) -> Path | None:
    pattern = re.compile(rf"{prefix}-{kind}[-.]idx\d-ubyte(\.gz)?")
    files = [path for path in entries(root) if pattern.fullmatch(path.name)]
    # Plain sorts before .gz: after a `gunzip --keep` both lie there and hold the same.
    return files[0] if files else None


def _refuse_missed(root: Path, parts: Mapping[str, Part]) -> None:
    """Raise KdcError for an IDX file that would be ignored and sounds like a split."""
    taken = re.compile(rf"({'|'.join(PREFIXES.values())})-(images|labels)[-.]idx\d-ubyte(\.gz)?")
    for path in entries(root):
        name = path.name
        if re.search(r"idx\d", name) and not taken.fullmatch(name) and not name.startswith("."):
            split, _ = split_in(re.split(r"[-._]idx\d", name)[0])
            if split in ("validation", "test") and split not in parts:
                raise KdcError(
                    f"{root} holds {name}, which sounds like {split} and is not read; {EXPECTED}",
                    "call its files t10k-… to have them as test, or move them away",
                )


def _part(split: str, images: Path, labels: Path, names: tuple[str, ...] | None) -> Part:
    pixels, numbers = _read(images), _read(labels)
    if pixels.ndim == 4 and pixels.shape[3] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] != 3) or 0 in pixels.shape:
        raise KdcError(f"{images} holds an array {list(pixels.shape)}; expected [N, h, w] or [N, h, w, 3]")
    if numbers.ndim != 1 or len(numbers) != len(pixels):
        raise KdcError(f"{labels} holds labels {list(numbers.shape)} for {len(pixels)} images in {images.name}")
    return Part(
        ids=tuple(f"{split}/{row}" for row in range(len(pixels))),
        labels=label_texts(numbers.tolist(), lambda row: f"{labels} row {row}", names),
        content=lambda row: pixels[row],
        where=lambda row: f"{images} row {row}",
        encoded=False,
    )


def _read(path: Path) -> NDArray[np.uint8]:
    """The array in one IDX file: two zero bytes, the type, the number of sides, each side in 4 bytes, the values."""
    try:
        with open_regular(path) as plain, _unpacked(plain) if path.suffix == ".gz" else plain as file:
            held = os.fstat(plain.fileno()).st_size * (MOST_RATIO if path.suffix == ".gz" else 1)
            shape = _shape(file, path)
            wanted = math.prod(shape)
            if wanted > min(held, MOST_BYTES):
                # Said before any memory is taken for it: a file of a few bytes can promise anything.
                most = "the file cannot hold" if wanted > held else f"are more than the {MOST_BYTES:,} that are read"
                raise KdcError(f"{path} is damaged: its header promises {wanted:,} bytes, which {most}")
            values = np.empty(wanted, np.uint8)
            count = _fill(file, values)
            excess = bool(file.read(1))
    except (EOFError, struct.error, gzip.BadGzipFile, zlib.error) as error:
        raise KdcError(f"{path} is damaged: {error}") from error
    except MemoryError:
        raise KdcError(f"{path} does not fit into the memory of this machine") from None
    except OSError as error:
        raise os_error(error, f"reading {path}") from error
    if count != wanted or excess:
        content = "more" if excess else f"only {count:,}"
        raise KdcError(f"{path} is damaged: its header promises {wanted:,} bytes, it holds {content}")
    return values.reshape(shape)


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file))


def _shape(file: IO[bytes], path: Path) -> tuple[int, ...]:
    zero, kind, sides = struct.unpack(">HBB", file.read(4))
    if zero or kind != UNSIGNED_BYTE:
        raise KdcError(f"{path} is no IDX file of unsigned bytes: it begins with {zero:04x} {kind:02x}")
    if not 1 <= sides <= MOST_SIDES:
        raise KdcError(f"{path} holds an array of {sides} dimensions; expected 1 to {MOST_SIDES}")
    return struct.unpack(f">{sides}I", file.read(4 * sides))


def _fill(file: IO[bytes], values: NDArray[np.uint8]) -> int:
    """Reads into `values` what there is; returns how much that was."""
    count = 0
    while count < len(values) and (part := file.read(min(PART, len(values) - count))):
        values[count : count + len(part)] = np.frombuffer(part, np.uint8)
        count += len(part)
    return count
