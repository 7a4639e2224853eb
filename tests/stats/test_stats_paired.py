"""Two models on the same samples: against published examples, scipy, a bootstrap, and by simulated coverage."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from compressor.stats import (
    Interval,
    McNemar,
    agreement,
    difference,
    mcnemar,
    retention,
    retention_per_class,
)
from tests.stats.simulate import covered


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


def test_retention_agrees_with_a_paired_bootstrap() -> None:
    student, teacher = pairs(820, 30, 80, 70)
    rng = np.random.default_rng(11)
    drawn = rng.multinomial(1000, [0.82, 0.03, 0.08, 0.07], 20_000)
    low, high = np.quantile((drawn[:, 0] + drawn[:, 1]) / (drawn[:, 0] + drawn[:, 2]), [0.025, 0.975])
    found = retention(student, teacher)
    # Within 4 % of the interval's own width (0.044).
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.0018)


def test_retention_per_class() -> None:
    labels = np.repeat([0, 1, 3], [100, 4, 50])
    rng = np.random.default_rng(0)
    student, teacher = rng.random(154) < 0.8, rng.random(154) < 0.9
    teacher[labels == 1] = False
    first, none_right, absent, last = retention_per_class(student, teacher, labels, 4)
    assert (none_right, absent) == (None, None)
    assert first == retention(student[:100], teacher[:100])
    assert last == retention(student[104:], teacher[104:])
    assert first is not None
    assert last is not None
    assert (first.n, last.n) == (100, 50)


def test_difference_by_hand() -> None:
    found = difference(*pairs(1, 1, 7, 12))
    # (1 + 1) / 23 - (7 + 1) / 23 -+ 1.959964 sqrt((10 / 23 - (6 / 23)^2) / 23)
    assert (found.value, found.low, found.high) == pytest.approx((-6 / 21, -0.50837, -0.01337), abs=2e-5)
    assert found.n == 21
    swapped = difference(*pairs(1, 7, 1, 12))
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))


def test_difference_of_few_samples_is_not_certain() -> None:
    perfect = difference(*pairs(20, 0, 0, 0))
    assert (perfect.value, perfect.low, perfect.high) == pytest.approx((0, -0.125991, 0.125991), abs=1e-6)
    assert difference(*pairs(0, 2, 0, 0)).high == 1
    with pytest.raises(ValueError, match="no samples"):
        difference(*pairs(0, 0, 0, 0))


@pytest.mark.parametrize("n", [20, 50, 200, 1000])
@pytest.mark.parametrize("chances", [(0.8, 0.05, 0.1), (0.5, 0.1, 0.2), (0.7, 0.15, 0.15), (0.9, 0.0, 0.1)])
def test_difference_covers(n: int, chances: tuple[float, float, float]) -> None:
    _, gained, lost = chances

    def draw(rng: np.random.Generator) -> Interval:
        return difference(*pairs(*rng.multinomial(n, [*chances, 1 - sum(chances)]).tolist()))

    # Few disagreements come in few numbers: 99.9 % at 20 samples, and below 97 % only from 200 on.
    assert 0.935 <= covered(draw, gained - lost, 2000) <= (0.97 if n >= 200 else 1)


@pytest.mark.parametrize(
    ("gained", "lost"), [(0, 0), (1, 0), (1, 7), (7, 1), (5, 5), (40, 60), (600, 500), (50_300, 49_700), (0, 3000)]
)
def test_mcnemar_is_the_mid_p_of_the_binomial_test(gained: int, lost: int) -> None:
    found = mcnemar(*pairs(3, gained, lost, 2))
    n = gained + lost
    exact = stats.binomtest(gained, n).pvalue if n else 1.0
    half = 0.0 if gained == lost else float(stats.binom.pmf(gained, n, 0.5))
    assert (found.only_student, found.only_teacher) == (gained, lost)
    assert found.p_value == pytest.approx(exact - half, rel=1e-6)


def test_mcnemar_is_the_published_example() -> None:
    # Airway hyper-responsiveness, Bentur et al. 2009, as in Fagerland, Lydersen & Laake (2013): mid-p 0.039.
    assert mcnemar(*pairs(1, 1, 7, 12)) == McNemar(1, 7, 0.0390625)


def test_mcnemar_seldom_cries_wolf() -> None:
    rng = np.random.default_rng(5)
    draws = rng.multinomial(200, [0.8, 0.05, 0.05, 0.1], 2000)
    false = np.mean([mcnemar(*pairs(*draw.tolist())).p_value <= 0.05 for draw in draws])
    assert 0.03 <= false <= 0.06
