"""Two versions of a model on the same samples: the mean recall of each class, and the classes that changed."""

import math

import numpy as np

from compressor.stats.classes import CHANCE
from compressor.stats.intervals import CONFIDENCE, Bools, Interval, Ints, normal_quantile
from compressor.stats.paired import mcnemar

__all__ = ["balanced_difference", "changed_classes"]

NEAR = 3.0
"""McNemar's chi square, without continuity correction. A mid-p of 5 % takes 3.8 and more."""


def balanced_difference(
    now: Bools, before: Bools, labels: Ints, classes: int, confidence: float = CONFIDENCE
) -> Interval:
    """The mean recall of `now` over the K classes that have samples - that of `before`, from the same samples. now,
    before: right or wrong, bool [N]; labels int [N].

    Interval: adjusted Wald, from the paired variances within the classes; as in Bonett & Price (2012) one sample more
    is added to either kind of disagreement, here 1/K to each class. For one class it is `difference`, but for n - 1 in
    place of n. Raises ValueError where N is 0.
    """
    n = np.bincount(labels, minlength=classes)
    if not n.sum():
        raise ValueError("no samples")
    held = n > 0
    gained, lost = (np.bincount(labels[mask], minlength=classes)[held] for mask in (now & ~before, before & ~now))
    counts = n[held].astype(float)
    pseudocount = 1 / len(counts)
    p, q = ((part + pseudocount) / (counts + 2 * pseudocount) for part in (gained, lost))
    # Of one sample no variance can be told; see `balanced_retention`.
    variance = (p + q - (p - q) ** 2) / (np.maximum(counts - 1, counts / 2) + 2 * pseudocount)
    reach = normal_quantile(confidence) * math.sqrt(float(variance.sum())) / len(counts)
    value, centre = float(((gained - lost) / counts).mean()), float((p - q).mean())
    low, high = max(-1.0, centre - reach), min(1.0, centre + reach)
    return Interval(value, min(low, value), max(high, value), len(labels))


def changed_classes(now: Bools, before: Bools, labels: Ints, classes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The numbers of the classes that got worse, and better, the most samples first.

    A class counts where McNemar's mid-p, times the number of classes that have samples, is at most 5 % (Bonferroni): of
    a hundred classes some change by chance alone. now, before: right or wrong, bool [N]; labels int [N].
    """
    gained, lost = (np.bincount(labels[mask], minlength=classes) for mask in (now & ~before, before & ~now))
    among = int((np.bincount(labels, minlength=classes) > 0).sum())
    apart = gained - lost
    # The mid-p of what is closer than that is above 5 % for a single class already, and need not be computed.
    near = apart**2 < NEAR * (gained + lost)
    changed = [
        number
        for number in np.flatnonzero(~near & (apart != 0)).tolist()
        if _shown(gained[number], lost[number], among)
    ]
    worse = sorted((number for number in changed if apart[number] < 0), key=lambda number: int(apart[number]))
    better = sorted((number for number in changed if apart[number] > 0), key=lambda number: -int(apart[number]))
    return tuple(worse), tuple(better)


def _shown(gained: int, lost: int, among: int) -> bool:
    either = np.repeat([True, False], [gained, lost])
    return mcnemar(either, ~either).p_value * among <= CHANCE
