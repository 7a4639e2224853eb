"""Log-mel features and resampling, against implementations that are not ours."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from compressor.schema.preprocess import AudioPreprocess
from compressor.tasks.audio_classification.features import (
    features,
    log_mel,
    mel_filters,
    resampled,
    start_of,
    window_of,
)

NARROW = AudioPreprocess(sample_rate=8000, samples=4000, window=200, hop=80, fft=256, high_hz=4000.0)
WIDE = AudioPreprocess(sample_rate=16000, samples=8000, window=400, hop=160, fft=512, mels=64, low_hz=60, high_hz=7600)


def speechlike(count: int, samples: int, seed: int = 0) -> NDArray[np.float32]:
    """Noise of a spectrum that falls, with loud and quiet stretches, and a silent one."""
    rng = np.random.default_rng(seed)
    noise = np.cumsum(rng.normal(0, 1, (count, samples)), axis=1)
    noise -= noise.mean(axis=1, keepdims=True)
    waves = noise / np.abs(noise).max(axis=1, keepdims=True) * np.exp(rng.normal(-2, 1.5, (count, 1)))
    waves[:, samples // 2 : samples // 2 + 700] = 0
    return np.asarray(waves, np.float32)


@pytest.mark.parametrize("preprocess", [NARROW, WIDE], ids=["8 kHz", "16 kHz"])
def test_features_are_those_of_transformers(preprocess: AudioPreprocess) -> None:
    utils = pytest.importorskip("transformers.audio_utils")
    filters = utils.mel_filter_bank(
        preprocess.fft // 2 + 1, preprocess.mels, preprocess.low_hz, preprocess.high_hz, preprocess.sample_rate,
        norm=None, mel_scale="htk",
    )  # fmt: skip
    window = utils.window_function(preprocess.window, "hann", periodic=True)
    waves = speechlike(3, preprocess.samples)
    made = log_mel(torch.from_numpy(waves), preprocess)
    assert made.shape == (3, 1, preprocess.mels, preprocess.frames)
    assert made.dtype == torch.float32
    for wave, ours in zip(waves, made, strict=True):
        theirs = utils.spectrogram(
            wave.astype(np.float64), window, preprocess.window, preprocess.hop, fft_length=preprocess.fft, power=2.0,
            center=False, mel_filters=filters, mel_floor=preprocess.floor, log_mel="log", dtype=np.float64,
        )  # fmt: skip
        assert np.abs(ours[0].numpy() - theirs).max() < 1e-5


def test_power_is_that_of_scipy() -> None:
    from scipy.signal import spectrogram
    from scipy.signal.windows import hann

    (wave,) = speechlike(1, NARROW.samples, 3)
    window = hann(200, sym=False)
    _, _, spectrum = spectrogram(
        wave.astype(np.float64), 8000, window, noverlap=120, nfft=256, detrend=False, scaling="spectrum",
        mode="complex",
    )  # fmt: skip
    power = np.abs(spectrum * window.sum()) ** 2
    expected = np.log(np.maximum(mel_filters(NARROW).T @ power, NARROW.floor))
    made = log_mel(torch.from_numpy(wave)[None], NARROW)[0, 0].numpy()
    assert made.shape == expected.shape == (40, 48)
    assert np.abs(made - expected).max() < 1e-5


def test_triangles_have_their_peaks_at_1_and_meet_there() -> None:
    """On a grid as fine as can be, each triangle reaches 1 where its neighbours reach 0."""
    fine = NARROW.model_copy(update={"fft": 1 << 16, "window": 200})
    filters = mel_filters(fine)
    assert filters.shape == ((1 << 15) + 1, 40)
    assert filters.max(axis=0) == pytest.approx(1.0, abs=0.01)
    peaks = filters.argmax(axis=0)
    inside = slice(peaks[0], peaks[-1])
    assert filters[inside].sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    mels = 2595 * np.log10(1 + peaks * 8000 / (1 << 16) / 700)
    assert np.ptp(np.diff(mels)) < 0.5


def test_silence_is_at_the_floor_and_a_waveform_stays() -> None:
    silent = torch.zeros(2, 4000)
    assert np.array_equal(np.unique(log_mel(silent, NARROW).numpy()), [np.float32(np.log(1e-6))])
    plain = AudioPreprocess(sample_rate=8000, samples=4000, features="waveform")
    waves = torch.from_numpy(speechlike(2, 4000))
    assert features(waves, plain) is waves


@pytest.mark.parametrize(("rate", "wanted"), [(8000, 16000), (44100, 16000), (48000, 8000), (22050, 16000)])
def test_a_tone_stays_a_tone_when_it_is_resampled(rate: int, wanted: int) -> None:
    """Values of the same sine at the other rate, away from the ends, where there is silence outside."""
    count = rate // 2
    wave = np.sin(2 * np.pi * 440 * np.arange(count) / rate).astype(np.float32)
    made = resampled(wave, rate, wanted)
    assert made.dtype == np.float32
    assert len(made) == -(-count * wanted // rate)
    expected = np.sin(2 * np.pi * 440 * np.arange(len(made)) / wanted)
    middle = slice(len(made) // 4, -len(made) // 4)
    assert np.abs(made - expected)[middle].max() < 2e-3


def test_what_a_lower_rate_cannot_hold_is_filtered_out() -> None:
    wave = np.sin(2 * np.pi * 7000 * np.arange(16000) / 16000).astype(np.float32)
    made = resampled(wave, 16000, 8000)
    assert np.abs(made[200:-200]).max() < 0.02
    assert resampled(wave, 16000, 16000) is wave


@pytest.mark.parametrize(
    ("length", "samples", "kept"),
    [
        (7, 7, [1, 2, 3, 4, 5, 6, 7]),
        (7, 4, [2, 3, 4, 5]),  # one cut before, two behind
        (7, 5, [2, 3, 4, 5, 6]),
        (4, 7, [0, 1, 2, 3, 4, 0, 0]),  # one before, two behind
        (4, 6, [0, 1, 2, 3, 4, 0]),
        (1, 4, [0, 1, 0, 0]),
    ],
)
def test_what_is_cut_and_filled_up(length: int, samples: int, kept: list[int]) -> None:
    values = np.arange(1, length + 1, dtype=np.float32)
    assert window_of(values, start_of(length, samples), samples).tolist() == kept


def test_what_no_features_can_be_made_of_is_refused() -> None:
    for wrong in ({"window": 600}, {"samples": 300}, {"high_hz": 9000.0}, {"low_hz": 8000.0, "high_hz": 8000.0}):
        with pytest.raises(ValidationError):
            AudioPreprocess.model_validate({"sample_rate": 16000, "samples": 16000, **wrong})
