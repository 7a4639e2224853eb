"""TensorSpec: one input of a model, by name."""

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["EXAMPLE_LENGTH", "Normalization", "TensorSpec"]

EXAMPLE_LENGTH = 8
"""What stands for a dimension that varies, where an example is made."""


@dataclass(frozen=True)
class TensorSpec:
    """One input of a model. `shape`: a number, or a name for what may vary from call to call; the first is "batch".
    `high`: integers are below it. `mask`: 1 where a position counts, 0 where it only fills up."""

    name: str
    dtype: Literal["float32", "int64", "uint8"]
    shape: tuple[int | str, ...]
    high: int = 1
    mask: bool = False

    def sizes(self, batch: int, length: int = EXAMPLE_LENGTH) -> tuple[int, ...]:
        """The shape of an example; `length` stands for whatever varies beside the batch."""
        return (batch, *(size if isinstance(size, int) else length for size in self.shape[1:]))

    @property
    def values(self) -> int:
        """Of one sample."""
        return math.prod(self.sizes(1))

    @property
    def varying(self) -> dict[int, str]:
        """The dimensions that vary, by their number."""
        return {number: size for number, size in enumerate(self.shape) if isinstance(size, str)}


@dataclass(frozen=True)
class Normalization:
    """`(raw / divisor - mean) / std`, channel by channel: the last step before a model, which can be built into it.

    `raw`: what such a model takes, its channels last; they come first in what the network takes. `mean`, `std`: one
    value a channel, in units of `raw / divisor`.
    """

    raw: TensorSpec
    divisor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def network_sizes(self) -> tuple[int, ...]:
        """The network's input without its batch: channels, then the rest of `raw`."""
        *rest, channels = self.raw.sizes(1)[1:]
        return channels, *rest
