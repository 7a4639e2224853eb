"""What of a sound classifier's best/ is about sound: what it is told, the example programs, and some test sounds for
whoever measures. It needs no torch."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.data.samples import Split
from compressor.errors import KdcError
from compressor.files.atomic import write_atomically
from compressor.runtimes import Example
from compressor.schema.bundle import RawFiles, Variant
from compressor.schema.manifest import AudioInput
from compressor.schema.preprocess import AudioPreprocess, Preprocess
from compressor.tasks.audio_classification.containers import opened
from compressor.tasks.audio_classification.front_end import front_end
from compressor.tasks.audio_classification.reading import Clip
from compressor.tasks.shipping import Shipping

__all__ = ["SHIPPING", "AudioShipping", "audio_input"]

SOUNDS, LISTED = "eval/sounds", "eval/sounds.json"
SHARED = ("classify_sounds.py", "sound_features.py", "sound_files.py", "classify_classes.py")
MOST, MOST_BYTES = 200, 50_000_000
"""Test sounds, at most, that travel as they are, and their bytes: enough to see that features are made alike."""


class AudioShipping(Shipping):
    """Sounds: features by numpy alone; programs in Python alone."""

    sample = "sound"
    in_card = "sound"
    task_in_card = AudioPreprocess.task
    reads = (
        "classify.py reads wav, and flac, ogg and mp3 where soundfile is installed (`pip install soundfile`), of any "
        "rate and any number of channels; it says where it resamples, cuts or fills up."
    )
    argument = "FILE.wav"
    makes, maker = "features", "numpy"
    prepared = "`preprocess.json` says how a sound becomes the input, in words too"

    def input_files(self, variant: Variant, batch: int, model: str, cpp: bool) -> dict[str, bytes]:
        assert isinstance(variant.preprocess, AudioPreprocess), "the noun checks that its task's class stands there"
        given = audio_input(variant.preprocess, batch)
        return {"preprocess.json": (given.model_dump_json(indent=2) + "\n").encode()}

    def programs(self, example: Example) -> dict[str, str]:
        return {name: name for name in SHARED} | {"classify.py": example.sounds} if example.sounds else {}

    def write_raw(self, split: Split, folder: Path) -> RawFiles:
        (folder / SOUNDS).mkdir(parents=True, exist_ok=True)
        listed: list[list[int | str]] = []
        left = MOST_BYTES
        for row, content in _sounds(split):
            left -= len(content)
            if listed and left < 0:
                break
            path = f"{SOUNDS}/{row}.wav"
            (folder / path).write_bytes(content)
            listed.append([row, path])
        with write_atomically(folder / LISTED) as temporary:
            temporary.write_text(json.dumps(listed), encoding="utf-8")
        return RawFiles(samples=LISTED)

    def front_end(self, preprocess: Preprocess, opset: int) -> bytes:
        assert isinstance(preprocess, AudioPreprocess), "the noun checks that its task's class stands there"
        return front_end(preprocess, opset)

    def picture(self, stored: NDArray[Any], most: int) -> tuple[str, bytes] | None:
        """The log-mel features, low frequencies at the bottom; not compressed, as those of images. None of a
        waveform."""
        if stored.ndim != 3 or len(stored) != 1 or stored.dtype != np.float32 or not np.isfinite(stored).all():
            return None
        from PIL import Image

        values = stored[0, ::-1].astype(np.float64)
        values -= values.min()
        image = Image.fromarray((255 * values / (values.max() or 1)).astype(np.uint8))
        file = io.BytesIO()
        image.resize((most, most), Image.Resampling.BOX).save(file, "BMP")
        return "image/bmp", file.getvalue()


SHIPPING = AudioShipping()


def _sounds(split: Split) -> Iterator[tuple[int, bytes]]:
    """Some samples of a split, spread over it, each with its number: as wav, at its own rate."""
    for row in np.unique(np.linspace(0, len(split) - 1, min(len(split), MOST)).round().astype(int)).tolist():
        yield row, _wav(split.read(row))


def _wav(clip: Clip) -> bytes:
    """A sample as a wav with all of its channels: of 16 bits where that is exact, else in float32."""
    from scipy.io import wavfile

    with opened(clip.recording.content(), clip.recording.where) as sound:
        values = sound.part(clip.start, clip.length)
    if len(values) != clip.length:
        raise KdcError(f"{clip.recording.where} was changed while it was used")
    scaled = values.astype(np.float64) * 32768
    whole = np.array_equal(scaled, np.clip(np.round(scaled), -32768, 32767))
    file = io.BytesIO()
    wavfile.write(file, clip.rate, scaled.astype(np.int16) if whole else values)
    return file.getvalue()


def audio_input(preprocess: AudioPreprocess, batch: int) -> AudioInput:
    """What preprocess.json says, for a model that takes `batch` sounds a call."""
    (spec,) = preprocess.inputs
    fields = preprocess.model_dump(exclude_none=True)
    return AudioInput(
        name=spec.name,
        type="float32",
        shape=(batch, *spec.sizes(1)[1:]),
        **{key: fields[key] for key in AudioInput.model_fields if key in fields},
        steps=tuple(_steps(preprocess)),
    )


def _steps(preprocess: AudioPreprocess) -> Iterator[str]:
    """`AudioPreprocess` in words, with these figures."""
    yield "the mean of the channels, in [-1, 1]"
    yield (
        f"where the rate is not {preprocess.sample_rate} Hz, resample by a sinc of 10 values of the lower rate on "
        "either side in a Kaiser window of beta 5, as scipy.signal.resample_poly does"
    )
    yield (
        f"of more than {preprocess.samples} values leave out as many at the start as at the end; fewer are filled up "
        "with silence, as much before as after; where that is not even, the end has one more"
    )
    if preprocess.features == "log-mel":
        yield (
            f"of every {preprocess.window} values, {preprocess.hop} apart, times a periodic Hann window: the power of "
            f"their Fourier transform of {preprocess.fft} values"
        )
        yield (
            f"in {preprocess.mels} triangles, as far apart on the mel scale 2595 log10(1 + f / 700) from "
            f"{preprocess.low_hz:g} to {preprocess.high_hz:g} Hz, their peaks 1"
        )
        yield f"the natural logarithm, of at least {preprocess.floor:g}"
    yield f"(value - {preprocess.mean:g}) / {preprocess.std:g}"
