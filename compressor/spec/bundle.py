"""Bundle: what `kdc export` leaves on disk, BUNDLE/bundle.json. It travels to the device whole.

bundle.json            this manifest           model.onnx, labels.txt   the student, fp32, and its classes
openvino-f16/ …        one folder a variant    teacher/model.onnx       the teacher, measured in the same way
eval/                  test inputs, labels, the torch reference's logits
runners/               the scripts that run and measure it where kdc is not installed
measurements/          raw samples             report.json, report.md   made from them
SHA256SUMS             every other file; `sha256sum -c` reads it
"""

from typing import Annotated, Literal

from pydantic import Field

from compressor.spec.base import Noun
from compressor.spec.preprocess import Preprocess
from compressor.spec.profile import Profile
from compressor.spec.student import Student, Weights

__all__ = ["Bundle", "EvalSet", "FileEntry", "Variant"]


class FileEntry(Noun):
    """One file of the bundle: path relative to the bundle, with forward slashes."""

    path: str
    sha256: str
    bytes: int


class Variant(Noun):
    """One artefact. `model` is the file that the runner loads; `files` are all the files that ship with it.

    `inputs`: uint8 [N, height, width, 3] pictures, resized and cropped as `preprocess` says, so that only
    `(x / 255 - mean) / std` is left to do. `reference_logits`: float32 [N, classes] from torch on the same inputs.
    `macs`: multiply-accumulates of one image's forward pass. `made`: how, in one line.
    """

    name: str
    role: Literal["student", "teacher"]
    runtime: str
    precision: str
    runner: str
    model: str
    files: tuple[FileEntry, ...]
    inputs: str
    reference_logits: str
    preprocess: Preprocess
    parameters: int
    macs: int
    made: str


class EvalSet(Noun):
    """The whole test split. `labels`: int64 [N] in a .npy file, indices into `class_names`; `ids`: a text file."""

    split: str
    n: int
    labels: str
    ids: str


class Bundle(Noun):
    """The manifest. `support` lists the files that are no variant's: eval inputs, labels, runners."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    profile: Profile
    student: Student
    teacher: Weights
    eval: EvalSet
    variants: tuple[Variant, ...]
    support: tuple[FileEntry, ...]
    notes: tuple[str, ...] = ()
