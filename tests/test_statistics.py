"""Against hand-computed values, scipy, scikit-learn, published examples, and by simulated coverage."""

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from compressor.statistics import (
    MIN_BLOCKS,
    Interval,
    accuracy_of,
    agreement,
    auc,
    balanced_accuracy,
    judge,
    order_interval,
    paired_ratio,
    per_class_recall,
    percentile,
    percentile_needs,
    retention,
    top1,
    wilson_interval,
)


def covered(draw: Callable[[np.random.Generator], Interval], truth: float, times: int) -> float:
    rng = np.random.default_rng(7)
    found = [draw(rng) for _ in range(times)]
    return float(np.mean([interval.low <= truth <= interval.high for interval in found]))


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


def pairs(both: int, student_only: int, teacher_only: int, neither: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    kinds = np.repeat(np.arange(4), [both, student_only, teacher_only, neither])
    return kinds <= 1, (kinds == 0) | (kinds == 2)


def test_retention_is_the_published_example() -> None:
    # Fagerland, Lydersen & Laake, Statistical Analysis of Contingency Tables, chapter 8 (data of Cavo et al. 2012).
    found = retention(*pairs(59, 6, 16, 80))
    assert found.value == pytest.approx(65 / 75)
    assert (found.low, found.high) == pytest.approx((0.7579, 0.9910), abs=5e-5)
    assert found.n == 161


def test_retention_of_few_samples_is_not_certain() -> None:
    found = retention(*pairs(20, 0, 0, 0))
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 0.9086, 1.1006), abs=1e-4)
    assert retention(*pairs(0, 0, 5, 5)).value == 0
    with pytest.raises(ValueError, match="right on no sample"):
        retention(*pairs(0, 3, 0, 5))


@pytest.mark.parametrize("chances", [(0.8, 0.05, 0.1), (0.9, 0.02, 0.05)])
def test_retention_covers(chances: tuple[float, float, float]) -> None:
    both, student_only, teacher_only = chances

    def draw(rng: np.random.Generator) -> Interval:
        both, student_only, teacher_only, neither = rng.multinomial(150, [*chances, 1 - sum(chances)])
        return retention(*pairs(both, student_only, teacher_only, neither))

    assert 0.93 <= covered(draw, (both + student_only) / (both + teacher_only), 1000) <= 0.985


def test_retention_is_quick() -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.random(10_000) < 0.9, rng.random(10_000) < 0.95
    started = time.perf_counter()
    retention(student, teacher)
    assert time.perf_counter() - started < 1


def test_agreement_counts_nothing_that_is_not_finite() -> None:
    found = agreement(np.array([0, 1, -1, 2]), np.array([0, 1, -1, 1]))
    assert (found.value, found.n) == (0.5, 4)


def test_accuracy_of() -> None:
    logits = np.array([[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [0.0, 1.0]], np.float32)
    found = accuracy_of(logits, np.array([0, 0, 1, 1]), "val")
    wilson = wilson_interval(3, 4)
    assert (found.split, found.n, found.correct, found.accuracy, found.balanced) == ("val", 4, 3, 0.75, 0.75)
    assert (found.low, found.high) == (wilson.low, wilson.high)


def test_percentile_needs_what_loadgen_asks() -> None:
    assert [percentile_needs(q) for q in (0.9, 0.95, 0.99)] == [64, 130, 662]
    assert percentile_needs(0.5) == 11


@pytest.mark.parametrize(("n", "q", "ranks"), [(6, 0.5, (1, 6)), (10, 0.5, (2, 9)), (100, 0.5, (40, 61))])
def test_order_interval_has_the_textbook_ranks(n: int, q: float, ranks: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    assert order_interval(rng.permutation(np.arange(1.0, n + 1)), q) == ranks


@pytest.mark.parametrize(("n", "q"), [(64, 0.9), (240, 0.9), (500, 0.99)])
def test_order_interval_is_the_narrowest_that_each_tail_permits(n: int, q: float) -> None:
    low, high = order_interval(np.arange(1.0, n + 1), q)
    assert stats.binom.cdf(low - 1, n, q) <= 0.025 < stats.binom.cdf(low, n, q)
    assert stats.binom.sf(high - 1, n, q) <= 0.025 < stats.binom.sf(high - 2, n, q)


def test_order_interval_refuses_too_few() -> None:
    with pytest.raises(ValueError, match="5 samples are too few"):
        order_interval(np.arange(5.0), 0.5)


def test_percentile_refuses_too_few() -> None:
    with pytest.raises(ValueError, match="p90 needs 64 samples, found 60"):
        percentile([[1.0] * 6] * 10, 0.9)
    with pytest.raises(ValueError, match=f"p50 needs {MIN_BLOCKS} blocks, found 2"):
        percentile([[1.0] * 30] * 2, 0.5)
    with pytest.raises(ValueError, match="p50 needs 11 samples, found 0"):
        percentile([], 0.5)


def test_percentile_is_numpys_and_repeats_itself() -> None:
    blocks = np.random.default_rng(0).gamma(2, size=(40, 6))
    found = percentile(blocks.tolist(), 0.9)
    assert found.value == np.percentile(blocks, 90)
    assert found.low < found.value < found.high
    assert found.n == 40
    assert found == percentile(blocks.tolist(), 0.9)
    ragged = [*blocks.tolist(), [5.0], []]
    assert percentile(ragged, 0.5).n == 41
    assert percentile([[2.0] * 8] * 12, 0.9) == Interval(2.0, 2.0, 2.0, 12)


def test_blocks_that_hang_together_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    loose = rng.standard_normal((40, 6))
    tight = np.repeat(rng.standard_normal((40, 1)), 6, axis=1) + 0.01 * loose
    narrow, wide = (percentile(blocks.tolist(), 0.5) for blocks in (loose, tight))
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


@pytest.mark.parametrize("q", [0.5, 0.9])
@pytest.mark.parametrize("within", [0.0, 0.5])
def test_percentile_covers_though_blocks_hang_together(q: float, within: float) -> None:
    def draw(rng: np.random.Generator) -> Interval:
        own, shared = rng.standard_normal((20, 6)), rng.standard_normal((20, 1))
        return percentile(np.exp(within**0.5 * shared + (1 - within) ** 0.5 * own).tolist(), q)

    assert covered(draw, math.exp(stats.norm.ppf(q)), 150) >= 0.91


def test_percentile_is_quick_and_bounded_in_memory() -> None:
    blocks = np.random.default_rng(0).random((1000, 10)).tolist()
    started = time.perf_counter()
    percentile(blocks, 0.9)
    assert time.perf_counter() - started < 3


def test_paired_ratio_cancels_what_both_had_in_a_round() -> None:
    noise = np.exp(np.random.default_rng(0).normal(0, 1, 20))
    slow = {index: [6.0 * factor] * 3 for index, factor in enumerate(noise)}
    quick = {index: [2.0 * factor, 1.0 * factor, 9.0 * factor] for index, factor in enumerate(noise)}
    found = paired_ratio(slow, quick)
    assert (found.value, found.low, found.high) == pytest.approx((3.0, 3.0, 3.0))
    assert found.n == 20
    assert paired_ratio(slow, {**quick, 99: [1.0], 0: []}).n == 19


def test_paired_ratio_by_hand_and_its_refusal() -> None:
    ones = {index: [1.0] for index in range(10)}
    found = paired_ratio({index: [float(index + 1)] for index in range(10)}, ones)
    assert found == Interval(5.5, 2.0, 9.0, 10)
    with pytest.raises(ValueError, match="needs 10 rounds, found 9"):
        paired_ratio(ones, {index: [1.0] for index in range(9)})


@pytest.mark.parametrize(
    ("low", "high", "at_most", "verdict"),
    [
        (1, 2, True, "pass"),
        (1, 1.9, True, "pass"),
        (2.1, 3, True, "fail"),
        (1.9, 2.1, True, "inconclusive"),
        (2, 2.1, True, "inconclusive"),
        (2, 2, True, "pass"),
        (2, 3, False, "pass"),
        (1, 1.9, False, "fail"),
        (1, 2, False, "inconclusive"),
        (1.9, 2.1, False, "inconclusive"),
    ],
)
def test_judge(low: float, high: float, at_most: bool, verdict: str) -> None:
    assert judge(low, high, 2, at_most=at_most) == verdict
