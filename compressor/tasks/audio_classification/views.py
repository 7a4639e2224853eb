"""Views of sounds as a pure function of (sound, key): the same key gives the same view, in any process, after any
resumption, for teacher and student alike."""

from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.randomness import keyed_uniform
from compressor.data.samples import Dataset
from compressor.errors import KdcError
from compressor.schema.preprocess import AudioPreprocess
from compressor.schema.views import OF_SOUNDS, OF_TEXTS, Views
from compressor.tasks.mixing import onto

__all__ = ["DRAWS", "Draw", "louder", "masked", "noisy", "refuse_shift", "refuse_views", "shifts"]

MIXED = "mixup", "mix_probability"
NOISE = 1 << 41  # above every seed of a recipe, and above that of mixing: no number of a view is one of its noise


class Draw(IntEnum):
    """Which of a view's uniform numbers is for what. New ones go to the end: the old views stay what they were."""

    SHIFT = 0
    GAIN = 1
    NOISE = 2
    TIME_LENGTH = 3
    TIME_START = 4
    BAND_WIDTH = 5
    BAND_START = 6


DRAWS = len(Draw)


def refuse_views(views: Views, inputs: dict[str, AudioPreprocess]) -> None:
    """Raise KdcError for views that sounds do not have, and for those that these models cannot all be shown."""
    plain = Views()
    for name in type(views).model_fields:
        if name not in ("distinct", *MIXED, *OF_SOUNDS) and getattr(views, name) != getattr(plain, name):
            what = "texts" if name in OF_TEXTS else "images"
            raise KdcError(
                f"recipe views.{name} changes {what}, and this is a sound",
                f"leave it out; {', '.join(OF_SOUNDS)} and mixup change sounds",
            )
    waveform = [key for key, preprocess in inputs.items() if preprocess.features == "waveform"]
    for name in ("time_masking", "frequency_masking"):
        if getattr(views, name) and waveform:
            raise KdcError(
                f"recipe views.{name} masks log-mel features, and the {waveform[0]} takes a waveform",
                f"--set views.{name}=0",
            )
    if views.noise and len({(each.sample_rate, each.samples) for each in inputs.values()}) > 1:
        raise KdcError(
            "recipe views.noise: the networks hear sound at other rates or lengths, so that they would not hear the "
            "same noise",
            "--set views.noise=0",
        )


def refuse_shift(views: Views, data: Dataset, preprocess: AudioPreprocess) -> None:
    """Raise KdcError where the largest shift leaves nothing but silence of most training sounds."""
    clips = (data.train.read(row) for row in range(len(data.train)))
    seconds = float(np.median([clip.length / clip.rate for clip in clips]))
    if views.time_shift >= (seconds + preprocess.seconds) / 2:
        raise KdcError(
            f"recipe views.time_shift: {views.time_shift:g} s leave nothing of sounds of {seconds:g} s, of which "
            f"{preprocess.seconds:g} s are heard",
            "it is in seconds; a tenth of what is heard is much",
        )


def shifts(numbers: NDArray[np.float64], views: Views, rate: int) -> NDArray[np.int64]:
    """How many values later each view begins, int64 [B], at `rate` Hz. `numbers`: uniform in [0, 1), [B, DRAWS]."""
    return np.rint((2 * numbers[:, Draw.SHIFT] - 1) * views.time_shift * rate).astype(np.int64)


def louder(waves: Tensor, numbers: NDArray[np.float64], views: Views) -> Tensor:
    """`waves`, float32 [B, n], each by a factor between `views.gain` decibels less and more."""
    if not views.gain:
        return waves
    factor = 10.0 ** ((2 * numbers[:, Draw.GAIN] - 1) * views.gain / 20)
    return waves * onto(factor, waves.device)[:, None]


def noisy(
    waves: Tensor, numbers: NDArray[np.float64], views: Views, seed: int, samples: NDArray[np.int64], view: int
) -> Tensor:
    """`waves`, float32 [B, n], with white noise: its root mean square is up to `views.noise` times the sound's own,
    each level as probable."""
    if not views.noise:
        return waves
    uniform = keyed_uniform(seed + NOISE, samples, view, waves.shape[1])
    white = onto(np.sqrt(3.0) * (2 * uniform - 1), waves.device)  # of variance 1
    level = onto(views.noise * numbers[:, Draw.NOISE], waves.device)[:, None]
    return waves + white * level * waves.square().mean(dim=1, keepdim=True).sqrt()


def masked(features: Tensor, numbers: NDArray[np.float64], views: Views, value: float) -> Tensor:
    """Log-mel features, float32 [B, 1, mels, frames], one stretch of time and one band of which have `value` instead.

    SpecAugment (Park et al. 2019, arXiv 1904.08779, sec. 2), one mask of each kind; how long it is, and where it
    begins, are shares of the whole, so that the same numbers mask the same at every resolution.
    """
    for share, length, start, axis in (
        (views.time_masking, Draw.TIME_LENGTH, Draw.TIME_START, 3),
        (views.frequency_masking, Draw.BAND_WIDTH, Draw.BAND_START, 2),
    ):
        if share:
            inside = _inside(numbers[:, length] * share, numbers[:, start], features.shape[axis])
            shape = [len(features), 1, 1, 1]
            shape[axis] = -1
            hidden = torch.from_numpy(inside).to(features.device).view(shape)
            features = features.masked_fill(hidden, value)
    return features


def _inside(length: NDArray[np.float64], start: NDArray[np.float64], steps: int) -> NDArray[np.bool_]:
    """[B, steps]: which steps have their middle in a stretch of `length`, which begins at the share `start` of what is
    left beside it; all in shares of the whole."""
    begin = start * (1 - length)
    middle = (np.arange(steps) + 0.5) / steps
    return (middle >= begin[:, None]) & (middle < (begin + length)[:, None])
