"""Pictures of more than 8 bits a channel: which of their values become black and white, and what is said about it."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from compressor.spec.preprocess import PixelRange

__all__ = ["MENTIONED", "Census", "Seen", "colour_16", "grey_of", "stated_as"]

PHOTOMETRIC, BITS, SAMPLE_FORMAT = 262, 258, 339  # TIFF 6.0, section 8 and 19
WHITE_IS_ZERO, SIGNED = 0, 2
CHUNK = 1 << 22  # values that are scaled at a time: in double precision they take eight times what a byte takes
MENTIONED = 0.25
"""A data set whose values stay below this part of their range is told so: 14 bits in 16 do, and keep 64 of 256 levels
of grey; and one whose values lie that close together that a quarter of these are left."""


@dataclass(frozen=True)
class Seen:
    """What is to be said of a picture's file. `low`, `high`: the least and the largest value, of `black` to `white`;
    None where it has 8 bits a channel. `several`: it holds more frames or pages than the one that counts."""

    low: float | None = None
    high: float | None = None
    black: float = 0
    white: float = 255
    several: bool = False


def stated_as(pixel_range: PixelRange) -> str:
    """As it is typed: "[0, 4095]"."""
    return f"[{pixel_range[0]:.10g}, {pixel_range[1]:.10g}]"


def grey_of(picture: Image.Image, pixel_range: PixelRange | None) -> tuple[NDArray[np.uint8], Seen]:
    """A loaded picture of one channel of more than 8 bits as 8-bit grey [h, w]; raises ValueError where it cannot be.

    Value v becomes `floor((v - black) * 255 / (white - black) + 0.5)`, cut to 0 … 255; of a TIFF that says that its
    white is zero, 255 minus that.
    """
    values = np.asarray(picture)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("some of its pixels are no finite numbers")
    black, white = pixel_range or _whole_range(picture)
    grey = np.empty(values.shape, np.uint8)
    flat, out = values.reshape(-1), grey.reshape(-1)
    for start in range(0, len(flat), CHUNK):
        part = flat[start : start + CHUNK].astype(np.float64)
        with np.errstate(over="ignore"):  # a narrow range; what is infinite is cut off
            scaled = np.floor((part - black) * 255 / (white - black) + 0.5)
        out[start : start + CHUNK] = np.clip(scaled, 0, 255)
    if _tag(picture, PHOTOMETRIC) == (WHITE_IS_ZERO,):
        grey = 255 - grey
    return grey, Seen(float(values.min()), float(values.max()), black, white)


def _whole_range(picture: Image.Image) -> tuple[float, float]:
    if picture.mode.startswith("I;16"):
        return 0, 2 ** min(_tag(picture, BITS) or (16,)) - 1  # Pillow unpacks a TIFF of 12 bits without scaling it
    # Pillow opens 16-bit PGM (and, before version 11, 16-bit PNG) as 32-bit integers that stay within 16 bits.
    if picture.mode == "I" and picture.format in ("PNG", "PPM"):
        return 0, 65535
    kind = "32-bit floats" if picture.mode == "F" else f"{_signed_or_not(picture)} integers"
    raise ValueError(f"its pixels are {kind} of unknown range, not 8 bit: pixel_range in the recipe states it")


def _signed_or_not(picture: Image.Image) -> str:
    return "signed 16-bit" if _tag(picture, BITS) == (16,) else "32-bit"


def colour_16(picture: Image.Image, packed: bool, pixel_range: PixelRange | None) -> Seen:
    """What is to be said of a picture of several channels; raises ValueError where its pixels cannot be read rightly.

    `packed`: whether it has 16 bits a channel, of which Pillow reads the upper 8; then no `pixel_range` can be kept to.
    """
    if SIGNED in _tag(picture, SAMPLE_FORMAT):
        raise ValueError("its pixels are signed 8-bit integers, which are not read")
    if not packed:
        return Seen()
    if pixel_range is not None:
        raise ValueError(
            f"it has 16 bits a channel in colour, of which the upper 8 are read, so pixel_range "
            f"{stated_as(pixel_range)} cannot be applied: convert it to 8 bits, or to 16-bit grey"
        )
    upper = np.asarray(picture.convert("RGB"))
    return Seen(float(upper.min()) * 256, float(upper.max()) * 256 + 255, 0, 65535)


def _tag(picture: Image.Image, number: int) -> tuple[Any, ...]:
    """A tag of a TIFF; empty where there is none."""
    value = picture.tag_v2.get(number) if picture.format == "TIFF" and hasattr(picture, "tag_v2") else None
    return () if value is None else value if isinstance(value, tuple) else (value,)


@dataclass
class Census:
    """What the pictures of a data set have shown; `add` may be called from several threads."""

    deep: int = 0
    outside: int = 0
    several: int = 0
    low: float = np.inf
    high: float = -np.inf
    black: float = 0
    white: float = 0
    first: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, seen: Seen, where: str) -> None:
        with self._lock:
            if seen.several:
                self.several += 1
                self._keep("several", where)
            if seen.low is None or seen.high is None:
                return
            self.deep += 1
            self.low, self.high = min(self.low, seen.low), max(self.high, seen.high)
            self.black, self.white = min(self.black, seen.black), max(self.white, seen.white)
            if seen.low < seen.black or seen.high > seen.white:
                self.outside += 1
                self._keep("outside", where)

    def _keep(self, what: str, where: str) -> None:
        self.first[what] = min(self.first.get(what, where), where)

    def notes(self, pixel_range: PixelRange | None) -> tuple[str, ...]:
        return tuple(self._notes(pixel_range))

    def _notes(self, pixel_range: PixelRange | None) -> Iterable[str]:
        if self.several:
            yield (
                f"{self.several:,} pictures hold several frames or pages, of which the first counts, "
                f"e.g. {self.first['several']}"
            )
        values = f"values {self.low:.10g}–{self.high:.10g}"
        if pixel_range is None and self.deep:
            whole = self.white - self.black
            span, share = (self.high - self.low) / whole, (self.high - self.black) / whole
            if share < MENTIONED or span < MENTIONED / 4:
                share = min(share, span) if share >= MENTIONED else share
                yield (
                    f"16-bit pictures use at most {100 * share:.2g} % of their range: {values} of {self.white:.10g} "
                    f"(n = {self.deep:,}), so at most {int(span * 255) + 2} of 256 levels of grey are left; state the "
                    f"range that they were taken with, e.g. pixel_range: [0, {_next_full(self.high)}]"
                )
        if pixel_range is not None and not self.deep:
            yield f"pixel_range {stated_as(pixel_range)}: every picture has 8 bits a channel, so it changes nothing"
        elif pixel_range is not None:
            yield (
                f"pixel_range {stated_as(pixel_range)} becomes black to white in {self.deep:,} pictures of more than 8 "
                f"bits a channel, which hold {values}"
            )
        if self.outside:
            yield (
                f"{self.outside:,} of {self.deep:,} pictures of more than 8 bits a channel hold values outside "
                f"pixel_range, which become black or white, e.g. {self.first['outside']}"
            )


def _next_full(high: float) -> int:
    """The largest value of as many bits as `high` takes."""
    return int(2 ** max(1, int(high).bit_length()) - 1)
