"""The bundle: every variant that the profile asks for, the teacher, and all that is needed to measure them anywhere."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compressor import __version__
from compressor.assets import runner_scripts
from compressor.data.samples import Dataset
from compressor.errors import KdcError, needs, os_error
from compressor.export.base import QatModel, Source, TopRung
from compressor.export.bundle.eval_set import eval_set, part_of, write_reference
from compressor.export.bundle.identity import metadata_of, without_paths
from compressor.export.bundle.teacher_predictions import matched_by_ids_alone, write_teacher_table
from compressor.export.bundle.variants import REFERENCE, Delivery, ExportItem, entry, variants_of
from compressor.export.calibration import FEWEST
from compressor.export.judge import ValidationJudge, machine_isa
from compressor.export.onnx.graph import to_onnx
from compressor.export.onnx.qat import qat_model
from compressor.export.quiet import quiet
from compressor.export.schemes import scored_by_others
from compressor.files.atomic import TEMPORARY
from compressor.files.bundle_change import deliver, new_folder
from compressor.models import LoadedModel, load_run
from compressor.models.lineage import data_of, teacher_of
from compressor.models.prediction_table import LoadedTable, find_table
from compressor.progress import Progress
from compressor.runtimes import RUNTIMES
from compressor.schema.base import read_json, write_json
from compressor.schema.bundle import Bundle
from compressor.schema.preprocess import Preprocess
from compressor.schema.profile import Profile
from compressor.schema.quantization import Scheme
from compressor.schema.student import Accuracy, Request, Student
from compressor.tasks.base import Stored, Task
from compressor.tasks.table import task_named

__all__ = ["CALIBRATION", "export_bundle", "needed", "validation_size"]

WORK = f"{TEMPORARY}work"

CALIBRATION = 256
"""Training images, at most, that ranges are computed from."""

VALIDATION = 10_000
VALIDATION_VALUES = 450_000_000
"""Validation samples, at most, that choices are made on, and their values in all: 3,000 images at 224 px, which is
enough to see half a point of accuracy, and takes a minute or two a candidate on a small machine."""

AIM = 0.5
"""The ladder aims at this share of what may be lost: the best of several candidates looks better than it is."""

Retrain = Callable[[Scheme], Path]
"""Train the run's student on under fake quantization; returns the run that came of it."""


def export_bundle(
    run: Path,
    profile: Profile,
    out: Path,
    *,
    teacher: str | None,
    retrain: Retrain | None,
    delivery: Delivery,
    progress: Progress,
) -> Path:
    """Export the run's student (and its teacher) for `profile` into the folder `out`, which is locked and settled.

    All of it is made under a temporary name in `out`, so that it is whole or not there. Where `out` holds a bundle
    already, that one stays, and the new one is put beside it until it is measured. Returns where it is.
    `teacher`: where the teacher lies now, if it was moved since the distillation. `retrain`: the top rung of the ladder
    to int8, where it may be climbed. Raises KdcError.
    """
    delivery.require_possible(profile)
    _, record = load_run(run)
    if record.made_by != "distill":
        raise KdcError(
            f"{run} was made by kdc {record.made_by}: there is no teacher to hold it against",
            f"kdc distill --teacher run:{run} --data … --out run",
        )
    require_exporters(profile)
    request = read_json(run / "run.json", Request)
    teacher_model = teacher_of(request, record, teacher, "if it lies elsewhere now: kdc export … --teacher REFERENCE")
    table = find_table(request, record, teacher)
    if teacher_model is None and table is None:
        why = "is no network of its own: none is measured, so no retention, no speed-up"
        progress.warn(f"teacher {request.teacher} {why}")
    temporary = None
    try:
        temporary = new_folder(out, "export")
        bundle = _fill(temporary, profile, run, request, teacher_model, table, retrain, delivery, progress)
        write_json(temporary / "bundle.json", bundle)
        return deliver(temporary, out)
    except OSError as error:
        raise os_error(error, f"writing {out}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def require_exporters(profile: Profile) -> None:
    """Import what builds for the profile's runtimes. Raises KdcError (exit 4) with the line that installs what is
    missing. Some of it logs as it is imported, of its own settings: that concerns nobody here."""
    for target in profile.targets:
        row = RUNTIMES[target.runtime]
        if row.needs_sm and profile.device.sm is None:
            raise KdcError(f"profile {profile.name} does not say for which GPU to build: device.sm is missing")
        for module in (*row.exports_with, *(row.quantizes_with if "int8" in target.precisions else ())):
            with quiet(f"profile {profile.name} needs {module}, which cannot be imported"):
                needs(module, row.export_install or row.install, f"profile {profile.name}")


@dataclass(frozen=True)
class _Workspace:
    """A bundle being made in `root`. `work`: what is needed on the way and does not ship."""

    root: Path
    work: Path
    profile: Profile
    record: Student
    data: Dataset
    progress: Progress

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


def _fill(
    root: Path,
    profile: Profile,
    run: Path,
    request: Request,
    teacher: LoadedModel | None,
    table: LoadedTable | str | None,
    retrain: Retrain | None,
    delivery: Delivery,
    progress: Progress,
) -> Bundle:
    """Everything but bundle.json. `teacher`: None where it cannot be run; `table`: see `find_table`. Test images and
    a table's answers to them are written for whoever measures; no choice here sees them."""
    student, record = load_run(run)
    data = data_of(request, record, progress)
    workspace = _Workspace(root, root / WORK, profile, without_paths(record), data, progress)
    (root / "eval").mkdir()
    workspace.work.mkdir()
    tested_on = eval_set(data.test, root)
    differs = scored_by_others(profile, machine_isa()) if profile.asks_for("int8") else ""
    if differs:
        progress.warn(differs)
    if record.bias_correction and retrain is not None:
        progress.note("int8 without quantization-aware training: it would undo the student's bias correction")
    teacher_table, by_ids = None, ""
    if table is not None and workspace.record.teacher is not None:
        source = workspace.record.teacher.source
        teacher_table = write_teacher_table(table, source, data, root, progress)
        by_ids = matched_by_ids_alone(table, source, data)
        if isinstance(table, str) and retrain is not None:
            progress.warn("int8 without quantization-aware training: the table that it would learn from is not there")
            retrain = None
    item = _student(workspace, run, student, record, retrain, delivery)
    variants = [*variants_of(item, profile, progress)]
    if teacher is not None:
        same = teacher.preprocess == student.preprocess
        item = _teacher(workspace, teacher, item.images if same else "eval/teacher_inputs.npy")
        variants += variants_of(item, profile, progress)
    (root / "labels.txt").write_text("".join(f"{name}\n" for name in record.class_names), encoding="utf-8")
    (root / "runners").mkdir()
    for name, script in runner_scripts().items():
        shutil.copyfile(script, root / "runners" / name)
    shutil.rmtree(workspace.work)
    shipped = {file.path for variant in variants for file in variant.files}
    support = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    return Bundle(
        kdc=__version__,
        profile=profile,
        student=workspace.record,
        teacher=workspace.record.teacher,
        teacher_table=teacher_table,
        reference="-".join(REFERENCE),
        eval=tested_on,
        variants=tuple(variants),
        support=tuple(entry(root, path) for path in support if path not in shipped),
        notes=tuple(filter(None, (differs, by_ids))),
    )


def _student(
    workspace: _Workspace, run: Path, student: LoadedModel, record: Student, retrain: Retrain | None, delivery: Delivery
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
    inputs = workspace.inputs(student.preprocess, images)
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
            _retraining(workspace, batch, None if qat_student is not None or record.bias_correction else retrain),
        ),
        delivery=delivery,
        write_reference=lambda network, path: workspace.write_reference(network, inputs, path),
    )


def _teacher(workspace: _Workspace, teacher: LoadedModel, images: str) -> ExportItem:
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
        delivery=Delivery(),
        write_reference=lambda network, path: workspace.write_reference(network, inputs, path),
    )


def _source(workspace: _Workspace, network: nn.Module, model: LoadedModel, student: Delivery | None) -> Source:
    """The network as fp32 ONNX, and of the `student` the training images that quantization may look at."""
    profile, preprocess, progress = workspace.profile, model.preprocess, workspace.progress
    role = "teacher" if student is None else "student"
    progress.note(f"exporting the {role} ({model.weights.architecture}) to ONNX opset {profile.opset}")
    onnx_file = workspace.root / ("teacher" if student is None else ".") / "model.onnx"
    torch.manual_seed(0)
    metadata = metadata_of(model, workspace.record, student is not None)
    batch = None if student is not None and student.dynamic_batch else profile.batch
    to_onnx(network, preprocess.inputs, batch, profile.opset, metadata, onnx_file)
    part = part_of(workspace.data.train, 0)
    if student is not None and profile.asks_for("int8"):
        part = part_of(workspace.data.train, CALIBRATION)
        if len(part) < max(FEWEST, profile.batch):
            raise KdcError(
                f"{len(part)} training images are too few for the calibration of int8: at least "
                f"{max(FEWEST, profile.batch)} are needed",
                "give more training data, or leave int8 out: --precision …",
            )
    calibration = workspace.task.store(part, preprocess, workspace.work / f"{role}-calibration.npy", progress)
    return Source(network, onnx_file, preprocess, calibration, profile)


def _judge(workspace: _Workspace, network: nn.Module, student: LoadedModel, record: Student) -> ValidationJudge:
    preprocess, profile = student.preprocess, workspace.profile
    validation = part_of(workspace.data.validation, validation_size(preprocess))
    answers = workspace.work / "validation_reference.npy"
    inputs = workspace.task.store(validation, preprocess, workspace.work / "validation.npy", workspace.progress)
    write_reference(network, inputs, answers, workspace.progress)
    reference = np.load(answers)
    right = int((reference.argmax(axis=1) == validation.labels).sum())
    return ValidationJudge(
        inputs,
        validation.labels,
        reference,
        batch=profile.batch,
        threads=profile.threads,
        needed=needed(profile, right, len(validation), record.teacher_validation),
        max_drop=AIM * profile.max_drop,
    )


def validation_size(preprocess: Preprocess) -> int:
    """How many validation samples of that size choices are made on, where there are so many."""
    return min(VALIDATION, VALIDATION_VALUES // preprocess.cost)


def needed(profile: Profile, right: int, n: int, teacher: Accuracy | None) -> float:
    """How many of `n` validation samples an int8 student must have right, where the one in fp32 has `right`.

    It may lose AIM of `max_drop`, or one sample; and it may not fall below the retention that the budget asks for, if
    fp32 reaches that.
    """
    floor = right - max(1.0, AIM * profile.max_drop * n)
    retention = profile.budget.min_retention
    kept = retention * teacher.accuracy * n if retention is not None and teacher is not None else 0.0
    return max(floor, kept) if right >= kept else floor


def _retraining(
    workspace: _Workspace, batch: int | None, retrain: Retrain | None
) -> Callable[[Scheme], QatModel | None]:
    """The top rung: the student trained on, once for each way of rounding; None where it may not be."""
    made: dict[Scheme, QatModel] = {}

    def trained(scheme: Scheme) -> QatModel | None:
        if retrain is not None and scheme not in made:
            folder = workspace.work / f"qat-{scheme.activations}-{scheme.weight_bits}"
            made[scheme] = qat_model(retrain(scheme), workspace.profile, batch, folder)
        return made.get(scheme)

    return trained
