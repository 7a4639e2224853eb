"""What quantization costs a layer, by hand."""

import math

import pytest

from compressor.stats import EIGHT_BITS_DB, lost_db, sqnr_db


def test_a_tenth_of_the_amplitude_is_20_decibels() -> None:
    # x = (3, 4), off by (0.3, 0.4): 25 / 0.25 = 100.
    assert sqnr_db(25, 0.25) == pytest.approx(20)
    assert sqnr_db(1, 2) == pytest.approx(-3.0103, abs=1e-4)
    assert sqnr_db(1, 1) == 0
    assert sqnr_db(7, 0) is None, "no noise"


def test_a_layer_loses_what_it_does_not_find_lost() -> None:
    ratios = {"input": None, "clean": 60.0, "bad": 5.0, "behind": 4.5, "better": 9.0, "exact": None}
    cases: list[tuple[str, list[str], float | None, float]] = [
        ("bad", ["clean", "input"], 60.0, EIGHT_BITS_DB - 5),
        ("bad", ["input"], None, EIGHT_BITS_DB - 5),
        ("behind", ["clean", "bad"], 5.0, 0.5),  # of several, the lowest
        ("better", ["bad"], 5.0, -4.0),  # noise that cancels out
        ("exact", ["bad"], 5.0, 0.0),
        ("bad", ["left out"], None, EIGHT_BITS_DB - 5),
    ]
    for name, reads, before, lost in cases:
        told = lost_db(ratios, name, reads)
        assert told[0] == before, name
        assert told[1] == pytest.approx(lost), name


def test_eight_bits_give_a_full_sine_so_much() -> None:
    steps = [math.sin(2 * math.pi * (turn + 0.123) / 9_973) * 127.5 for turn in range(9_973)]
    noise = sum((value - (round(value - 0.5) + 0.5)) ** 2 for value in steps)
    assert sqnr_db(sum(value**2 for value in steps), noise) == pytest.approx(EIGHT_BITS_DB, abs=0.3)
