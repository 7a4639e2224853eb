"""Made-up measurements whose truth is known: noise as machines make it, and what a method says of many of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from compressor.stats import Interval, class_counts, judge, judge_classes, look_confidence, paired_ratio, widen

Floats = NDArray[np.float64]
Blocks = dict[int, list[float]]

ROUNDS = (30, 60, 120, 240)
CALLS = 6


def autoregressive(rng: np.random.Generator, phi: float, times: int, n: int) -> Floats:
    """Series [times, n] of normals of variance 1, each value correlated by phi with the one before it."""
    series = rng.standard_normal((times, n))
    for step in range(1, n):
        series[:, step] = phi * series[:, step - 1] + math.sqrt(1 - phi**2) * series[:, step]
    return series


def spiky(rng: np.random.Generator, times: int, n: int) -> Floats:
    """Independent normals [times, n], of which 10 % are hit by something ten times as large, to either side."""
    hit = rng.random((times, n)) < 0.1
    return rng.standard_normal((times, n)) * np.where(hit, 10, 1)


def long_memory(rng: np.random.Generator, times: int, n: int) -> Floats:
    """Noise [times, n], half of which is of phi 0.9 and half independent: more than 0.4 n^(2/3) cosines see."""
    return (autoregressive(rng, 0.9, times, n) + rng.standard_normal((times, n))) / math.sqrt(2)


def rounds(log_times: Floats) -> Blocks:
    """round -> block, from the logarithms of times [rounds] or [rounds, calls]."""
    return dict(enumerate(np.exp(log_times).reshape(len(log_times), -1).tolist()))


def correlated_blocks(rng: np.random.Generator, phi: float, within: float, times: int, n: int) -> Floats:
    """Normals of variance 1 [times, n blocks, CALLS]; `within`: the correlation of two calls of one block, whose shared
    part is autoregressive over the blocks."""
    shared = autoregressive(rng, phi, times, n)[:, :, None]
    return math.sqrt(within) * shared + math.sqrt(1 - within) * rng.standard_normal((times, n, CALLS))


def covered(draw: Callable[[np.random.Generator], Interval], truth: float, times: int) -> float:
    """The coverage of `times` intervals that are drawn one after another."""
    rng = np.random.default_rng(7)
    return coverage((draw(rng) for _ in range(times)), truth)


def coverage(found: Iterator[Interval], truth: float) -> float:
    """The share of intervals that hold the truth."""
    return float(np.mean([interval.low <= truth <= interval.high for interval in found]))


def normal_quantile(q: float) -> float:
    return NormalDist().inv_cdf(q)


def sequential(
    log_ratio: Floats, limit: float, aa: Floats | None = None, looks: tuple[int, ...] = ROUNDS
) -> tuple[str, int]:
    """The verdict on ratio <= limit and the look at which it fell: the first that is not inconclusive, else the last.

    log_ratio, aa: log ratios [rounds] of the two contestants and of two copies of the same artefact.
    """
    verdict = "inconclusive"
    for look, n in enumerate(looks, 1):
        found = _ratio(log_ratio[:n], look)
        if aa is not None:
            found = widen(found, _ratio(aa[:n], look))
        verdict = judge(found.low, found.high, limit, at_most=True)
        if verdict != "inconclusive":
            return verdict, look
    return verdict, len(looks)


def _ratio(log_ratio: Floats, look: int) -> Interval:
    return paired_ratio(rounds(log_ratio), {number: [1.0] for number in range(len(log_ratio))}, look_confidence(look))


def verdicts(log_ratios: Floats, limit: float, aa: Floats | None = None) -> dict[str, float]:
    """How often each verdict falls over many sessions: log_ratios, aa [sessions, rounds]."""
    copies = [None] * len(log_ratios) if aa is None else list(aa)
    fell = [sequential(series, limit, copy)[0] for series, copy in zip(log_ratios, copies, strict=True)]
    return {verdict: fell.count(verdict) / len(fell) for verdict in ("pass", "fail", "inconclusive")}


@dataclass(frozen=True)
class Students:
    """Students and their teacher on a test split with `sizes` samples a class: the chance that the teacher is right,
    that a student is where the teacher is (`keeps`), and where it is not (`gains`); for all classes, or by class."""

    sizes: Sequence[int]
    teacher: float | Sequence[float]
    keeps: float | Sequence[float]
    gains: float = 0.3

    def draw(self, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]]:
        """One student and teacher, right or wrong, bool [N]; labels [N]."""
        labels = np.repeat(np.arange(len(self.sizes)), self.sizes)
        knows, keeps = (self._by_class(part)[labels] for part in (self.teacher, self.keeps))
        teacher = rng.random(len(labels)) < knows
        return rng.random(len(labels)) < np.where(teacher, keeps, self.gains), teacher, labels

    @property
    def balanced_retention(self) -> float:
        teacher, keeps = self._by_class(self.teacher), self._by_class(self.keeps)
        return float((teacher * keeps + (1 - teacher) * self.gains).mean() / teacher.mean())

    def _by_class(self, values: float | Sequence[float]) -> Floats:
        return np.broadcast_to(np.asarray(values, np.float64), (len(self.sizes),))


def tally(students: Students, limit: float, times: int) -> dict[str, float]:
    """How often each verdict of the line on classes falls."""
    rng, fell = np.random.default_rng(11), []
    for _ in range(times):
        student, teacher, labels = students.draw(rng)
        fell.append(judge_classes(class_counts(student, labels, len(students.sizes), teacher), limit).verdict)
    return {verdict: fell.count(verdict) / len(fell) for verdict in ("pass", "fail", "inconclusive")}
