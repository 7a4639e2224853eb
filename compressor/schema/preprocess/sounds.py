"""How a sound becomes the input of a model."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from compressor.schema.preprocess.base import Preprocess, Value
from compressor.schema.tensors import TensorSpec

__all__ = ["AudioPreprocess"]


class AudioPreprocess(Preprocess):
    """Sound of any rate and any number of channels -> mono, the mean of its channels, at `sample_rate` Hz, float32 in
    [-1, 1] -> `samples` values of it: what is longer is cut, as long at its start as at its end; what is shorter is
    filled up with silence, as much before it as after it. Where they cannot be equal, the end has one value more.

    "waveform": these values, [samples]. "log-mel": of each `window` of values, `hop` apart, without filling up: times a
    periodic Hann window, the power of its Fourier transform of `fft` values, in `mels` triangles that are as far apart
    on the mel scale of HTK, `2595 log10(1 + f / 700)`, from `low_hz` to `high_hz`, their peaks 1; of these the natural
    logarithm, of at least `floor`; [1, mels, frames]. Then `(value - mean) / std`.
    """

    sample_rate: Annotated[int, Field(ge=1000, le=384_000)]
    samples: Annotated[int, Field(ge=16, le=100_000_000)]
    features: Literal["log-mel", "waveform"] = "log-mel"
    window: Annotated[int, Field(ge=16, le=65_536)] = 400
    hop: Annotated[int, Field(ge=1, le=65_536)] = 160
    fft: Annotated[int, Field(ge=16, le=65_536)] = 512
    mels: Annotated[int, Field(ge=1, le=512)] = 40
    low_hz: Annotated[float, Field(ge=0)] = 20.0
    high_hz: Annotated[float, Field(gt=0)] = 8000.0
    floor: Annotated[float, Field(gt=0, le=1)] = 1e-6
    mean: Value = 0.0
    std: Annotated[float, Field(gt=0, le=1e12)] = 1.0

    task: ClassVar[str] = "audio-classification"

    @model_validator(mode="after")
    def _possible(self) -> "AudioPreprocess":
        if self.features == "waveform":
            return self
        if not self.window <= min(self.fft, self.samples):
            raise ValueError("window must be at most fft, and at most samples")
        if not self.low_hz < self.high_hz <= self.sample_rate / 2:
            raise ValueError("low_hz must be below high_hz, and high_hz at most half of sample_rate")
        return self

    @property
    def frames(self) -> int:
        """Of the log-mel features."""
        return 1 + (self.samples - self.window) // self.hop

    @property
    def seconds(self) -> float:
        return self.samples / self.sample_rate

    @property
    def size(self) -> int:
        return round(1000 * self.seconds)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        if self.features == "waveform":
            return (TensorSpec("input", "float32", ("batch", self.samples)),)
        return (TensorSpec("input", "float32", ("batch", 1, self.mels, self.frames)),)

    @property
    def before(self) -> "AudioPreprocess | None":
        update = {"features": "waveform", "mean": 0.0, "std": 1.0}
        return self.model_copy(update=update) if self.features == "log-mel" else None

    @property
    def described(self) -> str:
        return f"{self.seconds:g} s of sound at {self.sample_rate:,} Hz"
