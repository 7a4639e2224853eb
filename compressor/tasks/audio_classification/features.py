"""Sound at the rate of a model -> what it takes: cut or filled up, and log-mel features (`AudioPreprocess`)."""

from functools import lru_cache
from math import gcd

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.schema.preprocess import AudioPreprocess, Preprocess

__all__ = ["features", "log_mel", "mel_filters", "model_input", "of_sounds", "resampled", "start_of", "window_of"]


def of_sounds(preprocess: Preprocess) -> AudioPreprocess:
    """`preprocess`, which must be of this task."""
    assert isinstance(preprocess, AudioPreprocess), f"{type(preprocess).__name__} is of another task"
    return preprocess


def resampled(values: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """`values`, float32 [n] at `rate` Hz, at `wanted` Hz: ceil(n wanted / rate) values. By scipy's
    resample_poly with its own filter: a sinc under a Kaiser window of beta 5, ten zero crossings either way, and
    silence around the sound."""
    if rate == wanted:
        return values
    from scipy.signal import resample_poly

    divisor = gcd(rate, wanted)
    made = resample_poly(values.astype(np.float64), wanted // divisor, rate // divisor)
    return np.asarray(made, np.float32)


def start_of(length: int, samples: int) -> int:
    """Where, of a sound of `length` values, that begins which a model is shown `samples` of; below 0: silence."""
    spare = length - samples
    return spare // 2 if spare >= 0 else -(-spare // 2)


def window_of(values: NDArray[np.float32], start: int, samples: int) -> NDArray[np.float32]:
    """`samples` values from `start` on, silence where there are none."""
    out = np.zeros(samples, np.float32)
    first, last = max(0, start), min(len(values), start + samples)
    if first < last:
        out[first - start : last - start] = values[first:last]
    return out


def features(waves: Tensor, preprocess: AudioPreprocess) -> Tensor:
    """What a model takes, before its normalization: `waves`, float32 [B, samples], or log-mel [B, 1, mels, frames]."""
    return waves if preprocess.features == "waveform" else log_mel(waves, preprocess)


def model_input(waves: Tensor, preprocess: AudioPreprocess) -> Tensor:
    """What a model takes of `waves`, float32 [B, samples]: `(features - mean) / std`."""
    made = features(waves, preprocess)
    return (made - preprocess.mean) / preprocess.std


def log_mel(waves: Tensor, preprocess: AudioPreprocess) -> Tensor:
    """Logarithms of the power in triangles on the mel scale, float32 [B, 1, mels, frames] (`AudioPreprocess`).

    Computed in float64: in float32 the rounding of a loud sound's transform reaches `floor`, and quiet bands would
    differ between two libraries by hundredths.
    """
    window, filters = _constants(preprocess, waves.device)
    frames = waves.unfold(-1, preprocess.window, preprocess.hop).to(torch.float64) * window
    spectrum = torch.fft.rfft(frames, n=preprocess.fft)
    power = spectrum.real.square() + spectrum.imag.square()
    mels: Tensor = (power @ filters).clamp_min(preprocess.floor).log()
    return mels.to(torch.float32).transpose(1, 2).unsqueeze(1).contiguous()


@lru_cache(maxsize=16)
def _constants(preprocess: AudioPreprocess, device: torch.device) -> tuple[Tensor, Tensor]:
    window = torch.hann_window(preprocess.window, periodic=True, dtype=torch.float64)
    return window.to(device), torch.from_numpy(mel_filters(preprocess)).to(device)


def mel_filters(preprocess: AudioPreprocess) -> NDArray[np.float64]:
    """[fft / 2 + 1, mels]: how much of the power at each frequency of the transform each triangle takes."""

    def to_mel(hertz: float) -> float:
        return float(2595.0 * np.log10(1.0 + hertz / 700.0))

    low, high = to_mel(preprocess.low_hz), to_mel(preprocess.high_hz)
    corners = 700.0 * (10.0 ** (np.linspace(low, high, preprocess.mels + 2) / 2595.0) - 1.0)
    bins = np.arange(preprocess.fft // 2 + 1) * (preprocess.sample_rate / preprocess.fft)
    rising = (bins[:, None] - corners[None, :-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[None, 2:] - bins[:, None]) / (corners[2:] - corners[1:-1])
    return np.asarray(np.clip(np.minimum(rising, falling), 0.0, None), np.float64)
