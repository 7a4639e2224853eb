"""A part of a resized image, bit for bit as Pillow's `resize` computes it, without computing the rest.

Resizing a strip of 1 x 20,000 pixels so that its shorter side is 224 makes a thousand million pixels, of which the
centre crop keeps 224 x 224.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from compressor.schema.preprocess import Interpolation

__all__ = ["resized_window"]

Pixels = NDArray[np.uint8]
ONE = 1 << 22  # Pillow computes with weights of 22 binary places, and rounds to a byte after each of the two passes
SUMMED = 1 << 17  # up to this size Pillow's own places for "nearest" are summed up; beyond it there is nothing to equal


def _box(x: float) -> float:
    return 1.0 if -0.5 < x <= 0.5 else 0.0


def _bilinear(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _hamming(x: float) -> float:
    x = abs(x)
    if x == 0:
        return 1.0
    return 0.0 if x >= 1 else math.sin(x * math.pi) / (x * math.pi) * (0.54 + 0.46 * math.cos(x * math.pi))


def _bicubic(x: float) -> float:
    a, x = -0.5, abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3 <= x < 3 else 0.0


def _sinc(x: float) -> float:
    return math.sin(x * math.pi) / (x * math.pi) if x else 1.0


# Pillow's filters: (support in pixels of the smaller image, weight at a distance).
FILTERS: dict[Interpolation, tuple[float, Callable[[float], float]]] = {
    "box": (0.5, _box),
    "bilinear": (1.0, _bilinear),
    "hamming": (1.0, _hamming),
    "bicubic": (2.0, _bicubic),
    "lanczos": (3.0, _lanczos),
}


def resized_window(
    pixels: Pixels, size: tuple[int, int], window: Sequence[tuple[int, int]], interpolation: Interpolation
) -> Pixels:
    """Of `pixels` [h, w, 3] resized to `size` (height, width) the part `window`: (first row, rows), (first column,
    columns); uint8 [rows, columns, 3]. Across, then down, as Pillow does it; only what the part is made of."""
    (top, rows), (left, columns) = window
    height, width = pixels.shape[:2]
    low, high = _needed(height, size[0], top, rows, interpolation)
    across = _resized(pixels[low:high].swapaxes(0, 1), width, 0, (size[1], left, columns), interpolation)
    return np.ascontiguousarray(_resized(across.swapaxes(0, 1), height, low, (size[0], top, rows), interpolation))


def _needed(lines: int, size: int, first: int, count: int, interpolation: Interpolation) -> tuple[int, int]:
    """From which line to which the lines `first` to `first + count` of a resized image are made."""
    if lines == size:
        return first, first + count
    if interpolation == "nearest":
        indices = _nearest(lines, size, first, count)
        return int(indices[0]), int(indices[-1]) + 1
    return _reach(lines, size, first, interpolation)[0], _reach(lines, size, first + count - 1, interpolation)[1]


def _reach(lines: int, size: int, number: int, interpolation: Interpolation) -> tuple[int, int]:
    """From which line to which the line `number` of a resized image is made."""
    scale = lines / size
    centre, support = (number + 0.5) * scale, FILTERS[interpolation][0] * max(scale, 1.0)
    return max(0, int(centre - support + 0.5)), min(lines, int(centre + support + 0.5))


def _resized(
    lines: Pixels, total: int, offset: int, wanted: tuple[int, int, int], interpolation: Interpolation
) -> Pixels:
    """`wanted` (size, first, count): of `total` lines, from `offset` on given as `lines` [n, …, 3], resized to `size`
    lines, `count` from `first` on."""
    size, first, count = wanted
    if total == size:
        return lines[first - offset : first - offset + count]
    if interpolation == "nearest":
        return lines[_nearest(total, size, first, count) - offset]
    weight, scale = FILTERS[interpolation][1], total / size
    wide = max(scale, 1.0)
    out = np.empty((count, *lines.shape[1:]), np.uint8)
    for number in range(count):
        centre = (first + number + 0.5) * scale
        low, high = _reach(total, size, first + number, interpolation)
        raw = [weight((x + low - centre + 0.5) / wide) for x in range(high - low)]
        norm = sum(raw)
        weights = np.array([math.floor(abs(w / norm) * ONE + 0.5) * math.copysign(1, w) for w in raw])
        # Whole numbers below 2^53: exact in float64, which numpy multiplies much faster than integers.
        summed = np.tensordot(weights, lines[low - offset : high - offset].astype(np.float64), 1)
        out[number] = np.clip(np.floor((summed + ONE // 2) / ONE), 0, 255)
    return out


def _nearest(lines: int, size: int, first: int, count: int) -> NDArray[np.int64]:
    scale = lines / size
    numbers = np.arange(first, first + count)
    places = (numbers + 0.5) * scale
    if size <= SUMMED:  # as Pillow does it, so that it rounds alike
        places = np.cumsum(np.r_[scale * 0.5, np.full(first + count - 1, scale)])[first:]
    indices: NDArray[np.int64] = np.minimum(places.astype(np.int64), lines - 1)
    return indices
