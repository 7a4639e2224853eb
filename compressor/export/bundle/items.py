"""The models that go into a bundle: in fp32, with their test inputs, what int8 is made from, and a judge of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compressor.data.samples import Dataset
from compressor.errors import KdcError
from compressor.export.base import QatModel, Source, TopRung
from compressor.export.bundle.eval_set import part_of, write_reference
from compressor.export.bundle.identity import metadata_of
from compressor.export.bundle.variants import Delivery, ExportItem
from compressor.export.calibration import FEWEST
from compressor.export.judge import ValidationJudge
from compressor.export.onnx.graph import to_onnx
from compressor.export.onnx.qat import qat_model
from compressor.models import LoadedModel
from compressor.progress import Progress
from compressor.schema.accuracy import accuracy_in
from compressor.schema.preprocess import Preprocess
from compressor.schema.profile import Profile
from compressor.schema.quantization import Scheme
from compressor.schema.student import Accuracy, Student
from compressor.tasks.base import Stored, Task
from compressor.tasks.table import shipping_of, task_named

__all__ = [
    "CALIBRATION",
    "LENGTHS",
    "Retrain",
    "Workspace",
    "needed",
    "retraining",
    "student_item",
    "teacher_item",
    "validation_size",
]

LENGTHS = "eval/lengths.npy"
"""How many tokens of each test sample the student reads."""

CALIBRATION = 256
"""Training images, at most, that ranges are computed from."""

VALIDATION = 10_000
VALIDATION_VALUES = 450_000_000
"""Validation samples, at most, that choices are made on, and their values in all: 3,000 images at 224 px, which is
enough to see half a point of accuracy, and takes a minute or two a candidate on a small machine."""
TOKEN = 1500
"""What a token costs in values of an image: small encoders multiply millions of times for each, and small networks for
images thousands of times a value."""

AIM = 0.5
"""The ladder aims at this share of what may be lost: the best of several candidates looks better than it is."""

Retrain = Callable[[Scheme], Path]
"""Train the run's student on under fake quantization; returns the run that came of it."""


@dataclass(frozen=True)
class Workspace:
    """A bundle being made in `root`. `work`: what is needed on the way and does not ship. `sequence_length`: see
    `schema.bundle.Bundle`."""

    root: Path
    work: Path
    profile: Profile
    record: Student
    data: Dataset
    progress: Progress
    sequence_length: int | None = None

    @property
    def task(self) -> Task:
        return task_named(self.record.task)

    def inputs(self, preprocess: Preprocess, path: str) -> Stored:
        """Of the test split; written where they are not there yet."""
        if (self.root / path).exists():
            return self.task.stored(self.root / path, preprocess)
        return self.task.store(self.data.test, preprocess, self.root / path, self.progress)

    def write_reference(self, network: nn.Module, inputs: Stored, path: str) -> None:
        write_reference(network, inputs, self.root / path, self.progress)


def student_item(
    workspace: Workspace, run: Path, student: LoadedModel, record: Student, retrain: Retrain | None, delivery: Delivery
) -> ExportItem:
    """The student in fp32, with a judge of what is made of it. One that was trained under fake quantization is taken
    as it is without that, and is its own top rung."""
    batch = None if delivery.dynamic_batch else workspace.profile.batch
    qat_student = (
        qat_model(run, workspace.profile, batch, workspace.work / "own-qat")
        if record.quantization is not None
        else None
    )
    network = qat_student.float_network if qat_student is not None else student.network
    images, reference = "eval/student_inputs.npy", "eval/student_reference.npy"
    texts = shipping_of(record.task).write_texts(workspace.data.test, workspace.root)
    inputs = workspace.inputs(student.preprocess, images)
    if inputs.lengths is not None:
        np.save(workspace.root / LENGTHS, inputs.lengths)
    workspace.write_reference(network, inputs, reference)
    return ExportItem(
        root=workspace.root,
        role="student",
        model=student,
        source=_source(workspace, network, student, delivery),
        images=images,
        reference=reference,
        judge=_judge(workspace, network, student, record),
        top=TopRung(
            qat_student,
            retraining(workspace, batch, None if qat_student is not None or record.bias_correction else retrain),
        ),
        delivery=delivery,
        write_reference=lambda network, path: workspace.write_reference(network, inputs, path),
        work=workspace.work,
        sequence_length=workspace.sequence_length,
        texts=texts,
    )


def teacher_item(workspace: Workspace, teacher: LoadedModel, images: str, delivery: Delivery) -> ExportItem:
    """The teacher in fp32. `images`: where its test inputs lie, relative to the bundle; it may share the student's."""
    reference = "eval/teacher_reference.npy"
    (workspace.root / "teacher").mkdir()
    inputs = workspace.inputs(teacher.preprocess, images)
    workspace.write_reference(teacher.network, inputs, reference)
    return ExportItem(
        root=workspace.root,
        role="teacher",
        model=teacher,
        source=_source(workspace, teacher.network, teacher, None),
        images=images,
        reference=reference,
        judge=None,
        top=TopRung(),
        delivery=Delivery(explain=delivery.explain),
        write_reference=lambda network, path: workspace.write_reference(network, inputs, path),
        work=workspace.work,
        sequence_length=workspace.sequence_length,
    )


def _source(workspace: Workspace, network: nn.Module, model: LoadedModel, student: Delivery | None) -> Source:
    """The network as fp32 ONNX, and of the `student` the training images that quantization may look at."""
    profile, preprocess, progress = workspace.profile, model.preprocess, workspace.progress
    role = "teacher" if student is None else "student"
    progress.note(f"exporting the {role} ({model.weights.architecture}) to ONNX opset {profile.opset}")
    onnx_file = workspace.root / ("teacher" if student is None else ".") / "model.onnx"
    torch.manual_seed(0)
    network = workspace.task.merged(network)
    metadata = metadata_of(model, workspace.record, student is not None)
    batch = None if (student is not None and student.dynamic_batch) or preprocess.mask is not None else profile.batch
    modules = to_onnx(network, preprocess.inputs, batch, profile.opset, metadata, onnx_file)
    part = part_of(workspace.data.train, 0)
    if student is not None and profile.asks_for("int8"):
        part = part_of(workspace.data.train, CALIBRATION)
        if len(part) < max(FEWEST, profile.batch):
            raise KdcError(
                f"{len(part)} training {workspace.task.samples} are too few for the calibration of int8: at least "
                f"{max(FEWEST, profile.batch)} are needed",
                "give more training data, or leave int8 out: --precision …",
            )
    calibration = workspace.task.store(part, preprocess, workspace.work / f"{role}-calibration.npy", progress)
    return Source(network, onnx_file, preprocess, calibration, profile, modules)


def _judge(workspace: Workspace, network: nn.Module, student: LoadedModel, record: Student) -> ValidationJudge:
    preprocess, profile = student.preprocess, workspace.profile
    validation = part_of(workspace.data.validation, validation_size(preprocess))
    answers = workspace.work / "validation_reference.npy"
    inputs = workspace.task.store(validation, preprocess, workspace.work / "validation.npy", workspace.progress)
    write_reference(network, inputs, answers, workspace.progress)
    reference = np.load(answers)
    right, taught = int((reference.argmax(axis=1) == validation.labels).sum()), record.teacher_validation
    return ValidationJudge(
        inputs,
        validation.labels,
        reference,
        batch=profile.batch,
        threads=profile.threads,
        needed=needed(profile, right, len(validation), None if taught is None else accuracy_in(taught)),
        max_drop=AIM * profile.max_drop,
    )


def validation_size(preprocess: Preprocess) -> int:
    """How many validation samples of that size choices are made on, where there are so many."""
    values = preprocess.cost if preprocess.most_tokens is None else TOKEN * preprocess.most_tokens
    return min(VALIDATION, VALIDATION_VALUES // values)


def needed(profile: Profile, right: int, n: int, teacher: Accuracy | None) -> float:
    """How many of `n` validation samples an int8 student must have right, where the one in fp32 has `right`.

    It may lose AIM of `max_drop`, or one sample; and it may not fall below the retention that the budget asks for, if
    fp32 reaches that.
    """
    floor = right - max(1.0, AIM * profile.max_drop * n)
    retention = profile.budget.min_retention
    kept = retention * teacher.accuracy * n if retention is not None and teacher is not None else 0.0
    return max(floor, kept) if right >= kept else floor


def retraining(workspace: Workspace, batch: int | None, retrain: Retrain | None) -> Callable[[Scheme], QatModel | None]:
    """The top rung: the student trained on, once for each way of rounding; None where it may not be."""
    made: dict[Scheme, QatModel] = {}

    def trained(scheme: Scheme) -> QatModel | None:
        if retrain is not None and scheme not in made:
            folder = workspace.work / f"qat-{scheme.activations}-{scheme.weight_bits}"
            made[scheme] = qat_model(retrain(scheme), workspace.profile, batch, folder)
        return made.get(scheme)

    return trained
