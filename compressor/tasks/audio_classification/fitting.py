"""How a model that is to be trained hears sound: what is stated, or what the training sounds need."""

import math
from collections import Counter

import numpy as np
import torch
from numpy.typing import NDArray

from compressor.data.samples import Dataset, Split
from compressor.errors import KdcError
from compressor.models.loaded import LoadedModel
from compressor.progress import Progress
from compressor.schema.base import parse
from compressor.schema.preprocess import AudioPreprocess
from compressor.tasks.audio_classification.features import features, mel_filters, of_sounds
from compressor.tasks.audio_classification.waveforms import windows

__all__ = ["Unfitted", "fitted_preprocess", "heard_of", "placeholder"]

COVERED = 95
"""Percent of the training sounds that are heard whole."""
LONGEST = 10.0
"""Seconds that are heard at most, where nobody states more."""
MEASURED = 2_000
"""Training sounds that the mean and the standard deviation of the features are taken of."""
LEAST_STD = 1e-3


class Unfitted(AudioPreprocess):
    """A placeholder: how the model hears is found of the data that it is trained on. `fixed_rate`: it
    takes sound at `sample_rate` alone; `as_teacher`: the seconds that its teacher was taught to hear."""

    fixed_rate: bool = False
    as_teacher: float | None = None


def placeholder(kind: str = "log-mel", sample_rate: int | None = None) -> Unfitted:
    """Of a second of sound."""
    rate = sample_rate or 16_000
    return Unfitted.model_validate({
        "sample_rate": rate, "samples": rate, "features": kind, "high_hz": rate / 2,
        "fixed_rate": sample_rate is not None,
    })  # fmt: skip


def fitted_preprocess(
    model: LoadedModel, data: Dataset, milliseconds: int | None, progress: Progress
) -> AudioPreprocess:
    """How `model` hears these data, said; a run keeps what it has.

    The rate is that of most training sounds, where the model takes any; the length, where it is not stated, its
    teacher's, or else what 95 % of them need, 10 s at most. Log-mel features get their mean and standard deviation
    from the training sounds, and the usual windows of 25 ms, 10 ms apart. Samples without a label count where there are
    no others.
    """
    known = of_sounds(model.preprocess)
    clips = [data.train.read(row) for row in _rows(data.train)]
    rates, lengths = Counter(clip.rate for clip in clips), np.array([clip.length / clip.rate for clip in clips])
    if isinstance(known, Unfitted):
        rate = known.sample_rate if known.fixed_rate else min(rates, key=lambda each: (-rates[each], each))
        covered = float(np.percentile(lengths, COVERED, method="higher"))
        seconds, why = min(covered, LONGEST), f"{COVERED} % of the training sounds have {covered:.3g} s or less"
        if milliseconds is not None:
            seconds, why = milliseconds / 1000, "as stated"
        elif known.as_teacher is not None:
            seconds, why = known.as_teacher, "as its teacher"
        chosen = _chosen(known, rate, seconds, model.weights.source)
        chosen = chosen.model_copy(update=_normalization(data.train, chosen))
    else:
        chosen, why = known, f"as {model.weights.source} has it"
    _tell(chosen, why, lengths, rates, progress)
    return chosen


def _rows(train: Split) -> NDArray[np.int64]:
    labelled = np.flatnonzero(train.labels >= 0)
    return labelled if len(labelled) else np.arange(len(train))


def _chosen(known: Unfitted, rate: int, seconds: float, source: str) -> AudioPreprocess:
    samples = max(16, round(seconds * rate))
    values: dict[str, object] = {"sample_rate": rate, "samples": samples, "features": known.features}
    if known.features == "log-mel":
        window = round(0.025 * rate)
        if samples < window:
            raise KdcError(
                f"{source} hears windows of {window} values (25 ms), and the sounds have {samples} at {rate:,} Hz",
                "longer sounds, or more around each: start and end in a table",
            )
        values |= {
            "high_hz": rate / 2,
            "window": window,
            "hop": round(0.010 * rate),
            "fft": 1 << math.ceil(math.log2(window)),
        }
    made = parse(AudioPreprocess, values, f"{source}: how it hears")
    while made.features == "log-mel" and not (mel_filters(made) > 0).any(axis=0).all():
        made = made.model_copy(update={"fft": 2 * made.fft})
    return made


def _normalization(train: Split, preprocess: AudioPreprocess) -> dict[str, float]:
    """The mean and the standard deviation of the features of some training sounds, drawn by what they hold, so that
    neither names nor order count. A waveform stays as it is."""
    if preprocess.features == "waveform":
        return {}
    rows = _rows(train)
    rows = rows[np.argsort(train.contents[rows], kind="stable")][:MEASURED]
    count, total, squares = 0, 0.0, 0.0
    for start in range(0, len(rows), 64):
        waves = torch.from_numpy(windows(train, rows[start : start + 64], preprocess))
        values = features(waves, preprocess).to(torch.float64)
        count += values.numel()
        total += float(values.sum())
        squares += float(values.square().sum())
    mean = total / count
    std = math.sqrt(max(squares / count - mean * mean, 0.0))
    # Rounded, so that the last bits of a sum mean nothing.
    return {"mean": float(f"{mean:.6g}"), "std": max(float(f"{std:.6g}"), LEAST_STD)}


def heard_of(data: Dataset, preprocess: AudioPreprocess) -> str:
    """What a model leaves out of the training sounds, or adds to them; "" where nothing. A line for people."""
    clips = [data.train.read(row) for row in _rows(data.train)]
    rates, lengths = Counter(clip.rate for clip in clips), np.array([clip.length / clip.rate for clip in clips])
    cut, filled = _changed(preprocess, lengths)
    parts = [f"{cut:,} are cut"] if cut else []
    parts += [f"{filled:,} filled up with silence"] if filled else []
    parts += [f"resampled: {others}"] if (others := _others(preprocess, rates)) else []
    return f"of {len(lengths):,} training sounds {' and '.join(parts)}" if parts else ""


def _changed(preprocess: AudioPreprocess, lengths: NDArray[np.float64]) -> tuple[int, int]:
    """How many sounds are cut, and how many filled up; `lengths`: in seconds."""
    half = 0.5 / preprocess.sample_rate
    return int((lengths > preprocess.seconds + half).sum()), int((lengths < preprocess.seconds - half).sum())


def _others(preprocess: AudioPreprocess, rates: Counter[int]) -> str:
    """Which sounds are resampled."""
    others = sorted((rate, count) for rate, count in rates.items() if rate != preprocess.sample_rate)
    return ", ".join(f"{count:,} from {rate:,} Hz" for rate, count in others)


def _tell(
    chosen: AudioPreprocess, why: str, lengths: NDArray[np.float64], rates: Counter[int], progress: Progress
) -> None:
    cut, filled = _changed(chosen, lengths)
    kind = f"{chosen.mels} mel bands" if chosen.features == "log-mel" else "its waveform"
    progress.note(
        f"hears {chosen.seconds:.4g} s of sound at {chosen.sample_rate:,} Hz as {kind} ({why}): of {len(lengths):,} "
        f"training sounds {cut:,} are cut and {filled:,} filled up with silence"
    )
    if others := _others(chosen, rates):
        progress.note(f"training sounds resampled to {chosen.sample_rate:,} Hz: {others}")
