"""How often one model is right: accuracy, recall a class, balanced accuracy, the area under the ROC curve."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.schema.accuracy import Accuracy, LostClass
from compressor.stats.classes import NEAR_ZERO, class_counts, judge_classes
from compressor.stats.intervals import (
    CONFIDENCE,
    Bools,
    Floats,
    Interval,
    Ints,
    normal_quantile,
    wilson,
    wilson_interval,
)
from compressor.stats.paired import differing

__all__ = ["accuracy_of", "auc", "auc_difference", "balanced_accuracy", "per_class_recall", "scored", "top1"]

ROUNDING = 1e-18
"""A variance of areas below this is that of rounding."""


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
    return Interval(mean, *wilson(mean * effective, effective, normal_quantile(confidence)), len(labels))


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
    beaten, losing = _placements(scores, positive)
    m, n = len(beaten), len(losing)
    value = float((_midranks(scores)[positive].sum() - m * (m + 1) / 2) / (m * n))
    spread = _spread(beaten, losing)
    if spread == 0 or not 0 < value < 1:
        low, high = wilson(value * min(m, n), min(m, n), normal_quantile(confidence))
        return Interval(value, low, high, m + n)
    centre, step = (
        math.log(value / (1 - value)),
        normal_quantile(confidence) * math.sqrt(spread) / (value * (1 - value)),
    )
    return Interval(value, 1 / (1 + math.exp(step - centre)), 1 / (1 + math.exp(-step - centre)), m + n)


def auc_difference(first: Floats, second: Floats, positive: Bools, confidence: float = CONFIDENCE) -> Interval:
    """The area under the ROC curve of the scores `first` - that of `second`, of the same samples. All: [N].

    Interval: DeLong, DeLong & Clarke-Pearson (1988), from the paired placements of the samples. Where their variance is
    0 (both order all samples alike, or perfectly) it says nothing, and that of `differing` for m samples, none of which
    tells the two apart, stands in, m being the size of the smaller class. Raises ValueError as `auc` does.
    """
    pairs = zip(_placements(first, positive), _placements(second, positive), strict=True)
    beaten, losing = (now - before for now, before in pairs)
    value, fewest = float(beaten.mean()), min(len(beaten), len(losing))
    spread = _spread(beaten, losing)
    if spread < ROUNDING:
        alike = differing(0, 0, fewest, confidence)
        low, high = value + alike.low, value + alike.high
    else:
        reach = normal_quantile(confidence) * math.sqrt(spread)
        low, high = value - reach, value + reach
    return Interval(value, max(-1.0, low), min(1.0, high), len(positive))


def _placements(scores: Floats, positive: Bools) -> tuple[Floats, Floats]:
    """For every positive the share of negatives that it beats, and for every negative that of positives it loses to;
    equal ones count half. Raises ValueError where a class is missing or a score is NaN."""
    m, n = int(positive.sum()), int((~positive).sum())
    if not m or not n or np.isnan(scores).any():
        raise ValueError(f"needs samples of both classes and scores that are numbers, found {m} and {n} samples")
    ranks = _midranks(scores)
    beaten: Floats = (ranks[positive] - _midranks(scores[positive])) / n
    losing: Floats = 1 - (ranks[~positive] - _midranks(scores[~positive])) / m
    return beaten, losing


def _spread(*placements: Floats) -> float:
    """The variance of an area, or of the difference of two."""
    return sum(float(part.var(ddof=1)) / len(part) for part in placements if len(part) > 1)


def accuracy_of(logits: NDArray[Any], labels: Ints, split: str) -> Accuracy:
    """Top-1 of logits [N, classes] against labels [N], as student.json keeps it. Raises ValueError where N is 0."""
    predictions = top1(logits)
    right = predictions == labels
    top = wilson_interval(int(right.sum()), len(labels))
    counts = class_counts(right, labels, logits.shape[1])
    judgement = judge_classes(counts, NEAR_ZERO)
    balanced, area = balanced_accuracy(predictions, labels, logits.shape[1]), _area(logits, predictions, labels)
    return Accuracy(
        split=split,
        n=top.n,
        correct=int(right.sum()),
        accuracy=top.value,
        low=top.low,
        high=top.high,
        balanced=balanced.value,
        balanced_low=balanced.low,
        balanced_high=balanced.high,
        auc=area.value if area else None,
        auc_low=area.low if area else None,
        auc_high=area.high if area else None,
        lost=tuple(
            LostClass(number=number, right=int(counts.right[number]), n=int(counts.n[number]))
            for number in (*judgement.lost, *judgement.doubtful)
        ),
    )


def _area(logits: NDArray[Any], predictions: Ints, labels: Ints) -> Interval | None:
    """`auc` of the second class's probability, for two classes; None where it is not defined. Ranked by the difference
    of the logits, which orders samples as the probability does and does not round to 1 far out."""
    if logits.shape[1] != 2 or (predictions < 0).any() or len(np.unique(labels)) < 2:
        return None
    return auc(logits[:, 1].astype(np.float64) - logits[:, 0], labels == 1)


def scored(score: Accuracy) -> str:
    """`97.24% [94.10%–98.73%], balanced 97.30% [93.81%–98.85%]`, and for two classes the AUC; whoever shows it adds
    n."""
    parts = [f"{score.accuracy:.2%} [{score.low:.2%}–{score.high:.2%}]", f"balanced {score.balanced:.2%}"]
    if score.balanced_low is not None and score.balanced_high is not None:
        parts[-1] += f" [{score.balanced_low:.2%}–{score.balanced_high:.2%}]"
    if score.auc is not None and score.auc_low is not None and score.auc_high is not None:
        parts.append(f"AUC {score.auc:.4f} [{score.auc_low:.4f}–{score.auc_high:.4f}]")
    return ", ".join(parts)
