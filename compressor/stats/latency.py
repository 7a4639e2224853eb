"""Latency percentiles and ratios with intervals that hold though the samples depend on each other.

Samples come in blocks (the calls that one contestant made in one round), and blocks in the order in which they were
measured. Calls of one block are alike, and so are neighbouring rounds: another process runs for a while, a clock goes
down and up again. Intervals that count such samples as independent are too narrow: at a first-order autocorrelation of
0.5 the order statistics that would be exact for independent rounds cover 81 to 86 % instead of 95 %.

One method serves percentiles and ratios (a ratio is a percentile of one sample a round). Woodruff (1952): the shares of
the samples that may lie below the quantile, q -+ t * standard error, are read off the ordered samples. The standard
error is that of the mean of a series, the share of each block below the estimate, with its autocorrelation; it comes
from the series' B slowest cosines, and t is Student's with B degrees of freedom (Muller 2004; Lazarus, Lewis, Stock &
Watson 2018, whose B = 0.4 n^(2/3) is taken). t pays for what B cosines do not know of the variance, so that small n are
honest: 4 cosines at 30 rounds, where t is 2.8 instead of 2; 15 at 240, where it is 2.1.

Simulated coverage of the nominal 95 %, n = 30 to 240 (tests/statistics): 94 to 96 % for ratios whose noise is
independent, spiky, shared, or autocorrelated up to phi 0.7; 93.5 to 96 % for p50 and p90 with correlated calls and
blocks of phi up to 0.5. Beyond that it is less: p90 at phi 0.7 leaves 91 % at 30 blocks (94 % at 240), and noise with a
longer memory, half of it of phi 0.9, leaves ratios 86 % at 30 rounds and 89 % at 240. A steady drift errs on the wide
side (99.6 %).
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from statistics import median

import numpy as np

from compressor.stats.intervals import CONFIDENCE, Floats, Interval, t_quantile

__all__ = ["MIN_BLOCKS", "paired_ratio", "percentile", "percentile_needs"]

# With fewer blocks, an interval made from them is too narrow to stand behind a verdict.
MIN_BLOCKS = 10
# The share of the way from q to 0 or 1 within which order statistics are read off. Farther out too few samples lie to
# tell where the bound is, and it is drawn on from there.
WITHIN = 0.75


@lru_cache(maxsize=16)
def percentile_needs(q: float) -> int:
    """The fewest samples from which a q-percentile may be told: 64 for 0.9, 130 for 0.95, 662 for 0.99.

    The smallest n with P(at most one of n samples lies above the percentile) <= 1 %, the rule behind the minimum query
    counts of MLPerf LoadGen's early stopping.
    """
    n = 2
    while q**n + n * (1 - q) * q ** (n - 1) > 0.01:
        n += 1
    return n


def percentile(blocks: Sequence[Sequence[float]], q: float, confidence: float = CONFIDENCE) -> Interval:
    """The q-percentile of all samples, e.g. q = 0.9, in their unit, with the interval that this module describes.

    blocks: the samples of each block, in the order of measuring; empty ones count for nothing. n: blocks. Raises
    ValueError for fewer samples than `percentile_needs(q)`, or fewer than MIN_BLOCKS blocks.
    """
    filled = [block for block in blocks if len(block)]
    samples = sum(len(block) for block in filled)
    if samples < percentile_needs(q):
        raise ValueError(f"p{100 * q:g} needs {percentile_needs(q)} samples, found {samples}")
    if len(filled) < MIN_BLOCKS:
        raise ValueError(f"p{100 * q:g} needs {MIN_BLOCKS} blocks, found {len(filled)}")
    return _quantile(filled, q, confidence)


def paired_ratio(
    numerator: Mapping[int, Sequence[float]],
    denominator: Mapping[int, Sequence[float]],
    confidence: float = CONFIDENCE,
    share: float = 0.5,
) -> Interval:
    """How many times longer the numerator takes: the median over rounds of the ratio of the two blocks' medians, so
    that noise which both had in a round cancels; with the interval that this module describes. `share`: another
    quantile of each block than its median, in 0..1.

    Both: round -> the samples of its block; only common rounds count, in the order of their numbers. n: rounds. Raises
    ValueError for fewer than MIN_BLOCKS common rounds, or where the denominator took no time.
    """
    rounds = sorted(key for key in numerator if len(numerator[key]) and len(denominator.get(key, ())))
    if len(rounds) < MIN_BLOCKS:
        raise ValueError(f"a paired ratio needs {MIN_BLOCKS} rounds, found {len(rounds)}")
    blocks = [(_of_block(numerator[key], share), _of_block(denominator[key], share)) for key in rounds]
    if any(below <= 0 for _, below in blocks):
        raise ValueError("a paired ratio needs a denominator that took some time in every round")
    return _quantile([[above / below] for above, below in blocks], 0.5, confidence)


def _of_block(samples: Sequence[float], share: float) -> float:
    # statistics.median is ten times as fast as numpy on six samples.
    return float(median(samples) if share == 0.5 else np.quantile(samples, share))


def _quantile(blocks: Sequence[Sequence[float]], q: float, confidence: float) -> Interval:
    """The q-quantile of all samples of the blocks, none of them empty, with its interval; n: blocks."""
    sizes = np.array([len(block) for block in blocks])
    samples = np.fromiter(chain.from_iterable(blocks), dtype=np.float64, count=int(sizes.sum()))
    ordered = np.sort(samples)
    value = _at(ordered, (len(ordered) - 1) * q + 1)  # As np.quantile has it, which takes five times as long.
    below = (np.sign(value - samples) + 1) / 2  # A sample at the estimate is half below it.
    surplus = np.add.reduceat(below, np.cumsum(sizes) - sizes) - q * sizes
    # Of independent values, each product has the variance of one value; of autocorrelated ones, that of their mean
    # times their number, which is what the error of the mean needs.
    products = _slow_cosines(len(blocks)) @ surplus
    error = math.sqrt(float((products**2).mean()) / len(blocks)) / float(sizes.mean())
    # By chance no cosine may see of few blocks that they differ: then the next samples on either side are the bounds.
    reach = max(t_quantile(confidence, len(products)) * error, 0.5 / len(ordered))
    low, high = _bound(ordered, value, q, -reach), _bound(ordered, value, q, reach)
    return Interval(value, min(value, low), max(value, high), len(blocks))


@lru_cache(maxsize=16)
def _slow_cosines(n: int) -> Floats:
    """The slowest B cosines over n blocks [B, n], each of unit length. All are orthogonal to what is constant."""
    slowest = np.arange(1, round(0.4 * float(n) ** (2 / 3)) + 1)
    cosines: Floats = math.sqrt(2 / n) * np.cos(np.pi / n * np.outer(slowest, np.arange(n) + 0.5))
    return cosines


def _at(ordered: Floats, rank: float) -> float:
    """The order statistic of a rank from 1 to N, between two of them where it is a fraction."""
    return float(np.interp(rank, np.arange(1, len(ordered) + 1), ordered))


def _bound(ordered: Floats, value: float, q: float, reach: float) -> float:
    """Where a share q + reach of the samples lies below: between two order statistics up to WITHIN, drawn on from the
    estimate through that point (in proportion, so that no bound falls below 0) beyond.

    The extremes themselves would not do: an interval at 99.9 % from 30 rounds of phi 0.7 asks for more than they hold.
    """
    room = WITHIN * (q if reach < 0 else 1 - q)
    inside = math.copysign(min(abs(reach), room), reach)
    point = _at(ordered, (q + inside) * len(ordered) + 0.5)
    if abs(reach) <= room or point <= 0 or value <= 0:
        return point
    # 600: far beyond any latency, yet neither is e^600 infinite as a float nor e^-600 zero.
    return value * math.exp(min(600.0, max(-600.0, reach / inside * math.log(point / value))))
