"""A measured figure."""

from compressor.schema.base import Noun

__all__ = ["Estimate"]


class Estimate(Noun):
    """A measured figure with its 95 % interval and the number of samples behind it (of blocks, for latency: see
    `of`)."""

    value: float
    low: float
    high: float
    n: int
    of: str
