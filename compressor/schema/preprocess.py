"""Preprocess: how a picture becomes the input of one model. It travels with the weights."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from compressor.schema.base import Noun

__all__ = ["Interpolation", "PixelRange", "Preprocess", "Three"]

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Side = Annotated[int, Field(ge=1, le=8192)]
Three = tuple[float, float, float]
Value = Annotated[float, Field(ge=-1e12, le=1e12)]


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise ValueError("must be [black, white], with black < white")
    return value


PixelRange = Annotated[tuple[Value, Value], AfterValidator(_rising)]
"""Which values of pictures of more than 8 bits a channel become black and white, 0 and 255."""


class Preprocess(Noun):
    """RGB picture -> resize -> centre crop -> `(pixel / 255 - mean) / std`, float32 [3, height, width].

    `resize_mode` "shorter" brings the shorter side to `resize[0]` and keeps the aspect; "squash" resizes to `resize`
    exactly. The crop is `input_size`, both (height, width) in pixels. `pixel_range`: as in the recipe; null: the whole
    range of the picture's kind, such as 0 to 65535.
    """

    input_size: tuple[Side, Side]
    resize: tuple[Side, Side]
    resize_mode: Literal["shorter", "squash"] = "shorter"
    interpolation: Interpolation = "bicubic"
    mean: Three
    std: Three
    pixel_range: PixelRange | None = None
