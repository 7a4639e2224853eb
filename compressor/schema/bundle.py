"""Bundle: what `kdc export` leaves on disk, BUNDLE/bundle.json. It travels to the device whole.

bundle.json            this manifest           model.onnx, labels.txt   the student, fp32, and its classes
openvino-f16/ …        one folder a variant    teacher/model.onnx       the teacher, measured in the same way
baseline/              an earlier student, to race along, and what it predicted (--baseline)
eval/                  test inputs, labels, the torch reference's logits, the answers of a teacher that is a table
runners/               the scripts that run and measure it where kdc is not installed
measurements/          raw samples             report.html, report.md, report.json   made from them
explain/               what int8 costs each layer (--explain)
history.jsonl          the course of the student's training, without times, for the report
README.md              a model card            junit.xml                the report for a CI
SHA256SUMS             every other file; `sha256sum -c` reads it
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from compressor.errors import KdcError
from compressor.schema.base import Noun
from compressor.schema.predictions import Kind
from compressor.schema.preprocess import OfTask, TaskName
from compressor.schema.profile import Profile
from compressor.schema.quantization import Rung, Score
from compressor.schema.student import Student, Weights

__all__ = ["Bundle", "EvalSet", "FileEntry", "RawFiles", "Role", "TeacherTable", "Variant"]

Role = Literal["student", "teacher", "reference", "baseline"]


class FileEntry(Noun):
    """One file of the bundle: path relative to the bundle, with forward slashes."""

    path: str
    sha256: str
    bytes: int


class RawFiles(Noun):
    """Test samples as an application has them, of which a device makes a model's inputs itself. `samples`: of texts a
    JSON array of arrays of one text or two, all of them in their order; of sound a JSON array of [number of the test
    sample, wav file], some of them. `tokenizer`: of texts, the tokenizer.json. Paths relative to the bundle."""

    samples: str
    tokenizer: str | None = None


class Variant(Noun):
    """One artefact. `model` is the file that the runner loads; `files` are all the files that ship with it.

    `inputs`: uint8 [N, height, width, 3] images, resized and cropped as `preprocess` says, so that only
    `(x / 255 - mean) / std` is left to do. `reference_logits`: float32 [N, classes] from torch on the same inputs.
    `macs`: multiply-accumulates of one image's forward pass. `made`: how, in one line. `weight_bytes`: the bytes of
    the stored weights by their type, e.g. {"float32": 6123456}; `compressed_bytes`: all the files in one gzip stream,
    about what a download or a package costs.

    `baked`: the last step of `preprocess`, its normalization, is part of the model, which takes what comes before it:
    of images, uint8 [batch, height, width, 3]. Of sound the whole front end is, and `preprocess` and `inputs` are of
    what is left: the waveform. `dynamic_batch`: the batch may vary from call to call.

    `weights`: of the retrained or trimmed student, where it was made from that one, and not from the bundle's student
    as it is.

    `score`: its answers on validation, which the choice between variants is made on; null where nothing here could run
    it. `rungs`: every candidate of the ladder to int8, in the order in which they were made; one of them was taken.
    `mask`: the input that says which tokens count, where there is one: in `inputs` they are filled up to the most that
    the model takes, and a runner feeds it batches that are as long as their longest sample. `raw`: what `inputs` were
    made from, where a device makes them itself.
    `build`: the script that makes the runtime's own file from `model` on the device; null where `model` runs itself.

    `role`: reference is the student in fp32 on ONNX Runtime where the profile does not ask for it anyway; baseline is
    the same variant of an earlier bundle. Both run along in every measurement and are not judged.
    """

    task: TaskName
    name: str
    role: Role
    runtime: str
    precision: str
    runner: str
    model: str
    files: tuple[FileEntry, ...]
    inputs: str
    reference_logits: str
    preprocess: OfTask
    parameters: int
    macs: int
    made: str
    weight_bytes: dict[str, int]
    compressed_bytes: int
    baked: bool = False
    dynamic_batch: bool = False
    weights: Weights | None = None
    score: Score | None = None
    rungs: tuple[Rung, ...] = ()
    build: str | None = None
    mask: str | None = None
    raw: RawFiles | None = None

    @property
    def size_bytes(self) -> int:
        """Of all the files that ship."""
        return sum({entry.path: entry.bytes for entry in self.files}.values())

    @property
    def artefact_sha256(self) -> str:
        """One sha256 for all the files: of the text that `sha256sum` prints for them, in their order."""
        lines = "".join(f"{entry.sha256}  {entry.path}\n" for entry in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()


class EvalSet(Noun):
    """The whole test split. `labels`: int64 [N] in a .npy file, indices into `class_names`; `ids`: a text file.
    `contents`: sha256 over what the images show, in their order (`Split.contents`, little-endian); `digests`: the same
    one by one, uint64 [N] in a .npy file; both null in bundles of an earlier kdc. `lengths`: how many tokens of each
    the student reads, int64 [N] in a .npy file, where samples are made of tokens."""

    split: str
    n: int
    labels: str
    ids: str
    contents: str | None = None
    digests: str | None = None
    lengths: str | None = None


class TeacherTable(Noun):
    """Of a teacher that is a table of answers: those to the test samples, in their order. They stand in for what a
    teacher that runs is measured to answer, and serve nothing but the report.

    `answers`: a .npy file. Of `kind` "probabilities" or "logits" float32 [N, classes], log-probabilities (natural) or
    logits; of "labels" and "top-k" int64 [N], the most probable class alone, since of others nothing certain is known.
    Both are null where the answers are not to be had, and then `missing` says why, in one line.
    """

    kind: Kind | None = None
    answers: str | None = None
    missing: str | None = None


class Bundle(Noun):
    """The manifest. `kdc`: the version that made it. `support` lists the files that are no variant's: eval inputs,
    labels, runners. `reference`: the name of the variant that is the fp32 reference; a second copy of it runs along, to
    tell noise from effects (A/A). `baseline`: the student of the earlier bundle whose variants have the role baseline.
    `baseline_n`: its test samples, where they are others than `eval`'s; then its predictions are not compared in this
    session. `release`: a file of what the baseline cost and predicted when it was measured (`schema.release`).
    `sequence_length`: the tokens of a sample whose latency is measured, of the teacher's too: at most what each of them
    reads; null where samples are all as large.
    `lengths`: tokens of a sample at which latency is measured beside that; 0: each sample as long as it is.
    `teacher`: null where the student and its peers were the only ones; `teacher_table`: null where it was no table."""

    schema_: Annotated[Literal[2], Field(alias="schema")] = 2
    kdc: str = "unknown"
    profile: Profile
    student: Student
    teacher: Weights | None
    teacher_table: TeacherTable | None = None
    baseline: Student | None = None
    baseline_n: Annotated[int, Field(ge=1)] | None = None
    release: str | None = None
    reference: str
    sequence_length: Annotated[int, Field(ge=1)] | None = None
    lengths: tuple[Annotated[int, Field(ge=0)], ...] = ()
    eval: EvalSet
    variants: tuple[Variant, ...]
    support: tuple[FileEntry, ...]
    notes: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_classifier(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "task" in values:
            raise KdcError("it is the bundle of a language model, which kdc compares with no other yet", "leave it out")
        return values

    @property
    def used(self) -> tuple[str, ...]:
        """The files of `support` and of variants that figures are made from, or that run."""
        used = [self.eval.labels, self.eval.ids, *filter(None, (self.eval.digests, self.release))]
        if self.teacher_table is not None and self.teacher_table.answers is not None:
            used.append(self.teacher_table.answers)
        for variant in self.variants:
            used += [variant.model, variant.inputs, variant.reference_logits, f"runners/{variant.runner}"]
            used += [f"runners/{variant.build}"] if variant.build is not None else []
        return tuple(used)

    @property
    def most_bytes(self) -> int:
        """Of what a runner leaves, but for a header."""
        return 8 * max(0, self.eval.n) * len(self.student.class_names)

    @classmethod
    def made_anew(cls, path: Path) -> str:
        return (
            "if another version of kdc made the bundle, this one makes it anew: "
            f"kdc export RUN --profile NAME --out {path.parent} --overwrite"
        )
