"""Work over all images of the data, in threads and in bounded memory: checking them, and decoding a split to disk."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compressor.data.samples import Part, Sample, Split
from compressor.errors import KdcError
from compressor.files.atomic import write_atomically
from compressor.processes.threads import in_order
from compressor.progress import Progress
from compressor.schema.preprocess import ImagePreprocess
from compressor.tasks.image_classification.depth import Census
from compressor.tasks.image_classification.preprocessing import pillow_warnings_ignored, resize_and_crop
from compressor.tasks.image_classification.reading import load_seen

__all__ = ["check", "decode_split", "digest", "readable"]

PIXELS_PER_STRIP = 1 << 18


def digest(image: Image.Image) -> bytes:
    """What an image shows, as a sha256: over its size and its pixels, as they were decoded to RGB, or the values of
    deep grey (`depth.Seen.shown`), which are the same whatever range is stated.

    So it is the same for a PNG, for the same pixels in a BMP and for the same pixels as an array, wherever they lie. A
    image that was scaled or compressed with loss has other pixels, and counts as another one.
    """
    hasher = hashlib.sha256(repr(image.size).encode())
    if image.mode != "RGB":
        hasher.update(image.mode.encode())
    rows = max(1, PIXELS_PER_STRIP // image.width)
    if image.height <= rows:
        hasher.update(image.tobytes())
        return hasher.digest()
    for top in range(0, image.height, rows):  # in strips: a second copy of a large image costs time and memory
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        hasher.update(strip.tobytes())
    return hasher.digest()


def check(
    samples: Sequence[tuple[Part, int]], progress: Progress, census: Census | None = None
) -> list[bytes | KdcError]:
    """For each sample the digest of its pixels, or what is wrong with it. Every image is decoded whole, once: an
    error now is better than one in the fifth epoch. What the files show goes to `census`."""
    seen_so_far = Census() if census is None else census

    def examine(sample: tuple[Part, int]) -> bytes | KdcError:
        part, row = sample
        try:
            image, seen = load_seen(part, row)
            if part.encoded:
                seen_so_far.add(seen, part.ids[row])  # notes travel, and so hold no paths
            return digest(seen.shown or image)
        except KdcError as error:
            return error

    with pillow_warnings_ignored(), closing(in_order(examine, samples)) as results:
        if not any(part.encoded for part, _ in samples):
            return list(results)
        return list(progress.track(results, len(samples), "checking images"))


def readable(
    samples: Sequence[tuple[Part, int]], skip_bad: bool, progress: Progress, census: Census | None = None
) -> tuple[list[Sample], tuple[str, ...]]:
    """The samples that can be read, and the ids of those that cannot, which raise KdcError without `skip_bad`. What
    the files show goes to `census`."""
    results = check(samples, progress, census)
    errors = [result for result in results if isinstance(result, KdcError)]
    if errors and not skip_bad:
        suffix = f" (and {len(errors) - 1} more images)" if len(errors) > 1 else ""
        raise KdcError(f"{errors[0].message}{suffix}", "--skip-bad leaves them out")
    for error in errors:
        progress.warn(f"left out: {error.message}")
    both = list(zip(samples, results, strict=True))
    kept = [(part, row, result) for (part, row), result in both if not isinstance(result, KdcError)]
    return kept, tuple(part.ids[row] for (part, row), result in both if isinstance(result, KdcError))


def decode_split(split: Split, preprocess: ImagePreprocess, path: Path, progress: Progress) -> NDArray[np.uint8]:
    """Every image of `split`, resized and cropped: a read-only memory map, uint8 [N, h, w, 3], of the file `path`.

    The file (.npy) is written in sequence and renamed when whole. It is not written through the map: on a full disk
    that would kill the process with SIGBUS, where a plain write raises an error that can be shown.
    """
    height, width = preprocess.input_size

    def prepared(row: int) -> NDArray[np.uint8]:
        return resize_and_crop(split.read(row), preprocess)

    with (
        write_atomically(path) as temporary,
        temporary.open("wb") as file,
        pillow_warnings_ignored(),
        closing(in_order(prepared, range(len(split)))) as pixels,
    ):
        _write_header(file, (len(split), height, width, 3))
        for image in progress.track(pixels, len(split), f"decoding {split.name}"):
            file.write(image.data)
    mapped: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return mapped


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    # numpy's own writer would want the whole array in memory
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
