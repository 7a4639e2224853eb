"""Two versions of a model on the same samples: hand-computed values, and how often the intervals hold."""

import math

import numpy as np
import pytest

from compressor.stats import balanced_difference, changed_classes

YES, NO = True, False


def test_the_difference_of_mean_recalls_by_hand() -> None:
    """Class 0: 1 of 4 gained; class 1: 1 of 2 lost; class 2 has no sample."""
    labels = np.array([0, 0, 0, 0, 1, 1])
    now, before = np.array([YES, YES, NO, NO, NO, YES]), np.array([NO, YES, NO, NO, YES, YES])
    found = balanced_difference(now, before, labels, 3)
    assert found.value == pytest.approx((1 / 4 - 1 / 2) / 2)
    p, q = np.array([1.5 / 5, 0.5 / 3]), np.array([0.5 / 5, 1.5 / 3])
    reach = 1.959964 * math.sqrt(((p + q - (p - q) ** 2) / np.array([4.0, 2.0])).sum()) / 2
    centre = float((p - q).mean())
    assert [found.low, found.high] == pytest.approx([centre - reach, centre + reach], abs=1e-6)
    assert found.n == 6


def test_it_is_never_without_a_width_and_needs_samples() -> None:
    right = np.ones(50, bool)
    found = balanced_difference(right, right, np.arange(50) % 5, 5)
    assert found.low < 0 == found.value < found.high
    with pytest.raises(ValueError, match="no samples"):
        balanced_difference(right[:0], right[:0], np.arange(0), 5)


@pytest.mark.parametrize("sizes", [[200] * 5, [900, 50, 50], [30] * 20])
def test_its_interval_covers_the_truth(sizes: list[int]) -> None:
    """500 test sets: every class loses 3 % and gains 1 %, so 2 points are lost on the mean."""
    labels, random, held = np.repeat(np.arange(len(sizes)), sizes), np.random.default_rng(0), 0
    for _ in range(500):
        chance = random.random(len(labels))
        before, now = chance >= 0.01, (chance < 0.01) | (chance >= 0.04)
        found = balanced_difference(now, before, labels, len(sizes))
        held += found.low <= -0.02 <= found.high
    assert 460 <= held <= 500


def test_a_class_changed_only_where_chance_does_not_explain_it() -> None:
    """20 classes of 100. Class 3 loses 12 and gains 1, class 7 gains 10, class 8 loses 5: of twenty classes, one does
    that by chance."""
    labels = np.repeat(np.arange(20), 100)
    now, before = np.ones(2000, bool), np.ones(2000, bool)
    now[300:312], before[312] = False, False
    before[700:710] = False
    now[800:805] = False
    assert changed_classes(now, before, labels, 20) == ((3,), (7,))


def test_equal_models_change_no_class_more_often_than_one_time_in_twenty() -> None:
    random, labels, alarms = np.random.default_rng(1), np.repeat(np.arange(50), 100), 0
    for _ in range(200):
        now, before = random.random((2, 5000)) < 0.9
        worse, better = changed_classes(now, before, labels, 50)
        alarms += bool(worse or better)
    assert alarms <= 20
