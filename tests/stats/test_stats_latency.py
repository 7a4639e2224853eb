"""Percentiles and ratios of latency: against hand-computed values, and by simulated coverage."""

import math
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from compressor.stats import MIN_BLOCKS, Interval, paired_ratio, percentile, percentile_needs
from tests.stats.simulate import (
    CALLS,
    ROUNDS,
    Floats,
    autoregressive,
    correlated_blocks,
    coverage,
    long_memory,
    normal_quantile,
    rounds,
    spiky,
)

TIMES = 2000


def test_percentile_needs_what_loadgen_asks() -> None:
    assert [percentile_needs(q) for q in (0.9, 0.95, 0.99)] == [64, 130, 662]
    assert percentile_needs(0.5) == 11


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
    assert found.value == pytest.approx(np.percentile(blocks, 90), rel=1e-12)
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
    shuffled = {index: [value] for index, value in enumerate([6.0, 2.0, 9.0, 4.0, 5.0, 7.0, 1.0, 8.0, 10.0, 3.0])}
    found = paired_ratio(shuffled, ones)
    # Halves with the signs + - + - - + - + + -, times sqrt(2 / 10) cos(pi / 10 j (t + 1 / 2)), are 0.026722 for j = 1
    # and -0.262866 for j = 2: their mean square over 10 rounds is the error squared, 4.302653 is t of 2 degrees.
    reach = 4.302653 * math.sqrt((0.026722**2 + 0.262866**2) / 2 / 10)
    assert (found.value, found.n) == (5.5, 10)
    assert (found.low, found.high) == pytest.approx((5.5 - 10 * reach, 5.5 + 10 * reach), abs=1e-5)
    with pytest.raises(ValueError, match="needs 10 rounds, found 9"):
        paired_ratio(ones, {index: [1.0] for index in range(9)})


def test_an_interval_has_a_width_though_no_cosine_sees_one() -> None:
    """+ - - + + - - + + -: over ten rounds both cosines sum to nothing."""
    sides = [1, 0, 0, 1, 1, 0, 0, 1, 1, 0]
    rounds = {place: [(10.0 if side else 1.0) + 0.1 * place] for place, side in enumerate(sides)}
    found = paired_ratio(rounds, {place: [1.0] for place in rounds})
    # Below the median the highest of the five, above it the lowest.
    assert (found.low, found.value, found.high) == pytest.approx((1.9, 5.95, 10.0))


def test_paired_ratio_of_another_share_of_each_block() -> None:
    ours = dict.fromkeys(range(12), (8.0, 2.0, 1.0, 8.0, 8.0, 8.0))
    theirs = dict.fromkeys(range(12), (4.0, 4.0, 1.0, 1.0, 4.0, 4.0))
    assert paired_ratio(ours, theirs).value == 2
    assert paired_ratio(ours, theirs, share=0.2).value == 2  # the second fastest of six: 2 and 1
    assert paired_ratio(ours, theirs, share=0.0).value == 1


def test_a_ratio_that_drifts_is_drawn_on_beyond_its_rounds() -> None:
    ones = {index: [1.0] for index in range(10)}
    found = paired_ratio({index: [index + 1.0] for index in range(10)}, ones)
    # Five halves below the median, then five above: their products are 3.19623 / sqrt(5) and 0, which asks for 1.4 to
    # either side of the half. At 0.375, the farthest that is read off, the bounds are 1.75 and 9.25.
    farther = 4.302653 * math.sqrt((3.19623**2 / 5 / 2) / 10) / 0.375
    assert (found.low, found.high) == pytest.approx(
        (5.5 * (1.75 / 5.5) ** farther, 5.5 * (9.25 / 5.5) ** farther), rel=1e-4
    )


def test_what_alternates_is_told_more_closely_than_what_lingers() -> None:
    ones = rounds(np.zeros(60))
    log_ratios = np.linspace(-0.1, 0.1, 60).reshape(2, 30)
    alternating = paired_ratio(rounds(log_ratios.T.ravel()), ones)
    lingering = paired_ratio(rounds(log_ratios.ravel()), ones)
    assert alternating.value == lingering.value
    assert lingering.high / lingering.low > 1.2 > alternating.high / alternating.low > 1


def test_a_ratio_the_other_way_round_is_one_over_it() -> None:
    rng = np.random.default_rng(4)
    one, other = (rounds(0.01 * rng.standard_normal((31, CALLS))) for _ in range(2))
    there, back = paired_ratio(one, other, 0.995), paired_ratio(other, one, 0.995)
    assert (back.low, back.high) == pytest.approx((1 / there.high, 1 / there.low), rel=1e-4)


def test_rounds_count_by_their_number_not_by_their_place() -> None:
    blocks = rounds(0.1 * autoregressive(np.random.default_rng(1), 0.7, 1, 40)[0])
    ones = rounds(np.zeros(40))
    shuffled = {number: blocks[number] for number in sorted(blocks, key=lambda number: blocks[number][0])}
    assert list(shuffled) != list(blocks)
    assert paired_ratio(shuffled, ones) == paired_ratio(blocks, ones)


@pytest.mark.parametrize("n", [MIN_BLOCKS, 30, 240])
def test_the_bounds_of_any_confidence_are_numbers_and_nested(n: int) -> None:
    blocks = np.exp(2 * np.random.default_rng(2).standard_normal((n, 10))).tolist()
    ones = rounds(np.zeros(n))
    confidences = (0.9, 0.95, 0.995, 0.9999)
    for found in (
        [percentile(blocks, 0.9, confidence) for confidence in confidences],
        [paired_ratio(dict(enumerate(blocks)), ones, confidence) for confidence in confidences],
    ):
        assert found[-1].low > 0
        assert math.isfinite(found[-1].high)
        for narrow, wide in pairwise(found):
            assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_times_of_zero() -> None:
    zeros, ones = rounds(np.full(12, -np.inf)), rounds(np.zeros(12))
    assert paired_ratio(zeros, ones) == Interval(0, 0, 0, 12)
    with pytest.raises(ValueError, match="took some time in every round"):
        paired_ratio(ones, {**ones, 3: [0.0]})
    coarse = percentile([[0.0, 0.0, 15.6], [0.0, 15.6, 15.6]] * 12, 0.5, 0.9999)
    assert 0 <= coarse.low <= coarse.value <= coarse.high <= 15.6


Noise = Callable[[np.random.Generator, int, int], Floats]
RATIO_NOISE: dict[str, Noise] = {
    "independent": lambda rng, times, n: autoregressive(rng, 0, times, n),
    "phi 0.3": lambda rng, times, n: autoregressive(rng, 0.3, times, n),
    "phi 0.5": lambda rng, times, n: autoregressive(rng, 0.5, times, n),
    "phi 0.7": lambda rng, times, n: autoregressive(rng, 0.7, times, n),
    "spiky": spiky,
}


def ratio_coverage(log_ratios: Floats, confidence: float = 0.95) -> float:
    ones = rounds(np.zeros(log_ratios.shape[1]))
    return coverage((paired_ratio(rounds(series), ones, confidence) for series in log_ratios), 1)


@pytest.mark.slow
@pytest.mark.parametrize("n", ROUNDS)
@pytest.mark.parametrize("noise", RATIO_NOISE)
def test_paired_ratio_covers(noise: str, n: int) -> None:
    log_ratios = 0.05 * RATIO_NOISE[noise](np.random.default_rng(n), TIMES, n)
    assert 0.93 <= ratio_coverage(log_ratios) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("n", ROUNDS)
def test_paired_ratio_covers_though_both_share_most_noise(n: int) -> None:
    rng = np.random.default_rng(n)
    shared = 0.2 * autoregressive(rng, 0.7, TIMES, n)[:, :, None]
    one, other = (shared + 0.05 * correlated_blocks(rng, 0.5, 0.3, TIMES, n) for _ in range(2))
    found = (paired_ratio(rounds(a + math.log(1.3)), rounds(b)) for a, b in zip(one, other, strict=True))
    assert 0.93 <= coverage(found, 1.3) <= 0.97


@pytest.mark.parametrize("n", [30, 120])
def test_paired_ratio_covers_at_the_confidence_of_a_verdict(n: int) -> None:
    log_ratios = 0.05 * autoregressive(np.random.default_rng(n), 0.5, TIMES, n)
    assert 0.99 <= ratio_coverage(log_ratios, 0.995) <= 0.999


def test_a_long_memory_is_where_paired_ratio_covers_too_little() -> None:
    """The limit that the module states: what a few slow cosines cannot see."""
    assert 0.84 <= ratio_coverage(0.05 * long_memory(np.random.default_rng(0), TIMES, 30)) <= 0.89


@pytest.mark.slow
@pytest.mark.parametrize("n", ROUNDS)
@pytest.mark.parametrize(("phi", "within"), [(0, 0), (0, 0.5), (0.3, 0.5), (0.5, 0.5)])
@pytest.mark.parametrize("q", [0.5, 0.9])
def test_percentile_covers(q: float, phi: float, within: float, n: int) -> None:
    times = np.exp(0.1 * correlated_blocks(np.random.default_rng(n), phi, within, TIMES, n))
    found = (percentile(blocks.tolist(), q) for blocks in times)
    assert 0.93 <= coverage(found, math.exp(0.1 * normal_quantile(q))) <= 0.97


def test_figures_are_quick() -> None:
    blocks = np.exp(np.random.default_rng(0).standard_normal((240, CALLS))).tolist()
    by_round = dict(enumerate(blocks))
    started = time.perf_counter()
    percentile(blocks, 0.9, 0.9999)
    paired_ratio(by_round, by_round, 0.9999)
    assert time.perf_counter() - started < 0.3
