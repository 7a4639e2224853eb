"""What every figure is told with: the interval, the quantiles of the normal and of Student's t, and Wilson's share."""

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONFIDENCE",
    "Bools",
    "Floats",
    "Interval",
    "Ints",
    "normal_quantile",
    "t_quantile",
    "wilson",
    "wilson_interval",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate, its confidence interval, and the number of samples behind it (`percentile`: of blocks;
    `paired_ratio`: of rounds)."""

    value: float
    low: float
    high: float
    n: int


def normal_quantile(confidence: float) -> float:
    """The z with P(|normal| <= z) = confidence: 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


@lru_cache(maxsize=256)
def t_quantile(confidence: float, degrees: int) -> float:
    """The t with P(|Student's t| <= t) = confidence, for whole degrees of freedom >= 1: 2.776 for 0.95 and 4.

    By bisection of the closed form (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4), which is one in the angle
    atan(t / sqrt(degrees)).
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        low, high = (angle, high) if _t_within(angle, degrees) < confidence else (low, angle)
    return math.tan(low) * math.sqrt(degrees)


def _t_within(angle: float, degrees: int) -> float:
    odd = degrees % 2
    # The terms c, 2/3 c^3, 2/3 4/5 c^5 ... of an odd number of degrees; 1, 1/2 c^2, 1/2 3/4 c^4 ... of an even one.
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= k / (k + 1) * math.cos(angle) ** 2
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def wilson(correct: float, n: float, z: float) -> tuple[float, float]:
    """The score interval of Wilson (1927) for the share `correct / n`, either of which may be a fraction."""
    middle = correct + z * z / 2
    spread = z * math.sqrt(z * z / 4 + correct * (1 - correct / n))
    low, high = (middle - spread) / (n + z * z), (middle + spread) / (n + z * z)
    return (low if correct > 0 else 0.0), (high if correct < n else 1.0)


def wilson_interval(correct: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """The share `correct / n` with the score interval of Wilson (1927), without continuity correction.

    Raises ValueError where n < 1 or correct lies outside 0..n.
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"{correct} of {n} is no share")
    return Interval(correct / n, *wilson(correct, n, normal_quantile(confidence)), n)
