"""Verdicts against a limit, taken while sampling goes on, and what a session is able to see at all."""

import math
from typing import Literal

from compressor.stats.intervals import Interval

__all__ = ["judge", "look_confidence", "smallest_detectable", "widen"]


def judge(low: float, high: float, limit: float, *, at_most: bool) -> Literal["pass", "fail", "inconclusive"]:
    """Whether the whole interval low..high keeps to the limit ("pass"), breaks it ("fail"), or straddles it."""
    if not at_most:
        low, high, limit = -high, -low, -limit
    if high <= limit:
        return "pass"
    return "fail" if low > limit else "inconclusive"


def look_confidence(look: int, error: float = 0.01) -> float:
    """The confidence of the interval that is judged at look 1, 2, 3 ...: 1 - error / (look * (look + 1)).

    Whoever samples on until an interval no longer straddles the limit looks often, and each look may mislead. Here the
    chance that any look's interval misses the truth, however many looks there are, is at most `error`: the looks' own
    errors add up to it (Bonferroni), as 1/2 + 1/6 + 1/12 + ... = 1. Raises ValueError for look < 1, or an error
    outside 0..1.
    """
    if look < 1 or not 0 < error < 1:
        raise ValueError(f"look {look} with error {error:g}: looks count from 1, the error lies between 0 and 1")
    return 1 - error / (look * (look + 1))


def smallest_detectable(aa: Interval) -> float:
    """The smallest relative effect that a session can see, e.g. 0.03 for 3 %, from its A/A comparison: the ratio of two
    copies of the same artefact, at the confidence of the verdicts. What lies farthest from 1 in its interval counts.

    Raises ValueError where the interval reaches down to 0.
    """
    return _stretch(aa) - 1


def widen(ratio: Interval, aa: Interval) -> Interval:
    """The interval of a ratio, stretched to either side by as much as A/A may differ from 1.

    Two processes that run the same artefact differ, by the memory that they happened to get for one, and more rounds do
    not average that out, so the ratio's own interval knows nothing of it (Mytkowicz, Diwan, Hauswirth & Sweeney 2009).
    Verdicts on ratios use this one. A/A is one draw of that difference and cannot bound it: in simulation (3 % noise a
    round, the true ratio on the limit, four looks) differences of 0.5 % between processes leave 0.2 % false verdicts
    instead of 18 %, but those of 1 % leave 4 % (of 48 %) and those of 2 % leave 17 % (of 71 %).

    Raises ValueError where the interval of A/A reaches down to 0.
    """
    stretch = _stretch(aa)
    return Interval(ratio.value, ratio.low / stretch, ratio.high * stretch, ratio.n)


def _stretch(aa: Interval) -> float:
    if aa.low <= 0:
        raise ValueError(f"the A/A ratio {aa.value:g} [{aa.low:g}, {aa.high:g}] tells nothing: it reaches 0")
    return math.exp(max(abs(math.log(aa.low)), abs(math.log(aa.high))))
