"""Classes one by one: what each keeps of what it is held against, which are lost, and the mean recall of two models.

A class may have six samples, so its own interval leaves open what any sound model does there; and among a hundred
classes the worst is low by chance. So a class counts as lost only where its figure is below the limit and chance does
not explain it: see `judge_classes`.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from compressor.schema.quantization import Score
from compressor.stats.intervals import CONFIDENCE, Bools, Interval, Ints, normal_quantile, wilson_interval
from compressor.stats.paired import retained

__all__ = [
    "CHANCE",
    "LOST",
    "NEAR_ZERO",
    "ONE_SIDED",
    "ClassCounts",
    "Classes",
    "balanced_retention",
    "class_counts",
    "judge_classes",
    "keeps",
    "score_counts",
]

LOST = 0.5
"""A class that keeps less than this share of the recall that it is held against is lost."""

NEAR_ZERO = 0.1
"""A recall below this is near zero: what a class is held to where there is no other model to hold it against."""

CHANCE = 0.05
"""How probable it may at most be that chance alone makes any of the classes so low."""

ONE_SIDED = 0.90
"""The two-sided confidence whose upper end is an upper bound of 95 %."""


@dataclass(frozen=True)
class ClassCounts:
    """By class, int [K]: `n` samples, of which the model has `right` right, what it is held against `base`, and both of
    them `both`. Held against nothing, each sample counts as right there: then shares are recalls."""

    n: Ints
    right: Ints
    base: Ints
    both: Ints
    alone: bool = False


@dataclass(frozen=True)
class Classes:
    """The verdict on a limit for every class. `lost`, `doubtful`: numbers of the classes that fail it, and of those
    that leave it open, the lowest share first; `judged`: how many classes there was something to hold against."""

    verdict: Literal["pass", "fail", "inconclusive"]
    lost: tuple[int, ...]
    doubtful: tuple[int, ...]
    judged: int


def class_counts(right: Bools, labels: Ints, classes: int, base: Bools | None = None) -> ClassCounts:
    """Counts of samples that are right, bool [N], by their labels, int [N]; `base`: bool [N], of the other model."""
    n = np.bincount(labels, minlength=classes)
    ours = np.bincount(labels[right], minlength=classes)
    if base is None:
        return ClassCounts(n, ours, n, ours, alone=True)
    theirs, both = (np.bincount(labels[mask], minlength=classes) for mask in (base, base & right))
    return ClassCounts(n, ours, theirs, both)


def judge_classes(counts: ClassCounts, limit: float) -> Classes:
    """Whether every class keeps at least `limit` of what it is held against.

    A class is suspected where its figure is below the limit, it misses at least two samples more, and chance does not
    explain that: the probability that a class which keeps as much as all those together that are not below the limit
    (or `limit`, if that is more) keeps so few of the samples that the base has right, times the number of classes, is
    at most 5 % (binomial, Bonferroni). A suspected class whose upper bound (one-sided 95 %; Bonett & Price 2006, or
    Wilson where there is no base) is below the limit too is lost.

    "fail": a class is lost. "inconclusive": one is suspected, or all classes together are below the limit. Else
    "pass", which says that no class looks lost, not that each is shown to keep the limit: six samples cannot show that.
    """
    judged = np.flatnonzero(counts.base > 0)
    shares = counts.right[judged] / counts.base[judged]
    low = judged[(shares < limit) & (counts.base[judged] - counts.right[judged] >= 2)]
    sound = judged[shares >= limit]
    rate = max(limit, float((counts.both[sound].sum() + 1) / (counts.base[sound].sum() + 2)))
    kept = ((number, int(counts.both[number]), int(counts.base[number])) for number in low.tolist())
    suspected = [number for number, both, base in kept if len(judged) * _binomial(both, base, rate) <= CHANCE]
    suspected.sort(key=lambda number: (counts.right[number] / counts.base[number], -counts.base[number]))
    lost = tuple(number for number in suspected if _upper(counts, number) < limit)
    doubtful = tuple(number for number in suspected if number not in lost)
    together = counts.right[judged].sum() < limit * counts.base[judged].sum()
    if lost:
        return Classes("fail", lost, doubtful, len(judged))
    return Classes("inconclusive" if doubtful or together else "pass", lost, doubtful, len(judged))


def _binomial(most: int, n: int, p: float) -> float:
    """P(X <= most) for X ~ Binomial(n, p)."""
    if p >= 1:
        return float(most >= n)
    k = np.arange(most + 1)
    steps = np.log((n - k[1:] + 1) / k[1:]) + math.log(p) - math.log1p(-p)
    logs = n * math.log1p(-p) + np.concatenate([[0.0], np.cumsum(steps)])
    return float(np.exp(logs).sum())


def _upper(counts: ClassCounts, number: int) -> float:
    n, right, base, both = (int(part[number]) for part in (counts.n, counts.right, counts.base, counts.both))
    if counts.alone:
        return wilson_interval(right, n, ONE_SIDED).high
    return retained(right, base, both, n, ONE_SIDED).high


def balanced_retention(
    student: Bools, teacher: Bools, labels: Ints, classes: int, confidence: float = CONFIDENCE
) -> Interval:
    """The student's mean recall over the K classes that have samples / the teacher's, from the same samples. student,
    teacher: right or wrong, bool [N]; labels int [N].

    Interval: Fieller's (1954) for a ratio, from the unbiased paired variances within the classes; as in Bonett & Price
    (2012) one sample more is added to either kind of disagreement, here 1/K to each class, so that it has a width where
    the two never disagree. Raises ValueError where the teacher is never right, or the samples are too few for any upper
    end.
    """
    counts = class_counts(student, labels, classes, teacher)
    held = counts.n > 0
    n, x, y, both = (part[held].astype(float) for part in (counts.n, counts.right, counts.base, counts.both))
    if not y.sum():
        raise ValueError("the teacher is right on no sample, so there is nothing to retain")
    value = float((x / n).mean() / (y / n).mean())
    pseudocount = 1 / len(n)
    totals = n + 2 * pseudocount
    s, t, st = (x + pseudocount) / totals, (y + pseudocount) / totals, both / totals
    weight = 1 / ((np.maximum(n - 1, n / 2) + 2 * pseudocount) * len(n) ** 2)  # of one sample no variance can be told
    z = normal_quantile(confidence) ** 2
    a = t.mean() ** 2 - z * float((weight * t * (1 - t)).sum())
    b = s.mean() * t.mean() - z * float((weight * (st - s * t)).sum())
    c = s.mean() ** 2 - z * float((weight * s * (1 - s)).sum())
    if a <= 0:
        raise ValueError("too few samples: the teacher's mean recall may be 0")
    reach = math.sqrt(max(0.0, b * b - a * c))
    low, high = max(0.0, (b - reach) / a), (b + reach) / a
    return Interval(value, float(min(low, value)), float(max(high, value)), len(labels))


def keeps(score: Score, max_drop: float) -> bool:
    """Whether an artefact loses at most `max_drop` of the accuracy of the student in fp32, on the same samples.

    One sample may always be lost: where they are few, a single one is more than any share that is asked for. Accuracy
    is exact. Balanced accuracy must not have lost more either, less 1.645 standard errors of so many samples on which
    the two differ, since a few samples of a rare class weigh much; and no class may be lost (`judge_classes`).
    """
    if score.reference_correct - score.correct > max(1.0, max_drop * score.n):
        return False
    counts = score_counts(score)
    held = counts.n > 0
    apart = (counts.base + counts.right - 2 * counts.both)[held] / counts.n[held] ** 2
    shown = score.balanced_drop - normal_quantile(ONE_SIDED) * math.sqrt(apart.sum()) / held.sum()
    classes = judge_classes(counts, LOST)
    return bool(shown <= max_drop and not classes.lost and not classes.doubtful)


def score_counts(score: Score) -> ClassCounts:
    """A score's counts by class, held against the student in fp32."""
    counts = score.by_class
    return ClassCounts(np.array(counts.n), np.array(counts.correct), np.array(counts.reference), np.array(counts.both))
