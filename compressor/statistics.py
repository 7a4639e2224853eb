"""Figures with their uncertainty: accuracy and its kin, latency percentiles, ratios, and verdicts against a limit.

numpy only. Every interval is two-sided, 95 % unless told otherwise, and deterministic: closed forms wherever there is
one that stays honest for few samples (a bootstrap of perfect predictions has no width), fixed seeds elsewhere.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compressor.spec.student import Accuracy

__all__ = [
    "MIN_BLOCKS",
    "Interval",
    "accuracy_of",
    "agreement",
    "auc",
    "balanced_accuracy",
    "judge",
    "order_interval",
    "paired_ratio",
    "per_class_recall",
    "percentile",
    "percentile_needs",
    "retention",
    "top1",
    "wilson_interval",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CONFIDENCE = 0.95
RESAMPLES = 2000
# With fewer blocks, an interval made from them is too narrow to stand behind a verdict.
MIN_BLOCKS = 10


@dataclass(frozen=True)
class Interval:
    """An estimate, its confidence interval, and the number of samples behind it (`percentile`: of blocks;
    `paired_ratio`: of rounds)."""

    value: float
    low: float
    high: float
    n: int


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _wilson(correct: float, n: float, z: float) -> tuple[float, float]:
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
    return Interval(correct / n, *_wilson(correct, n, _z(confidence)), n)


def top1(logits: NDArray[Any]) -> Ints:
    """The predicted class of every sample: logits [N, classes] -> int64 [N]; -1, which is never right, where a logit
    is not finite. The first of equal logits wins."""
    finite = np.isfinite(logits).all(axis=1)
    return np.where(finite, np.argmax(np.where(finite[:, None], logits, 0), axis=1), -1).astype(np.int64)


def per_class_recall(predictions: Ints, labels: Ints, classes: int) -> tuple[Floats, Ints]:
    """Recall a class [classes], NaN for a class without samples, and the number of samples of each [classes].

    predictions, labels: int [N]; labels in 0..classes-1, predictions anything.
    """
    counts = np.bincount(labels, minlength=classes).astype(np.int64)
    right = np.bincount(labels[predictions == labels], minlength=classes)
    recalls = np.full(classes, np.nan)
    np.divide(right, counts, out=recalls, where=counts > 0)
    return recalls, counts


def balanced_accuracy(predictions: Ints, labels: Ints, classes: int, confidence: float = CONFIDENCE) -> Interval:
    """The mean recall over the K classes that have samples.

    Interval: Wilson's for a weighted sum of independent proportions (after Yan & Su 2010), at the sample size whose
    binomial variance is that of the mean: K^2 / sum(1 / n_k) for equal recalls, less where the recalls tell of more
    variance. Unlike the normal approximation it has a width when all recalls are 1. Raises ValueError without samples.
    """
    recalls, counts = per_class_recall(predictions, labels, classes)
    recalls, counts = recalls[counts > 0], counts[counts > 0]
    if not len(counts):
        raise ValueError("no samples")
    mean = float(recalls.mean())
    effective = float(len(counts) ** 2 / (1 / counts).sum())
    variance = float((recalls * (1 - recalls) / counts).sum()) / len(counts) ** 2
    if variance > 0:
        effective = min(effective, mean * (1 - mean) / variance)
    return Interval(mean, *_wilson(mean * effective, effective, _z(confidence)), len(labels))


def _midranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def auc(scores: Floats, positive: Bools, confidence: float = CONFIDENCE) -> Interval:
    """The area under the ROC curve: P(score of a positive > of a negative) + P(equal) / 2. scores, positive: [N].

    Interval: DeLong, DeLong & Clarke-Pearson (1988) by midranks (Sun & Xu 2014), on the logit scale so that it stays
    within 0..1. Where its variance is 0 (perfect separation) it says nothing, and the Wilson interval of m right out
    of m stands in, m being the size of the smaller class: wider than need be. Raises ValueError where a class is
    missing or a score is NaN.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    if not m or not n or np.isnan(scores).any():
        raise ValueError(f"needs samples of both classes and scores that are numbers, found {m} and {n} samples")
    ranks = _midranks(scores)
    value = float((ranks[positive].sum() - m * (m + 1) / 2) / (m * n))
    beaten = (ranks[positive] - _midranks(scores[positive])) / n
    losing = 1 - (ranks[~positive] - _midranks(scores[~positive])) / m
    spread = sum(float(part.var(ddof=1)) / len(part) for part in (beaten, losing) if len(part) > 1)
    if spread == 0 or not 0 < value < 1:
        low, high = _wilson(value * min(m, n), min(m, n), _z(confidence))
        return Interval(value, low, high, m + n)
    centre, step = math.log(value / (1 - value)), _z(confidence) * math.sqrt(spread) / (value * (1 - value))
    return Interval(value, 1 / (1 + math.exp(step - centre)), 1 / (1 + math.exp(-step - centre)), m + n)


def retention(student: Bools, teacher: Bools, confidence: float = CONFIDENCE) -> Interval:
    """The student's accuracy / the teacher's, from the same samples. student, teacher: right or wrong, bool [N].

    Interval: the hybrid Wilson interval for a ratio of paired proportions of Bonett & Price (2006), which Fagerland,
    Lydersen & Laake (2014) recommend. The bootstrap gives [1, 1] for two models that are right on the same 20
    samples; this gives [0.91, 1.10]. Raises ValueError where the teacher is never right.
    """
    x, y, either = int(student.sum()), int(teacher.sum()), int((student | teacher).sum())
    if y == 0:
        raise ValueError("the teacher is right on no sample, so there is nothing to retain")
    discordant = int((student ^ teacher).sum())
    joint = math.sqrt((discordant + 2) / ((x + 1) * (y + 1)))
    alone = sum(math.sqrt((1 - (k + 1) / (either + 2)) / (k + 1)) for k in (x, y))
    z = _z(confidence) * joint / alone
    (low_x, high_x), (low_y, high_y) = _wilson(x, either, z), _wilson(y, either, z)
    return Interval(x / y, low_x / high_y, high_x / low_y, len(student))


def agreement(one: Ints, other: Ints) -> Interval:
    """The share of samples with the same top-1, with its Wilson interval. Predictions [N]; -1 agrees with nothing."""
    return wilson_interval(int(((one == other) & (one >= 0)).sum()), len(one))


def accuracy_of(logits: NDArray[Any], labels: Ints, split: str) -> Accuracy:
    """Top-1 of logits [N, classes] against labels [N], as student.json keeps it. Raises ValueError where N is 0."""
    predictions = top1(logits)
    top = wilson_interval(int((predictions == labels).sum()), len(labels))
    return Accuracy(
        split=split,
        n=top.n,
        correct=int((predictions == labels).sum()),
        accuracy=top.value,
        low=top.low,
        high=top.high,
        balanced=balanced_accuracy(predictions, labels, logits.shape[1]).value,
    )


def percentile_needs(q: float) -> int:
    """The fewest samples from which a q-percentile may be told: 64 for 0.9, 130 for 0.95, 662 for 0.99.

    The smallest n with P(at most one of n samples lies above the percentile) <= 1 %, the rule behind the minimum query
    counts of MLPerf LoadGen's early stopping.
    """
    n = 2
    while q**n + n * (1 - q) * q ** (n - 1) > 0.01:
        n += 1
    return n


def _order_ranks(n: int, q: float, confidence: float) -> tuple[int, int]:
    """The ranks of the two order statistics of n samples that bracket the q-quantile; 0 and n + 1 where none does."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(n + 1)
    choose = log_factorial[n] - log_factorial - log_factorial[::-1]
    at_most = np.cumsum(np.exp(choose + k * math.log(q) + (n - k) * math.log1p(-q)))
    tail = (1 - confidence) / 2
    lower = int(np.searchsorted(at_most, tail, side="right"))
    return lower, int(np.searchsorted(at_most, 1 - tail, side="left")) + 1


def order_interval(samples: Floats, q: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The distribution-free interval for the q-quantile of independent samples [N]: two order statistics, whose ranks
    come from Binomial(N, q) (David & Nagaraja 2003, section 7.1).

    Raises ValueError where N is too small for one to exist (N < 6 for the median at 95 %).
    """
    lower, upper = _order_ranks(len(samples), q, confidence)
    if lower < 1 or upper > len(samples):
        raise ValueError(f"{len(samples)} samples are too few for an interval around the {q:g} quantile")
    ordered = np.sort(samples)
    return float(ordered[lower - 1]), float(ordered[upper - 1])


def percentile(blocks: Sequence[Sequence[float]], q: float, confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    """The q-percentile of all samples, e.g. q = 0.9, with an interval for samples that come in blocks.

    Interval: the wider, on either side, of two, since samples of one block depend on each other and blocks are few:
    the bootstrap over whole blocks, and the order-statistic interval at the effective sample size (N over the design
    effect of Kish 1965 for the share below the percentile). n: blocks. Raises ValueError for fewer samples than
    `percentile_needs(q)`, or fewer than MIN_BLOCKS blocks.
    """
    filled = [np.asarray(block, dtype=np.float64) for block in blocks if len(block)]
    samples = np.sort(np.concatenate([np.empty(0), *filled]))
    if len(samples) < percentile_needs(q):
        raise ValueError(f"p{100 * q:g} needs {percentile_needs(q)} samples, found {len(samples)}")
    if len(filled) < MIN_BLOCKS:
        raise ValueError(f"p{100 * q:g} needs {MIN_BLOCKS} blocks, found {len(filled)}")
    value = float(np.quantile(samples, q))
    tail = (1 - confidence) / 2
    low, high = np.quantile(_block_bootstrap(filled, q, np.random.default_rng(seed)), [tail, 1 - tail])

    shares = np.array([float((block <= value).mean()) for block in filled])
    design_effect = max(1.0, float(shares.var(ddof=1)) * len(samples) / len(filled) / (q * (1 - q)))
    effective = max(1, int(len(samples) / design_effect))
    ranks = np.clip(_order_ranks(effective, q, confidence), 1, effective) / effective
    lowest, highest = samples[np.ceil(ranks * len(samples)).astype(int) - 1]
    return Interval(value, min(value, float(low), float(lowest)), max(value, float(high), float(highest)), len(filled))


def _block_bootstrap(blocks: list[Floats], q: float, rng: np.random.Generator) -> Floats:
    """The q-quantile (nearest rank) of RESAMPLES draws of whole blocks: each sample, once sorted, weighs as often as
    its block was drawn."""
    samples = np.concatenate(blocks)
    order = np.argsort(samples, kind="stable")
    block_of = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])[order]
    found = []
    at_once = max(1, 2_000_000 // len(samples))
    for start in range(0, RESAMPLES, at_once):
        drawn = rng.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), min(at_once, RESAMPLES - start))
        below = np.cumsum(drawn[:, block_of], axis=1)
        found.append(np.argmax(below >= np.ceil(q * below[:, -1:]), axis=1))
    drawn_quantiles: Floats = samples[order][np.concatenate(found)]
    return drawn_quantiles


def paired_ratio(numerator: Mapping[int, Sequence[float]], denominator: Mapping[int, Sequence[float]]) -> Interval:
    """How many times longer the numerator takes: the median over rounds of the ratio of the two blocks' medians, so
    that noise which both had in a round cancels. Both: round -> the samples of its block; only common rounds count.

    Interval: of order statistics, exact for independent rounds and without a seed. Raises ValueError for fewer than
    MIN_BLOCKS common rounds.
    """
    rounds = [key for key in numerator if len(numerator[key]) and len(denominator.get(key, ()))]
    if len(rounds) < MIN_BLOCKS:
        raise ValueError(f"a paired ratio needs {MIN_BLOCKS} rounds, found {len(rounds)}")
    ratios = np.array([float(np.median(numerator[key]) / np.median(denominator[key])) for key in rounds])
    return Interval(float(np.median(ratios)), *order_interval(ratios, 0.5), len(rounds))


def judge(low: float, high: float, limit: float, *, at_most: bool) -> Literal["pass", "fail", "inconclusive"]:
    """Whether the whole interval low..high keeps to the limit ("pass"), breaks it ("fail"), or straddles it."""
    if not at_most:
        low, high, limit = -high, -low, -limit
    if high <= limit:
        return "pass"
    return "fail" if low > limit else "inconclusive"
