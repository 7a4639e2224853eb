"""The areas under the ROC curve of two models, from the same samples: by hand, and how often the interval holds."""

import math

import numpy as np
import pytest
from scipy import stats

from compressor.stats import Interval, auc, auc_difference
from tests.stats.simulate import covered


def test_the_difference_by_hand() -> None:
    """Of the first three of four pairs are in order, of the second two."""
    positive = np.array([True, True, False, False])
    first, second = np.array([3.0, 1.0, 2.0, 0.0]), np.array([4.0, 0.5, 3.0, 1.0])
    found = auc_difference(first, second, positive)
    # The positives of the first beat 2 and 1 of 2 negatives, those of the second 2 and 0.
    assert found.value == pytest.approx(3 / 4 - 1 / 2) == auc(first, positive).value - auc(second, positive).value
    # Differences: positives 0 and 1/2; negatives 0 (1/2 - 1/2) and 1/2 (1 - 1/2). Variances 1/8 each, over 2 samples.
    reach = 1.959964 * math.sqrt(1 / 8 / 2 + 1 / 8 / 2)
    assert (found.low, found.high, found.n) == pytest.approx((0.25 - reach, 0.25 + reach, 4), abs=1e-6)
    turned = auc_difference(second, first, positive)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_it_is_never_without_a_width() -> None:
    positive = np.arange(60) < 20
    scores = np.where(positive, 2.0, 1.0) + np.arange(60) / 1000
    for other in (scores, 3 * scores + 1):
        found = auc_difference(scores, other, positive)
        assert found.value == 0
        assert -0.2 < found.low < -0.05
        assert found.high == -found.low
    with pytest.raises(ValueError, match="needs samples of both classes"):
        auc_difference(scores, scores, np.ones(60, bool))
    with pytest.raises(ValueError, match="scores that are numbers"):
        auc_difference(scores, np.full(60, np.nan), positive)


@pytest.mark.parametrize("sizes", [(60, 60), (20, 200), (300, 300)])
def test_its_interval_covers_the_truth(sizes: tuple[int, int]) -> None:
    """Two models that see the same thing, each with noise of its own: binormal, areas 0.90 and 0.86."""
    positive = np.repeat([True, False], sizes)
    truth = stats.norm.cdf(1.8 / math.sqrt(2)) - stats.norm.cdf(1.5 / math.sqrt(2))

    def draw(rng: np.random.Generator) -> Interval:
        seen, noise = rng.standard_normal(len(positive)), rng.standard_normal((2, len(positive)))
        first, second = (math.sqrt(0.7) * seen + math.sqrt(0.3) * alone for alone in noise)
        return auc_difference(first + 1.8 * positive, second + 1.5 * positive, positive)

    assert 0.92 <= covered(draw, truth, 500) <= 0.98
