"""Measured figures."""

from compressor.schema.base import Noun

__all__ = ["Estimate", "Spread"]


class Estimate(Noun):
    """A measured figure with its 95 % interval and the number of samples behind it (of blocks, for latency: see
    `of`)."""

    value: float
    low: float
    high: float
    n: int
    of: str


class Spread(Noun):
    """A figure that was measured a few times: median, lowest, highest and how often. No interval is claimed."""

    median: float
    lowest: float
    highest: float
    n: int
