"""Bits a byte and perplexity, against sums by hand; intervals by document."""

import math

import numpy as np
import pytest

from compressor.stats.language import Costs, bits_difference, bits_per_byte, scored_bits
from compressor.stats.scores import figures, goodness, in_short, scored_any


def costs(nats: list[float], tokens: list[int], sizes: list[int]) -> Costs:
    return Costs(np.array(nats), np.array(tokens, np.int64), np.array(sizes, np.int64))


def test_sums_are_divided_and_no_mean_of_documents_is_taken() -> None:
    score = bits_per_byte(costs([3 * math.log(2), 5 * math.log(2)], [2, 6], [4, 12]), "validation")
    assert score.bits_per_byte == pytest.approx(8 / 16)
    assert score.perplexity == pytest.approx(2 ** (8 / 8))
    assert (score.n, score.tokens, score.bytes, score.split) == (2, 8, 16, "validation")
    # Drawn with replacement: both of the first, both of the second, or one of each.
    assert score.low == pytest.approx(5 / 12)
    assert score.high == pytest.approx(3 / 4)


def test_intervals_are_those_of_a_ratio_of_sums() -> None:
    """Against the linearised variance of a ratio (Cochran 1977, sec. 6.3), which many documents bring near."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(50, 500, 2000)
    nats = sizes * rng.normal(1.2, 0.3, 2000)
    score = bits_per_byte(Costs(nats, sizes // 4, sizes), "test")
    ratio = nats.sum() / sizes.sum() / math.log(2)
    spread = np.std(nats / math.log(2) - ratio * sizes, ddof=1) / sizes.mean() / math.sqrt(len(sizes))
    assert score.bits_per_byte == pytest.approx(ratio)
    assert score.low == pytest.approx(ratio - 1.96 * spread, abs=0.2 * spread)
    assert score.high == pytest.approx(ratio + 1.96 * spread, abs=0.2 * spread)
    assert score == bits_per_byte(Costs(nats, sizes // 4, sizes), "test")  # seeded


def test_a_single_document_has_no_interval() -> None:
    score = bits_per_byte(costs([1.0], [1], [2]), "test")
    assert (score.low, score.high, score.perplexity_low) == (None, None, None)
    assert scored_bits(score) == "0.721 bits a byte, perplexity 2.718"


def test_a_difference_is_paired_by_document() -> None:
    hard, easy = [700.0, 30.0, 90.0], [70, 30, 90]
    first = costs([cost + 0.1 * size for cost, size in zip(hard, easy, strict=True)], [9, 9, 9], easy)
    gap = bits_difference(first, costs(hard, [9, 9, 9], easy))
    assert gap.value == pytest.approx(0.1 / math.log(2))
    assert gap.low == pytest.approx(gap.high) == pytest.approx(gap.value)
    with pytest.raises(ValueError, match="not measured on the same documents"):
        bits_difference(first, costs(hard[:2], [9, 9], easy[:2]))
    # Of each its own bytes, where two tokenizers count a border otherwise.
    longer = bits_difference(first, costs(hard, [9, 9, 9], [size + 1 for size in easy]))
    assert longer.value == pytest.approx((first.nats.sum() / 190 - 820 / 193) / math.log(2))
    assert longer.low <= longer.value <= longer.high


def test_documents_without_a_byte_are_no_documents() -> None:
    with pytest.raises(ValueError, match="needs a token and a byte"):
        bits_per_byte(costs([1.0, 1.0], [1, 1], [2, 0]), "test")


def test_a_score_is_told_and_chosen_by_its_bits() -> None:
    score = bits_per_byte(costs([math.log(2)], [1], [2]), "validation")
    assert goodness(score, "bits_per_byte") == -0.5
    assert figures(score) == {"bits_per_byte": 0.5, "perplexity": 2.0, "n": 1}
    assert in_short(figures(score)) == "0.500 bits a byte, perplexity 2 (n=1)"
    assert in_short(figures(score), whole=False) == "0.500 bits a byte"
    assert scored_any(score) == scored_bits(score)
