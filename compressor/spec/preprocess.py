"""Preprocess: how a picture becomes the input of one model. It travels with the weights."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.spec.base import Noun

__all__ = ["Interpolation", "Preprocess", "Three"]

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Side = Annotated[int, Field(ge=1, le=8192)]
Three = tuple[float, float, float]


class Preprocess(Noun):
    """RGB picture -> resize -> centre crop -> `(pixel / 255 - mean) / std`, float32 [3, height, width].

    `resize_mode` "shorter" brings the shorter side to `resize[0]` and keeps the aspect; "squash" resizes to `resize`
    exactly. The crop is `input_size`, both (height, width) in pixels.
    """

    input_size: tuple[Side, Side]
    resize: tuple[Side, Side]
    resize_mode: Literal["shorter", "squash"] = "shorter"
    interpolation: Interpolation = "bicubic"
    mean: Three
    std: Three
