"""One model's accuracy: against hand-computed values, scipy, scikit-learn, and by simulated coverage."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from compressor.stats import (
    Interval,
    accuracy_of,
    auc,
    balanced_accuracy,
    per_class_recall,
    scored,
    top1,
    wilson_interval,
)
from compressor.stats.intervals import normal_quantile, t_quantile
from tests.stats.simulate import covered


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.995, 0.9999])
def test_quantiles_are_scipys(confidence: float) -> None:
    assert normal_quantile(confidence) == pytest.approx(stats.norm.ppf(0.5 + confidence / 2), rel=1e-9)
    for degrees in (1, 2, 3, 4, 15, 40, 187):  # not ppf, of which scipy 1.11 gives eight digits
        outside = 2 * stats.t.sf(t_quantile(confidence, degrees), degrees)
        assert outside == pytest.approx(1 - confidence, rel=1e-9)


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (1, 1), (3, 10), (10, 10), (977, 1000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_is_scipys(correct: int, n: int, confidence: float) -> None:
    found = wilson_interval(correct, n, confidence)
    expected = stats.binomtest(correct, n).proportion_ci(confidence, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert (found.value, found.n) == (correct / n, n)


@pytest.mark.parametrize(("correct", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_share(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="is no share"):
        wilson_interval(correct, n)


def test_top1_takes_the_first_of_equals_and_nothing_from_what_is_not_finite() -> None:
    logits = np.array([[1.0, 1.0], [0.0, 2.0], [np.nan, 1.0], [np.inf, 1.0], [1.0, -np.inf]])
    assert top1(logits).tolist() == [0, 1, -1, -1, -1]


def test_recall_by_hand() -> None:
    predictions, labels = np.array([0, 1, -1, 1, 1]), np.array([0, 0, 0, 1, 1])
    recalls, counts = per_class_recall(predictions, labels, 3)
    assert counts.tolist() == [3, 2, 0]
    assert recalls[:2].tolist() == [1 / 3, 1.0]
    assert math.isnan(recalls[2])
    assert balanced_accuracy(predictions, labels, 3).value == pytest.approx(2 / 3)


def test_balanced_accuracy_is_sklearns() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(5, 300, p=[0.5, 0.2, 0.15, 0.1, 0.05])
    predictions = np.where(rng.random(300) < 0.8, labels, rng.integers(0, 5, 300))
    found = balanced_accuracy(predictions, labels, 5)
    assert found.value == pytest.approx(balanced_accuracy_score(labels, predictions))
    assert 0 < found.low < found.value < found.high < 1


def test_balanced_accuracy_of_one_class_is_wilson() -> None:
    found = balanced_accuracy(np.array([0, 0, 0, -1]), np.zeros(4, np.int64), 1)
    wilson = wilson_interval(3, 4)
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high))
    with pytest.raises(ValueError, match="no samples"):
        balanced_accuracy(np.empty(0, np.int64), np.empty(0, np.int64), 3)


def test_balanced_accuracy_of_perfect_recalls_still_has_a_width() -> None:
    found = balanced_accuracy(np.arange(10) % 2, np.arange(10) % 2, 2)
    assert (found.value, found.low, found.high) == pytest.approx((1, wilson_interval(10, 10).low, 1))


@pytest.mark.parametrize(
    ("sizes", "recalls"), [([20, 30], [0.9, 0.8]), ([36] * 10, [0.97] * 10), ([3] * 50, [0.9] * 50)]
)
def test_balanced_accuracy_covers(sizes: list[int], recalls: list[float]) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)

    def draw(rng: np.random.Generator) -> Interval:
        right = rng.random(len(labels)) < np.repeat(recalls, sizes)
        return balanced_accuracy(np.where(right, labels, -1), labels, len(sizes))

    assert 0.935 <= covered(draw, float(np.mean(recalls)), 800) <= 0.99


@pytest.mark.parametrize("ties", [False, True])
def test_auc_is_sklearns_and_its_interval_delongs(ties: bool) -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(80) < 0.3
    scores = rng.normal(0, 1, 80) + positive
    scores = np.round(scores, 0) if ties else scores
    found = auc(scores, positive)
    assert found.value == pytest.approx(roc_auc_score(positive, scores))
    # DeLong's variance from its definition: the spread of every sample's share of pairs won.
    won = (scores[positive][:, None] > scores[~positive]) + 0.5 * (scores[positive][:, None] == scores[~positive])
    variance = won.mean(1).var(ddof=1) / positive.sum() + won.mean(0).var(ddof=1) / (~positive).sum()
    logit, step = stats.logistic.ppf(found.value), 1.959964 * np.sqrt(variance) / found.value / (1 - found.value)
    assert (found.low, found.high) == pytest.approx(tuple(stats.logistic.cdf([logit - step, logit + step])), abs=1e-7)


def test_auc_at_its_edges() -> None:
    perfect = auc(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([False, False, False, True, True]))
    assert (perfect.value, perfect.low, perfect.high) == pytest.approx((1, wilson_interval(2, 2).low, 1))
    assert auc(np.array([2.0, 1.0]), np.array([False, True])).value == 0
    even = auc(np.ones(6), np.arange(6) < 3)
    assert even.value == 0.5
    assert even.low < 0.5 < even.high
    with pytest.raises(ValueError, match="samples of both classes"):
        auc(np.ones(3), np.ones(3, bool))
    with pytest.raises(ValueError, match="scores that are numbers"):
        auc(np.array([1.0, np.nan]), np.array([True, False]))


def test_auc_covers() -> None:
    positive = np.arange(60) < 30
    covers = covered(
        lambda rng: auc(rng.standard_normal(60) + 1.5 * positive, positive), stats.norm.cdf(1.5 / 2**0.5), 500
    )
    assert covers >= 0.92


def test_accuracy_of() -> None:
    logits = np.array([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [0.0, 1.0]], np.float32)
    found = accuracy_of(logits, np.array([0, 0, 1, 1]), "val")
    wilson = wilson_interval(3, 4)
    assert (found.split, found.n, found.correct, found.accuracy, found.balanced) == ("val", 4, 3, 0.75, 0.75)
    assert (found.low, found.high) == (wilson.low, wilson.high)


def test_the_auc_beside_accuracy_by_hand() -> None:
    """Second logit less first, of the second class 2, 1, 0, of the first 1, 0, -1. Of the nine pairs the second class
    wins 3 + 2 + 1, and two are ties: 7 / 9. The shares of won pairs are 1, 5/6, 1/2 a sample of either class, each of
    variance 0.064815 * 2; so 0.0432099 in all, 2.357194 on the logit scale."""
    margins = np.array([2.0, 1.0, 0.0, 1.0, 0.0, -1.0])
    labels = np.array([1, 1, 1, 0, 0, 0])
    found = accuracy_of(np.stack([-margins / 2, margins / 2], axis=1), labels, "val")
    assert found.auc == pytest.approx(7 / 9)
    assert (found.auc_low, found.auc_high) == pytest.approx((0.248910, 0.973660), abs=2e-6)
    turned = accuracy_of(np.stack([margins / 2, -margins / 2], axis=1), 1 - labels, "val")
    assert (turned.auc, turned.auc_low) == pytest.approx((found.auc, found.auc_low)), "whichever class is asked for"
    shifted = accuracy_of(np.stack([1000 - margins, 1000 + margins], axis=1), labels, "val")
    assert shifted.auc == found.auc, "of logits whose probabilities round to 1"


def test_where_there_is_no_auc() -> None:
    logits = np.array([[0.0, 1.0], [1.0, 0.0], [np.nan, 0.0]])
    assert accuracy_of(logits, np.array([1, 0, 1]), "val").auc is None
    one_class = accuracy_of(logits[:2], np.array([1, 1]), "val")
    assert (one_class.auc, one_class.auc_low, one_class.auc_high) == (None, None, None)
    assert accuracy_of(np.eye(3), np.arange(3), "val").auc is None


def test_the_figures_of_a_model_in_one_text() -> None:
    logits = np.array([[-1.0, 1.0], [1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    found = accuracy_of(logits, np.array([1, 0, 0, 0]), "val")
    recalls = balanced_accuracy(top1(logits), np.array([1, 0, 0, 0]), 2)
    assert (found.balanced, found.balanced_low, found.balanced_high) == (recalls.value, recalls.low, recalls.high)
    balanced = f"balanced {recalls.value:.2%} [{recalls.low:.2%}–{recalls.high:.2%}]"
    area = f"AUC {found.auc:.4f} [{found.auc_low:.4f}–{found.auc_high:.4f}]"
    assert scored(found) == f"75.00% [{found.low:.2%}–{found.high:.2%}], {balanced}, {area}"
    earlier = found.model_copy(update=dict.fromkeys(("balanced_low", "balanced_high", "auc", "auc_low", "auc_high")))
    assert scored(earlier) == f"75.00% [{found.low:.2%}–{found.high:.2%}], balanced {recalls.value:.2%}"
