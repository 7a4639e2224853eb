"""How an image becomes the input of a model."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from compressor.schema.preprocess.base import PixelRange, Preprocess
from compressor.schema.tensors import Normalization, TensorSpec

__all__ = ["ImagePreprocess", "Interpolation", "Three"]

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Side = Annotated[int, Field(ge=1, le=8192)]
Three = tuple[float, float, float]


class ImagePreprocess(Preprocess):
    """RGB image -> resize -> centre crop -> `(pixel / 255 - mean) / std`, float32 [3, height, width].

    `resize_mode` "shorter" brings the shorter side to `resize[0]` and keeps the aspect; "squash" resizes to `resize`
    exactly. The crop is `input_size`, both (height, width) in pixels. `pixel_range`: as in the recipe; null: the whole
    range of the image's kind, such as 0 to 65535.
    """

    input_size: tuple[Side, Side]
    resize: tuple[Side, Side]
    resize_mode: Literal["shorter", "squash"] = "shorter"
    interpolation: Interpolation = "bicubic"
    mean: Three
    std: Three
    pixel_range: PixelRange | None = None

    task: ClassVar[str] = "image-classification"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec("input", "float32", ("batch", 3, *self.input_size)),)

    @property
    def size(self) -> int | None:
        height, width = self.input_size
        return height if height == width else None

    @property
    def described(self) -> str:
        return f"images of {self.input_size[0]}×{self.input_size[1]}"

    @property
    def normalization(self) -> Normalization:
        return Normalization(TensorSpec("image", "uint8", ("batch", *self.input_size, 3)), 255.0, self.mean, self.std)

    @property
    def read_with(self) -> PixelRange | None:
        return self.pixel_range
