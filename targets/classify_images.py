"""Images for the example programs: resized, cropped and normalized exactly as the model was trained and evaluated.

classify.py has the one part that depends on the runtime, classify_files.py reads files.
Standard library and numpy only; runs on Python 3.9 and later.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # a type checker sees the checkout; where it runs, the scripts lie side by side
    from targets.classify_classes import LabelsError, labels_in, likeliest, shown
    from targets.classify_files import ImageError, Pixels, read_image
else:
    from classify_classes import LabelsError, labels_in, likeliest, shown
    from classify_files import ImageError, Pixels, read_image

Floats = npt.NDArray[np.float32]
EXIT_USAGE, EXIT_MISSING = 2, 4


def prepare(pixels: Pixels, preprocess: dict[str, Any]) -> Pixels:
    """An image [h, w, 3] as uint8 [height, width, 3] of the model's size: resized, then cropped at the centre. Only
    what the crop keeps is computed: a long strip, resized as a whole, may take gigabytes."""
    size = resized(pixels.shape[0], pixels.shape[1], preprocess)
    kept = []
    for axis, crop in enumerate(preprocess["input_size"]):
        kept.append((max(0, round((size[axis] - crop) / 2)), min(crop, size[axis])))
    return centre_crop(resize(pixels, size, kept[0], kept[1], preprocess["interpolation"]), *preprocess["input_size"])


def as_input(prepared: Pixels, preprocess: dict[str, Any]) -> npt.NDArray[Any]:
    """The prepared image as the model takes it: `(pixel / 255 - mean) / std` as float32 [batch, 3, height, width], or
    as it is, uint8 [batch, height, width, 3], for a model that does that itself. It is repeated to fill a batch."""
    if preprocess["type"] == "uint8":
        sample: npt.NDArray[Any] = prepared
    else:
        mean, std = (np.asarray(preprocess[key], np.float32) for key in ("mean", "std"))
        sample = ((prepared.astype(np.float32) / np.float32(255) - mean) / std).transpose(2, 0, 1)
    return np.ascontiguousarray(np.broadcast_to(sample, preprocess["shape"]))


def resized(height: int, width: int, preprocess: dict[str, Any]) -> tuple[int, int]:
    """The size to resize to. "shorter": the shorter side becomes `resize`, the aspect stays; "squash": it does not."""
    to_height, to_width = preprocess["resize"]
    if preprocess["resize_mode"] == "squash":
        return to_height, to_width
    if to_height != to_width:
        ratio = min(height / to_height, width / to_width)
        return max(1, round(height / ratio)), max(1, round(width / ratio))
    if height <= width:
        return to_height, int(to_height * width / height)
    return int(to_height * height / width), to_height


def centre_crop(pixels: Pixels, height: int, width: int) -> Pixels:
    """The middle of an image; black is padded where it is too small."""
    missing = max(0, height - pixels.shape[0]), max(0, width - pixels.shape[1])
    pixels = np.pad(pixels, (*((m // 2, (m + 1) // 2) for m in missing), (0, 0)))
    top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
    return pixels[top : top + height, left : left + width]


# The filters of Pillow's resize: name -> (support in pixels of the smaller image, weight at a distance).
def box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def bilinear(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def hamming(x: float) -> float:
    x = abs(x)
    if x == 0:
        return 1.0
    return 0.0 if x >= 1 else math.sin(x * math.pi) / (x * math.pi) * (0.54 + 0.46 * math.cos(x * math.pi))


def bicubic(x: float) -> float:
    a, x = -0.5, abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def lanczos(x: float) -> float:
    return sinc(x) * sinc(x / 3) if -3 <= x < 3 else 0.0


def sinc(x: float) -> float:
    return math.sin(x * math.pi) / (x * math.pi) if x else 1.0


Filter = Callable[[float], float]
FILTERS: dict[str, tuple[float, Filter]] = {
    "box": (0.5, box),
    "bilinear": (1.0, bilinear),
    "hamming": (1.0, hamming),
    "bicubic": (2.0, bicubic),
    "lanczos": (3.0, lanczos),
}
ONE = 1 << 22  # Pillow computes with weights of 22 binary places, and rounds to a byte after each of the two passes
SUMMED = 1 << 17  # rows up to which the places of the nearest pixel are summed up


def resize(
    pixels: Pixels, size: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int], interpolation: str
) -> Pixels:
    """As Pillow resizes, to the last bit: across, then down; filters as wide as the scale, so without aliasing. Of the
    image of `size` (height, width) so many `rows` and `columns`, each (first, count)."""
    height, width = pixels.shape[:2]
    low, high = needed(height, size[0], rows, interpolation)
    across = resize_rows(pixels[low:high].swapaxes(0, 1), width, 0, (size[1], *columns), interpolation)
    return resize_rows(across.swapaxes(0, 1), height, low, (size[0], *rows), interpolation)


def needed(total: int, size: int, rows: tuple[int, int], interpolation: str) -> tuple[int, int]:
    """From which row to which some rows (first, count) of the result are made."""
    first, last = rows[0], rows[0] + rows[1] - 1
    if total == size:
        return first, last + 1
    if interpolation == "nearest":
        indices = nearest(total, size, first, rows[1])
        return int(indices[0]), int(indices[-1]) + 1
    return reach(total, size, first, interpolation)[0], reach(total, size, last, interpolation)[1]


def reach(total: int, size: int, row: int, interpolation: str) -> tuple[int, int]:
    """From which row to which one row of the result is made."""
    scale = total / size
    centre, support = (row + 0.5) * scale, FILTERS[interpolation][0] * max(scale, 1.0)
    return max(0, int(centre - support + 0.5)), min(total, int(centre + support + 0.5))


def resize_rows(pixels: Pixels, total: int, offset: int, wanted: tuple[int, int, int], interpolation: str) -> Pixels:
    """Of an image of `total` rows, of which `pixels` [rows, n, 3] are those from `offset` on: `wanted` (size, first,
    count), which are `count` rows, from `first` on, of the result of `size` rows."""
    size, first, count = wanted
    if total == size:
        return pixels[first - offset : first - offset + count]
    if interpolation == "nearest":
        return pixels[nearest(total, size, first, count) - offset]
    out = np.empty((count, *pixels.shape[1:]), np.uint8)
    for row in range(count):
        low, high = reach(total, size, first + row, interpolation)
        shares = weights(total / size, first + row, low, high, FILTERS[interpolation][1])
        # Whole numbers below 2^53: exact in float64, which numpy multiplies much faster than integers.
        summed = np.tensordot(shares, pixels[low - offset : high - offset].astype(np.float64), 1)
        out[row] = np.clip(np.floor((summed + ONE // 2) / ONE), 0, 255)
    return out


def weights(scale: float, row: int, low: int, high: int, weight: Filter) -> Floats:
    """Of the rows from `low` to `high` that a row of the result is made of: whole numbers that sum to ONE."""
    wide, centre = max(scale, 1.0), (row + 0.5) * scale
    raw = [weight((x - centre + 0.5) / wide) for x in range(low, high)]
    total = sum(raw)
    return np.array([math.floor(abs(w / total) * ONE + 0.5) * math.copysign(1, w) for w in raw])


def nearest(total: int, size: int, first: int, count: int) -> npt.NDArray[np.int64]:
    """Which row each row of the result is a copy of."""
    scale = total / size
    places = (np.arange(first, first + count) + 0.5) * scale
    if size <= SUMMED:  # summed up as Pillow does it, so that it rounds alike
        places = np.cumsum(np.r_[scale * 0.5, np.full(first + count - 1, scale)])[first:]
    indices: npt.NDArray[np.int64] = np.minimum(places.astype(np.int64), total - 1)
    return indices


def main(logits_of: Callable[[Path, npt.NDArray[Any], str], Floats]) -> int:
    """`classify.py IMAGE [--top 5]`. `logits_of`: the model's file, its input and the precision in which it is to run
    -> logits [batch, classes]."""
    parser = argparse.ArgumentParser(description="Says what is on an image.")
    parser.add_argument("image", metavar="IMAGE", type=Path)
    parser.add_argument("--top", type=int, default=5, help="how many classes to name, the likeliest first (5)")
    args = parser.parse_args()
    here = Path(__file__).resolve().parent
    manifest, preprocess = (
        json.loads((here / name).read_text("utf-8")) for name in ("manifest.json", "preprocess.json")
    )
    try:
        labels = labels_in(here / "labels.txt")
        prepared = prepare(read_image(args.image, preprocess.get("pixel_range")), preprocess)
        logits = logits_of(here / manifest["model"], as_input(prepared, preprocess), manifest["precision"])
        if logits.shape[-1] != len(labels):
            raise LabelsError(f"labels.txt names {len(labels)} classes, the model answers {logits.shape[-1]}")
    except (LabelsError, ImageError) as error:
        print(f"classify.py: {shown(str(error))}", file=sys.stderr)
        return EXIT_USAGE
    except ImportError as error:
        print(f"classify.py: {manifest['install']} ({error})", file=sys.stderr)
        return EXIT_MISSING
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name may have signs that this terminal has not got
        sys.stdout.reconfigure(errors="backslashreplace")
    for name, share in likeliest(logits[0], labels, args.top):
        print(f"{share:7.2%}  {shown(name)}")
    return 0
