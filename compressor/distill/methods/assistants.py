"""From a large teacher to a small student by way of assistants (Mirzadeh et al. 2020, arXiv 1902.03393).

    teacher -> RUN/assistants/1 -> RUN/assistants/2 -> … -> RUN

Each learns by the same recipe from the same data, and then teaches the next. An assistant of the student's own kind
makes it a born-again network (Furlanello et al. 2018, arXiv 1805.04770). What the student is held against stays the
teacher that the chain began with: that is whose accuracy the user wants to keep.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from compressor.data.samples import Dataset
from compressor.distill.api import (
    already_finished,
    distill,
    distillation,
    has_teacher,
    training_data,
)
from compressor.distill.features.layers import layer_pairs_of
from compressor.distill.host.resources import Resources
from compressor.distill.loop.learner import bind_losses
from compressor.distill.methods.arms import has_arms
from compressor.distill.methods.bias_correction import require_correctable
from compressor.distill.methods.race import distill_raced, require_raceable
from compressor.distill.plan import Origin
from compressor.distill.run_folder import Destination, acquired, rollback, start
from compressor.distill.trainer import train_and_save
from compressor.errors import KdcError
from compressor.models import LoadedModel, load_run, map_classes, with_classes
from compressor.models.lineage import load_teacher
from compressor.models.prediction_table import require_alone
from compressor.models.references import NO_MODEL, is_table
from compressor.processes.team import team
from compressor.progress import Progress, Silent
from compressor.schema.recipe import Ensemble
from compressor.schema.student import DataInfo, Request, Student, Weights
from compressor.tasks.table import task_named

__all__ = ["distill_chain", "require_chain", "require_possible"]


def distill_chain(
    request: Request,
    out: Destination,
    *,
    progress: Progress,
    resources: Resources | None = None,
    data: Dataset | None = None,
) -> Student:
    """Distill as `distill` does, by way of `request.assistants`, or after `request.race`. Interrupted anywhere,
    it goes on with `resume`: an assistant that is finished is not trained again.

    `data`: where `require_possible` has opened it already. Raises KdcError before the first is trained for whatever
    would stop a later one.
    """
    if request.race is not None or has_arms(request):
        return distill_raced(request, out, progress=progress, resources=resources, data=data)
    if not request.assistants:
        return distill(request, out, progress=progress, resources=resources, data=data)
    assert request.qat is None, "qat.distill_quantized goes on from the student in float"
    require_chain(request)
    with acquired(out, request, progress) as finished:
        if finished:
            return already_finished(out.folder, progress)
        return _chained(request, out, progress, resources, data)


def _chained(
    request: Request, out: Destination, progress: Progress, resources: Resources | None, data: Dataset | None
) -> Student:
    if data is None:
        data = require_possible(request, progress)
    folder = out.folder
    if out.resume:
        _require_same(request, folder, data)
    if team().is_main_process:
        start(out, request)
    team().wait_for_everyone()
    try:
        records, assistants = _assistants(request, folder, data, progress, resources)
    except BaseException:
        if not out.resume and team().is_main_process and not any((folder / "assistants").glob("[0-9]*")):
            rollback(folder)
        raise
    last = _link(request, len(request.assistants), folder)
    progress.note(f"the student: {request.student} learns from {last.teacher}")
    plan = distillation(last, progress, data)
    teacher, validation = records[0].teacher, records[0].teacher_validation
    assert teacher is not None
    assert validation is not None
    plan = replace(plan, request=request, origin=Origin(teacher, validation, tuple(assistants)))
    return train_and_save(plan, replace(out, resume=True), resources or Resources(), progress)


def _assistants(
    request: Request, out: Path, data: Dataset, progress: Progress, resources: Resources | None
) -> tuple[list[Student], list[Weights]]:
    """Train those that are not finished; their records, and whose weights they are."""
    records, weights = [], []
    for number, name in enumerate(request.assistants):
        link, folder = _link(request, number, out), _folder(out, number)
        progress.note(f"assistant {number + 1} of {len(request.assistants)}: {name} learns from {link.teacher}")
        to = Destination(folder, resume=(folder / "run.json").is_file())
        record = distill(link, to, progress=progress, resources=resources, data=data)
        records.append(record)
        weights.append(load_run(folder)[0].weights)
    return records, weights


def _folder(out: Path, number: int) -> Path:
    return out / "assistants" / str(number + 1)


def _link(request: Request, number: int, out: Path) -> Request:
    """The distillation into assistant `number` (from 0), or after the last into the student."""
    changes: dict[str, object] = {"assistants": (), "control": False}
    if number < len(request.assistants):
        changes["student"] = request.assistants[number]
    if number > 0:
        recipe = request.recipe.model_copy(update={"ensemble": Ensemble()})
        taught_by = {"teacher": f"run:{_folder(out, number - 1)}", "other_teachers": (), "teacher_classes": None}
        changes |= {**taught_by, "recipe": recipe}
    return request.model_copy(update=changes)


def require_chain(request: Request) -> None:
    require_alone(request)
    if request.teacher in NO_MODEL:
        raise KdcError(
            f"--assistant stands between a teacher and the student, and --teacher {request.teacher} is no model apart "
            "from the student",
            "give another --teacher, or leave --assistant out",
        )
    if is_table(request.teacher):
        raise KdcError(
            f"--assistant stands between a model and the student, and {request.teacher} is a table of answers",
            "in two commands: distill the assistant from the table, then --teacher run:ASSISTANT",
        )
    if request.init not in ("pretrained", "random"):
        raise KdcError(
            f"--student-init {request.init} is the student's alone, and assistants start as it does",
            "--student-init pretrained or random, or distill in two commands: --teacher run:ASSISTANT",
        )


def require_possible(request: Request, progress: Progress, data: Dataset | None = None) -> Dataset:
    """Open the data (or take it, where it is open), make every model of the chain once (without assistants: of the
    distillation), and find the layers that losses look at. Only the data is kept. Raises KdcError for whatever would
    stop a training later; changes nothing."""
    recipe = request.recipe
    if request.race is not None:
        return require_raceable(request, progress, data)
    if request.assistants:
        require_chain(request)
    require_alone(request)
    terms = bind_losses(recipe, has_teacher=has_teacher(request))
    data = data or training_data(request, terms, progress)
    if not request.assistants:
        distillation(request, Silent(), data)
        return data
    names, task = data.info.class_names, task_named(request.task)
    teacher: LoadedModel | None = load_teacher(request, names)
    students: Sequence[str] = [*request.assistants, str(request.student)]
    for name in students:
        student = task.create_student(name, request.init, names, request.input_size, recipe.crop_pct, teacher)
        student = task.fitted(student, data, request.input_size, Silent())
        if recipe.transfer.correct_bias:
            require_correctable(student, data, recipe.transfer)
        layer_pairs_of(terms, student, teacher, classes=len(names), samples=len(data.train))
        teacher = student
    return data


def _require_same(request: Request, out: Path, data: Dataset) -> None:
    """The finished assistants must have learned from this teacher and these data."""
    folders = [_folder(out, number) for number in range(len(request.assistants))]
    records = [load_run(folder)[1] for folder in folders if (folder / "student.json").is_file()]
    changed = []
    if any(_fingerprints(record.data) != _fingerprints(data.info) for record in records):
        changed.append("the data")
    if records and (folders[0] / "student.json").is_file():
        teacher = load_teacher(request, data.info.class_names)
        before = records[0].teacher
        if teacher is None or before is None or teacher.weights.changed_from(before) is not None:
            changed.append("the teacher")
    changed += [f"assistant {number}" for number in range(1, len(records)) if _is_other(folders, number, records)]
    if changed:
        raise KdcError(
            f"--resume: since the assistants were trained, {' and '.join(changed)} changed",
            "put it back as it was, or start again with --overwrite",
        )


def _is_other(folders: Sequence[Path], number: int, records: Sequence[Student]) -> bool:
    """Whether assistant `number` is not what the one after it learned from: somebody changed its folder."""
    model, _ = load_run(folders[number - 1])
    names, taught = records[number].class_names, records[number].teacher
    model = with_classes(model, map_classes(model, names) if names else (), names)
    return taught is None or model.weights.changed_from(taught) is not None


def _fingerprints(info: DataInfo) -> tuple[str, str | None]:
    return info.fingerprint, info.unlabelled.fingerprint if info.unlabelled else None
