"""Sound -> what a model takes, as training made it: one channel at one rate, of one length, as it is or as log-mel.

Of the example programs and of the runners. Standard library and numpy only; runs on Python 3.9 and later. Everything is
computed in float64 and rounded once where training rounds, since the logarithm of a quiet band beside a loud one shows
every rounding before it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.sound_files import Sound, SoundError
else:
    from sound_files import Sound, SoundError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
SIDE = 10  # of the filter that resamples: its half, in values of the lower rate
BETA = 5.0  # of its Kaiser window


class Heard(NamedTuple):
    """Of one sound: the model's `input`, float32; how many values at the model's rate were left out (`cut`), or of
    silence added (`filled`); and whether its rate was another (`resampled`)."""

    input: Floats
    cut: int
    filled: int
    resampled: bool


class FrontEnd:
    """`preprocess`: the model's (preprocess.json, or that of bundle.json). Raises SoundError."""

    def __init__(self, preprocess: dict[str, Any]) -> None:
        self.rate, self.samples = int(preprocess["sample_rate"]), int(preprocess["samples"])
        self._preprocess = preprocess
        self._filters: dict[int, Doubles] = {}
        self._mels: Doubles | None = None
        if preprocess["features"] == "log-mel":
            if not preprocess["window"] <= min(preprocess["fft"], self.samples):
                raise SoundError("preprocess.json: a window is longer than its transform, or than a sample")
            self._window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(preprocess["window"]) / preprocess["window"])
            self._mels = mel_filters(preprocess)
        elif preprocess["features"] != "waveform":
            raise SoundError(f"preprocess.json: this script makes no {preprocess['features']}")

    def heard(self, sound: Sound) -> Heard:
        """What the model takes of a sound. Raises SoundError."""
        up, down = ratio(self.rate, sound.rate)
        whole = -(-len(sound) * up // down)
        start = (whole - self.samples) // 2 if whole >= self.samples else -((self.samples - whole) // 2)
        first, last = max(start, 0), min(start + self.samples, whole)
        values = np.zeros(self.samples, np.float32)
        values[first - start : last - start] = self._resampled(sound, first, last)
        return Heard(self.features(values), max(whole - self.samples, 0), max(self.samples - whole, 0), up != down)

    def features(self, values: Floats) -> Floats:
        """`values`: float32 [samples], at the model's rate. [1, mels, frames], or of waveforms [samples]."""
        given = self._preprocess
        made = values.astype(np.float64)
        if self._mels is not None:
            frames = np.lib.stride_tricks.sliding_window_view(made, given["window"])[:: given["hop"]]
            power = np.abs(np.fft.rfft(frames * self._window, given["fft"])) ** 2
            made = np.log(np.maximum(self._mels @ power.T, given["floor"]))[None]
        made = (made - given["mean"]) / given["std"]
        return np.ascontiguousarray(made, np.float32)

    def _resampled(self, sound: Sound, first: int, last: int) -> Doubles:
        """Of the sound at the model's rate, the values from `first` to `last`: as scipy.signal.resample_poly has them
        of the whole, whose filter is a sinc in a Kaiser window."""
        up, down = ratio(self.rate, sound.rate)
        if up == down:
            return sound.mono(first, last)
        if sound.rate not in self._filters:
            self._filters[sound.rate] = polyphase(up, down)
        filters = self._filters[sound.rate]
        taps = filters.shape[1]
        begin = first * down // up - taps // 2
        given = sound.mono(begin, (last - 1) * down // up + taps // 2 + 1)
        windows = np.lib.stride_tricks.sliding_window_view(given, taps)
        made = np.empty(last - first, np.float64)
        for offset in range(min(up, last - first)):  # of outputs that are `up` apart, each is `down` inputs further
            number = first + offset
            at = number * down // up - taps // 2 - begin
            part = made[offset::up]
            part[:] = windows[at::down][: len(part)] @ filters[number * down % up]
        return made


def ratio(to: int, rate: int) -> tuple[int, int]:
    """How many values come of how many, in lowest terms."""
    common = math.gcd(to, rate)
    return to // common, rate // common


def polyphase(up: int, down: int) -> Doubles:
    """The filter that resamples by up / down, [up, taps]: row r makes the outputs that lie r / up behind an input, of
    which the one before is in the middle of the taps."""
    most = max(up, down)
    half = SIDE * most
    around = np.arange(-half, half + 1)
    tall = np.sinc(around / most) * np.kaiser(2 * half + 1, BETA)
    tall *= up / tall.sum()
    side = -(-half // up)
    padded = np.zeros((2 * side + 1) * up, np.float64)
    # Tap k of row r weighs the input that lies r + (side - k) * up of the finer grid before the output.
    padded[side * up - half : side * up + half + 1] = tall
    return np.ascontiguousarray(padded.reshape(2 * side + 1, up)[::-1].T)


def mel_filters(preprocess: dict[str, Any]) -> Doubles:
    """[mels, fft // 2 + 1]: triangles that are as far apart on the mel scale of HTK, their peaks 1."""
    low, high = (2595 * math.log10(1 + preprocess[key] / 700) for key in ("low_hz", "high_hz"))
    edges = 700 * (10 ** (np.linspace(low, high, preprocess["mels"] + 2) / 2595) - 1)
    bins = np.arange(preprocess["fft"] // 2 + 1) * (preprocess["sample_rate"] / preprocess["fft"])
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    made: Doubles = np.maximum(0, np.minimum(rising, falling))
    return made
