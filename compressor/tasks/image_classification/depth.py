"""Images of more than 8 bits a channel: which of their values become black and white, and what is said about it."""

import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from compressor.schema.preprocess import PixelRange

__all__ = ["MENTIONED", "Census", "Seen", "colour_of", "grey_of", "mend_tiles", "stated_as", "swapped"]

PHOTOMETRIC, BITS, SAMPLE_FORMAT = 262, 258, 339  # TIFF 6.0, section 8 and 19
WHITE_IS_ZERO, SIGNED = 0, 2
NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""How Pillow reads values of a TIFF that are large byte first, and those in the order of this machine."""
SWAPPED = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
"""Which byte of two comes last: Pillow's "RGB;16B" is read by its first bytes, and as "RGB;16L" by its second ones."""
CHUNK = 1 << 22  # values that are scaled at a time: in double precision they take eight times what a byte takes
MENTIONED = 0.25
"""A data set whose values stay below this part of their range is told so: 14 bits in 16 do, and keep 64 of 256 levels
of grey; and one whose values lie that close together that a quarter of these are left."""


@dataclass(frozen=True)
class Seen:
    """What is to be said of an image's file. `low`, `high`: the least and the largest value, of `black` to `white`;
    None where it has 8 bits a channel. `several`: it holds more frames or pages than the one that counts. `shown`: what
    the image shows whatever range is stated, where its RGB does not say it: the bytes of its values as channels."""

    low: float | None = None
    high: float | None = None
    black: float = 0
    white: float = 255
    several: bool = False
    shown: Image.Image | None = None


PLAIN = Seen()
"""Of a file of which nothing is to be said."""


def stated_as(pixel_range: PixelRange) -> str:
    """As it is typed: "[0, 4095]"."""
    return f"[{pixel_range[0]:.10g}, {pixel_range[1]:.10g}]"


def grey_of(image: Image.Image, pixel_range: PixelRange | None) -> tuple[NDArray[np.uint8], Seen]:
    """A loaded image of one channel of more than 8 bits as 8-bit grey [h, w]; raises ValueError where it cannot be.

    Value v becomes `floor((v - black) * 255 / (white - black) + 0.5)`, cut to 0 … 255; of a TIFF that says that its
    white is zero, 255 minus that.
    """
    values = np.asarray(image)
    if image.mode == "I" and _tag(image, BITS) == (32,) and SIGNED not in _tag(image, SAMPLE_FORMAT):
        values = values.view(np.uint32)  # Pillow keeps their bits in signed numbers
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("some of its pixels are no finite numbers")
    black, white = pixel_range or _whole_range(image)
    grey = np.empty(values.shape, np.uint8)
    flat, out = values.reshape(-1), grey.reshape(-1)
    for start in range(0, len(flat), CHUNK):
        out[start : start + CHUNK] = _scaled(flat[start : start + CHUNK], black, white)
    turned = _tag(image, PHOTOMETRIC) == (WHITE_IS_ZERO,)
    if turned:
        grey = 255 - grey
    return grey, Seen(float(values.min()), float(values.max()), black, white, shown=_shown(values, turned))


def _shown(values: NDArray[Any], turned: bool) -> Image.Image:
    """Grey values of 16 bits that 8 hold as well (0, 257, … 65535), as the RGB of those; others as their own bytes, in
    as few as hold them. `turned`: white is zero."""
    if values.dtype.kind != "f" and values.min() >= 0 and values.max() <= 65535:
        values = (65535 - values if turned else values).astype("<u2")
        if not (values % 257).any():
            return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")
        return Image.fromarray(values[..., None].view(np.uint8))
    plain = np.ascontiguousarray(-values if turned else values, f"<{values.dtype.kind}4")
    return Image.fromarray(plain[..., None].view(np.uint8))


def _scaled(values: NDArray[Any], black: float, white: float) -> NDArray[np.uint8]:
    with np.errstate(over="ignore"):  # a narrow range; what is infinite is cut off
        scaled = np.floor((values.astype(np.float64) - black) * 255 / (white - black) + 0.5)
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _whole_range(image: Image.Image) -> tuple[float, float]:
    if image.mode.startswith("I;16"):
        return 0, 2 ** min(_tag(image, BITS) or (16,)) - 1  # Pillow unpacks a TIFF of 12 bits without scaling it
    # Pillow opens 16-bit PGM (and, before version 11, 16-bit PNG) as 32-bit integers that stay within 16 bits.
    if image.mode == "I" and image.format in ("PNG", "PPM"):
        return 0, 65535
    kind = "32-bit floats" if image.mode == "F" else f"{_signed_or_not(image)} integers"
    raise ValueError(f"its pixels are {kind} of unknown range, not 8 bit: pixel_range in the recipe states it")


def _signed_or_not(image: Image.Image) -> str:
    return "signed 16-bit" if _tag(image, BITS) == (16,) else "32-bit"


def colour_of(
    image: Image.Image, packed: bool, lower: Image.Image | None, pixel_range: PixelRange | None
) -> tuple[Image.Image, Seen]:
    """A loaded image of 8 bits or of several channels in RGB; raises ValueError where it cannot be read rightly.

    `packed`: whether it has 16 bits a channel, of which Pillow reads the upper 8. `lower`: the same image with the
    lower 8, which are wanted where a `pixel_range` is stated.
    """
    if SIGNED in _tag(image, SAMPLE_FORMAT):
        raise ValueError("its pixels are signed 8-bit integers, which are not read")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours, without Pillow's warning
    rgb = image.convert("RGB")
    if not packed:
        return rgb, PLAIN
    upper = np.asarray(rgb)
    if pixel_range is None:
        return rgb, Seen(float(upper.min()) * 256, float(upper.max()) * 256 + 255, 0, 65535)
    if lower is None or not image.mode.startswith("RGB"):
        raise ValueError(
            f"it has 16 bits a channel, of which the upper 8 can be read, so pixel_range {stated_as(pixel_range)} "
            "cannot be applied: convert it to 8 bits, to grey of 16, or to RGB of 16 in a PNG"
        )
    values = upper.astype(np.uint16) * np.uint16(256) + np.asarray(lower.convert("RGB"))
    table = _scaled(np.arange(65536), *pixel_range)
    return Image.fromarray(table[values]), Seen(float(values.min()), float(values.max()), *pixel_range, shown=rgb)


def mend_tiles(image: Image.Image) -> None:
    """Have Pillow read the pixels of a TIFF, which is open and not loaded, as they lie. It (13.0) takes 16 bits for 8
    where each channel lies for itself, and turns signed and 32-bit values of a packed file of the other byte order,
    which libtiff has turned already."""
    if not isinstance(image, TiffImageFile):
        return
    deep, order = max(_tag(image, BITS) or (8,)) == 16, "B" if image.tag_v2.prefix == b"MM" else "L"
    for number, tile in enumerate(image.tile):
        mode, *rest = cast(tuple[Any, ...], tile.args)  # of a TIFF they are always several
        if tile.codec_name == "libtiff":
            mode = NATIVE.get(mode, mode)
        elif deep and len(mode) == 1:  # a channel's letter
            mode = f"{mode};16{order}"
        image.tile[number] = tile._replace(args=(mode, *rest))


def swapped(image: Image.Image) -> bool:
    """Make an image of 16 bits a channel in colour, which is open and not loaded, give its lower bytes for its upper
    ones; False where Pillow has no such reader."""
    tiles = []
    for tile in image.tile:  # type: ignore[attr-defined]  # of the files that have one
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        mode, _, order = str(arguments[0]).partition(";16")
        if mode not in ("RGB", "RGBA", "RGBX") or order not in SWAPPED:
            return False
        raw_mode = f"{mode};16{SWAPPED[order]}"
        args = (raw_mode, *arguments[1:]) if isinstance(tile[3], tuple) else raw_mode
        tiles.append(tile._replace(args=args))
    image.tile = tiles  # type: ignore[attr-defined]
    return True


def _tag(image: Image.Image, number: int) -> tuple[Any, ...]:
    """A tag of a TIFF; empty where there is none."""
    value = image.tag_v2.get(number) if isinstance(image, TiffImageFile) else None
    return () if value is None else value if isinstance(value, tuple) else (value,)


@dataclass
class Census:
    """What the images of a data set have shown; `add` may be called from several threads."""

    deep: int = 0
    outside: int = 0
    several: int = 0
    low: float = np.inf
    high: float = -np.inf
    black: float = 0
    white: float = 0
    first: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, seen: Seen, name: str) -> None:
        if seen is PLAIN:
            return
        with self._lock:
            if seen.several:
                self.several += 1
                self._keep("several", name)
            if seen.low is None or seen.high is None:
                return
            self.deep += 1
            self.low, self.high = min(self.low, seen.low), max(self.high, seen.high)
            self.black, self.white = min(self.black, seen.black), max(self.white, seen.white)
            if seen.low < seen.black or seen.high > seen.white:
                self.outside += 1
                self._keep("outside", name)

    def _keep(self, kind: str, name: str) -> None:
        self.first[kind] = min(self.first.get(kind, name), name)

    def notes(self, pixel_range: PixelRange | None) -> tuple[str, ...]:
        return tuple(self._notes(pixel_range))

    def _notes(self, pixel_range: PixelRange | None) -> Iterable[str]:
        if self.several:
            yield (
                f"{self.several:,} images hold several frames or pages, of which the first counts, "
                f"e.g. {self.first['several']}"
            )
        values = f"values {self.low:.10g}–{self.high:.10g}"
        if pixel_range is None and self.deep:
            full = self.white - self.black
            span, share = (self.high - self.low) / full, (self.high - self.black) / full
            if share < MENTIONED or span < MENTIONED / 4:
                share = min(share, span) if share >= MENTIONED else share
                yield (
                    f"16-bit images use at most {100 * share:.2g} % of their range: {values} of {self.white:.10g} "
                    f"(n = {self.deep:,}), so at most {int(span * 255) + 2} of 256 levels of grey are left; state the "
                    f"range that they were taken with, e.g. pixel_range: [0, {_next_full(self.high)}]"
                )
        if pixel_range is not None and not self.deep:
            yield f"pixel_range {stated_as(pixel_range)}: every image has 8 bits a channel, so it changes nothing"
        elif pixel_range is not None:
            yield (
                f"pixel_range {stated_as(pixel_range)} becomes black to white in {self.deep:,} images of more than 8 "
                f"bits a channel, which hold {values}"
            )
        if self.outside:
            yield (
                f"{self.outside:,} of {self.deep:,} images of more than 8 bits a channel hold values outside "
                f"pixel_range, which become black or white, e.g. {self.first['outside']}"
            )


def _next_full(high: float) -> int:
    """The largest value of as many bits as `high` takes."""
    return int(2 ** max(1, int(high).bit_length()) - 1)
