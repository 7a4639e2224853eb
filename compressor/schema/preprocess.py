"""Preprocess: how a sample becomes the input of one model. It travels with the weights; one class a task."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from compressor.schema.base import Noun
from compressor.schema.tensors import Normalization, TensorSpec

__all__ = [
    "PREPROCESS",
    "AudioPreprocess",
    "ImagePreprocess",
    "Interpolation",
    "OfTask",
    "PixelRange",
    "Preprocess",
    "TaskName",
    "TextPreprocess",
    "Three",
]

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Side = Annotated[int, Field(ge=1, le=8192)]
Three = tuple[float, float, float]
Value = Annotated[float, Field(ge=-1e12, le=1e12)]


def _two(value: object) -> object:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError("must be two numbers, [black, white]")
    return value


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        raise ValueError("must be [black, white], with black < white")
    return value


PixelRange = Annotated[tuple[Value, Value], BeforeValidator(_two), AfterValidator(_rising)]
"""Which values of images of more than 8 bits a channel become black and white, 0 and 255."""


class Preprocess(Noun):
    """How a sample of a task becomes the input of a model. `task`: its name in the table of tasks, by which a file says
    which of these classes it holds."""

    task: ClassVar[str]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the model takes, in the order in which its network takes it; "batch" is the first dimension of each."""
        raise NotImplementedError

    @property
    def mask(self) -> str | None:
        """The name of the input that says which tokens count; None where there is none."""
        return next((spec.name for spec in self.inputs if spec.mask), None)

    @property
    def most_tokens(self) -> int | None:
        """The most that a dimension which varies may be, such as tokens; None where none does."""
        return None

    @property
    def lengths(self) -> tuple[int, ...]:
        """At which lengths of a sample latency is measured, beside that of each sample as long as it is."""
        return ()

    @property
    def described(self) -> str:
        """What the model takes, as "images of 224×224"."""
        raise NotImplementedError

    @property
    def normalization(self) -> Normalization | None:
        """The last step, where it is one that can be built into a model."""
        return None

    @property
    def read_with(self) -> "PixelRange | None":
        """How the samples that it learned from were read, where that was stated (`Recipe.pixel_range`)."""
        return None

    @property
    def cost(self) -> int:
        """The values of one sample: what time and memory grow with."""
        return sum(spec.values for spec in self.inputs)


class ImagePreprocess(Preprocess):
    """RGB image -> resize -> centre crop -> `(pixel / 255 - mean) / std`, float32 [3, height, width].

    `resize_mode` "shorter" brings the shorter side to `resize[0]` and keeps the aspect; "squash" resizes to `resize`
    exactly. The crop is `input_size`, both (height, width) in pixels. `pixel_range`: as in the recipe; null: the whole
    range of the image's kind, such as 0 to 65535.
    """

    input_size: tuple[Side, Side]
    resize: tuple[Side, Side]
    resize_mode: Literal["shorter", "squash"] = "shorter"
    interpolation: Interpolation = "bicubic"
    mean: Three
    std: Three
    pixel_range: PixelRange | None = None

    task: ClassVar[str] = "image-classification"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec("input", "float32", ("batch", 3, *self.input_size)),)

    @property
    def described(self) -> str:
        return f"images of {self.input_size[0]}×{self.input_size[1]}"

    @property
    def normalization(self) -> Normalization:
        return Normalization(TensorSpec("image", "uint8", ("batch", *self.input_size, 3)), 255.0, self.mean, self.std)

    @property
    def read_with(self) -> PixelRange | None:
        return self.pixel_range


class TextPreprocess(Preprocess):
    """Text, or a pair of texts -> the ids of its tokens, int64 [tokens], of which at most `max_length` are kept,
    special ones included; of a pair the longer text is cut first. A batch is filled up with `pad_id` to its longest
    text, and the mask leaves that out.

    `tokenizer`: sha256 of the tokenizer.json that lies beside the model, without its own padding and truncation.
    `pair`: whether a sample has two texts; null: one or two.
    `vocabulary`: ids are below it. `token_types`: how many kinds of tokens the model tells apart (which of a pair's
    texts they are of); 0: it is not told.
    """

    tokenizer: str
    vocabulary: Annotated[int, Field(ge=1, le=100_000_000)]
    max_length: Annotated[int, Field(ge=4, le=1_000_000)]
    pair: bool | None = None
    token_types: Annotated[int, Field(ge=0, le=1000)] = 0
    pad_id: Annotated[int, Field(ge=0)] = 0

    task: ClassVar[str] = "text-classification"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        shape = ("batch", "tokens")
        types = [TensorSpec("token_type_ids", "int64", shape, self.token_types)] if self.token_types else []
        mask = TensorSpec("attention_mask", "int64", shape, 2, mask=True)
        return (TensorSpec("input_ids", "int64", shape, self.vocabulary), *types, mask)

    @property
    def most_tokens(self) -> int:
        return self.max_length

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(sorted({min(length, self.max_length) for length in (16, 64, 128, 256)}))

    @property
    def described(self) -> str:
        return f"{'pairs of texts' if self.pair else 'texts'} of up to {self.max_length} tokens"


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
        """Of sound that a sample holds."""
        return self.samples / self.sample_rate

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        if self.features == "waveform":
            return (TensorSpec("input", "float32", ("batch", self.samples)),)
        return (TensorSpec("input", "float32", ("batch", 1, self.mels, self.frames)),)

    @property
    def described(self) -> str:
        return f"{self.seconds:g} s of sound at {self.sample_rate:,} Hz"


PREPROCESS: dict[str, type[Preprocess]] = {
    kind.task: kind for kind in (ImagePreprocess, TextPreprocess, AudioPreprocess)
}
"""The class of each task. A task adds its own."""


def _of_task(value: Any, info: ValidationInfo) -> Any:
    """A Preprocess of the task that the noun around it names."""
    if isinstance(value, Preprocess):
        return value
    if "task" not in info.data:
        raise ValueError("the task that it belongs to is not known")
    kind = PREPROCESS.get(info.data["task"])
    if kind is None:
        raise ValueError(f"there is no task {info.data.get('task')!r}; known: {', '.join(PREPROCESS)}")
    return kind.model_validate(value)


TaskName = Annotated[str, Field(json_schema_extra={"enum": [*PREPROCESS]})]
"""Its schema names the tasks that come with kdc; others may be added."""

OfTask = Annotated[
    SerializeAsAny[Preprocess],
    BeforeValidator(_of_task),
    WithJsonSchema({"anyOf": [kind.model_json_schema() for kind in PREPROCESS.values()]}),
]
"""In a noun with a field `task` before it."""
