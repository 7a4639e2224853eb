"""Parity with torch: which samples have to hold the cosine, and which figures a sound and an unsound runtime get."""

import numpy as np
import pytest
from numpy.typing import NDArray

from compressor.stats import PARITY, ParityFigures, parity_figures, parity_judged, parity_to_spare

Floats = NDArray[np.float64]


def two_classes(n: int = 400) -> Floats:
    """As a network with two outputs gives them: nearly opposite, and some samples near a tie."""
    margin = np.random.default_rng(0).normal(0, 3, n)
    margin[:3] = 0.01, -0.02, 0.003
    return np.stack([-margin, margin * 1.05], axis=1)


def noisy(torchs: Floats, db: float) -> Floats:
    noise = np.random.default_rng(1).normal(size=torchs.shape)
    scaled: Floats = noise * np.sqrt((torchs**2).sum() / (noise**2).sum() / 10 ** (db / 10))
    return torchs + scaled


@pytest.mark.parametrize("precision", PARITY)
def test_near_ties_of_two_classes_are_no_fault_of_a_sound_runtime(precision: str) -> None:
    """With 12 dB less noise than is permitted in all, the direction of logits near zero is still noise."""
    torchs = two_classes()
    ours = noisy(torchs, PARITY[precision].sqnr_db + 12)
    plain = (ours * torchs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(torchs, axis=1)
    assert plain.min() < PARITY[precision].cosine
    found = parity_figures([(ours, torchs)], precision)
    assert found.cosine is not None
    assert found.cosine >= PARITY[precision].cosine
    assert parity_judged(precision, found)[0] == "pass"


@pytest.mark.parametrize("precision", PARITY)
def test_a_sample_that_is_off_by_more_fails(precision: str) -> None:
    """One that has a mean sample's energy, and points elsewhere; in a part of its own too."""
    torchs = two_classes()
    ours = torchs.copy()
    ours[7] = -2 * torchs[7]
    assert np.linalg.norm(torchs[7]) > 3
    for pairs in ([(ours, torchs)], [(ours[:5], torchs[:5]), (ours[5:], torchs[5:])]):
        found = parity_figures(pairs, precision)
        assert found.cosine == pytest.approx(-1)
        assert parity_judged(precision, found)[0] == "fail"


@pytest.mark.parametrize("precision", PARITY)
def test_mirrored_logits_fail(precision: str) -> None:
    torchs = two_classes(6) + np.array([0.1, 0.0])
    found = parity_figures([(-torchs, torchs)], precision)
    assert found.cosine == pytest.approx(-1)
    assert parity_judged(precision, found)[0] == "fail"


def test_what_holds_the_cosine_counts_as_it_is() -> None:
    torchs = np.random.default_rng(0).normal(size=(50, 10))
    ours = noisy(torchs, 60)
    plain = (ours * torchs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(torchs, axis=1)
    for precision in (*PARITY, "of tomorrow"):
        assert parity_figures([(ours, torchs)], precision).cosine == pytest.approx(plain.min(), abs=1e-12)


def test_without_a_finite_sample_there_is_no_cosine() -> None:
    torchs = np.full((3, 2), np.nan)
    found = parity_figures([(torchs, torchs)], "int8")
    assert (found.cosine, found.not_finite, found.n) == (None, 3, 3)
    assert parity_judged("int8", found)[0] == "fail"


@pytest.mark.parametrize(
    ("n", "same", "cosine", "sqnr_db", "spare"),
    [
        (80, 80, 0.751, 11.02, True),
        (80, 80, 0.749, 11.02, False),  # more than half of the way from 1 to 0.5
        (80, 80, 0.751, 11.00, False),  # more than half of the noise of 8 dB
        (80, 76, 0.9, 20, True),  # 0.95 - 1.645 sqrt(0.95 * 0.05 / 80) = 0.9099
        (80, 75, 0.9, 20, False),  # 0.9375 - 1.645 sqrt(0.9375 * 0.0625 / 80) = 0.893
        (8000, 7500, 0.9, 20, True),  # 0.9330
        (6, 5, 0.9, 20, True),  # one may always disagree
        (6, 4, 0.9, 20, False),
        (0, 0, None, None, False),
    ],
)
def test_room_for_other_samples(n: int, same: int, cosine: float | None, sqnr_db: float | None, spare: bool) -> None:
    assert parity_to_spare("int8", ParityFigures(n, same, 0, cosine, sqnr_db)) == spare
    assert not parity_to_spare("int8", ParityFigures(n, same, 1, cosine, sqnr_db))
