"""Manifest: what BUNDLE/best/ is and how a sample gets into it: manifest.json and preprocess.json."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.base import Noun
from compressor.schema.bundle import FileEntry
from compressor.schema.preprocess import Interpolation, PixelRange, Three
from compressor.schema.report import Estimate
from compressor.schema.student import Weights

__all__ = ["AudioInput", "Manifest", "ModelInput", "TextInput", "TextTensor"]

Two = tuple[int, int]


class ModelInput(Noun):
    """preprocess.json: how an image becomes the input of the model.

    `name`, `type`, `layout`, `shape`: of the input. Type "float32" is `(pixel / 255 - mean) / std`; with "uint8" the
    model does that itself and takes the pixels. `channels`: their order. `resize`, `input_size`: (height, width) in
    pixels; the latter is cropped at the centre. `resize_mode`: see Preprocess. `pixel_range`: which values become black
    and white in images of more than 8 bits a channel; null: the whole range of their kind. `value_range`: lowest and
    highest value that a channel can have. `steps`: the same in words.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    name: str
    type: Literal["float32", "uint8"]
    layout: Literal["NCHW", "NHWC"]
    shape: tuple[int, int, int, int]
    channels: Literal["RGB"] = "RGB"
    resize: Two
    resize_mode: Literal["shorter", "squash"]
    interpolation: Interpolation
    crop: Literal["centre"] = "centre"
    input_size: Two
    mean: Three
    std: Three
    pixel_range: PixelRange | None = None
    value_range: tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
    steps: tuple[str, ...]


class TextTensor(Noun):
    """One input of a model of texts; of its `shape`, a word is what varies."""

    name: str
    type: Literal["int64"]
    shape: tuple[int, str]


class TextInput(Noun):
    """preprocess.json of a model of texts: how a text, or a pair, becomes its inputs.

    `batch`: texts a call. `tokenizer`: sha256 of tokenizer.json. `max_length`, `pair`, `token_types`, `pad_id`: see
    TextPreprocess. `steps`: the same in words.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    inputs: tuple[TextTensor, ...]
    batch: int
    tokenizer: str
    max_length: int
    pair: bool | None
    token_types: int
    pad_id: int
    steps: tuple[str, ...]


class AudioInput(Noun):
    """preprocess.json of a model of sound: how a sound becomes its input.

    `name`, `type`, `shape`: of the input; the first of `shape` is how many sounds a call takes. The rest: see
    AudioPreprocess; what is of log-mel alone means nothing to a model of waveforms. `steps`: the same in words.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    name: str
    type: Literal["float32"]
    shape: tuple[int, ...]
    sample_rate: int
    samples: int
    features: Literal["log-mel", "waveform"]
    window: int
    hop: int
    fft: int
    mels: int
    low_hz: float
    high_hz: float
    floor: float
    mean: float
    std: float
    steps: tuple[str, ...]


class Manifest(Noun):
    """manifest.json: what ships. `files` are all files of the folder but this one, with paths relative to it.

    `model`: the file that the runtime loads; with `build`, the script that makes that file from `source` on the device.
    `install`: the line that installs the runtime. `runtime_version`: that it was measured with, null where it was not
    measured; `executed_precision`: as the runtime reported it then. `accuracy`: on the test split, as this artefact
    answered there. `data`: where the student learned its classes; `data_licence` is not known to kdc.
    `chosen`: why this variant. `made`: how, in one line.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    name: str
    variant: str
    runtime: str
    install: str
    runtime_version: str | None
    precision: str
    executed_precision: str | None
    model: str
    source: str | None = None
    build: str | None = None
    classes: int
    student: Weights
    teacher: Weights | None
    data: str
    data_licence: str
    profile: str
    kdc: str
    accuracy: Estimate | None
    chosen: str
    made: str
    files: tuple[FileEntry, ...]
