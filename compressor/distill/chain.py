"""From a large teacher to a small student by way of assistants (Mirzadeh et al. 2020, arXiv 1902.03393).

    teacher -> RUN/assistants/1 -> RUN/assistants/2 -> … -> RUN

Each learns by the same recipe from the same data, and then teaches the next. An assistant of the student's own kind
makes it a born-again network (Furlanello et al. 2018, arXiv 1805.04770). What the student is held against stays the
teacher that the chain began with: that is whose accuracy the user wants to keep.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from compressor.data.sources import find
from compressor.distill.folder import start
from compressor.distill.job import Origin
from compressor.distill.jobs import DEFAULT_INPUT_SIZE, already_finished, claimed, distill, distillation
from compressor.distill.layers import sides_of
from compressor.distill.learner import bind_losses
from compressor.distill.processes import team
from compressor.distill.resources import Resources
from compressor.distill.training import train_and_save
from compressor.errors import KdcError
from compressor.models import LoadedModel, create_student, load_run
from compressor.models.lineage import load_teacher
from compressor.models.references import NO_MODEL, is_table
from compressor.progress import Progress, Silent
from compressor.spec.recipe import Ensemble
from compressor.spec.student import Request, Student, Weights

__all__ = ["distill_chain"]


def distill_chain(
    request: Request,
    out: Path,
    *,
    resume: bool,
    overwrite: bool,
    progress: Progress,
    resources: Resources | None = None,
) -> Student:
    """Distill as `distill` does, by way of `request.assistants`. Interrupted anywhere, it goes on with `resume`: an
    assistant that is finished is not trained again.

    Raises KdcError before the first is trained for whatever would stop a later one.
    """
    if not request.assistants:
        return distill(request, out, resume=resume, overwrite=overwrite, progress=progress, resources=resources)
    assert request.qat is None, "qat.distill_quantized goes on from the student in float"
    _require_chain(request)
    if claimed(out, request, resume=resume, overwrite=overwrite):
        return already_finished(out, progress)
    _require_possible(request)
    if team().is_main_process:
        start(out, request, resume=resume)
    team().wait_for_everyone()
    try:
        records, assistants = _assistants(request, out, progress, resources)
    except BaseException:
        if not resume and team().is_main_process and not any((out / "assistants").glob("[0-9]*")):
            shutil.rmtree(out, ignore_errors=True)
        raise
    last = _link(request, len(request.assistants), out)
    progress.note(f"the student: {request.student} learns from {last.teacher}")
    job = distillation(last, progress)
    if job.data.info.fingerprint != records[-1].data.fingerprint:
        raise KdcError(
            "--resume: since the assistants were trained, the data changed",
            "put it back as it was, or start again with --overwrite",
        )
    teacher, validation = records[0].teacher, records[0].teacher_validation
    assert teacher is not None
    assert validation is not None
    job = replace(job, request=request, origin=Origin(teacher, validation, tuple(assistants)))
    return train_and_save(job, out, True, resources or Resources(), progress)


def _assistants(
    request: Request, out: Path, progress: Progress, resources: Resources | None
) -> tuple[list[Student], list[Weights]]:
    """Train those that are not finished; their records, and whose weights they are."""
    records, weights = [], []
    for number, name in enumerate(request.assistants):
        link, folder = _link(request, number, out), _folder(out, number)
        progress.note(f"assistant {number + 1} of {len(request.assistants)}: {name} learns from {link.teacher}")
        begun = folder.is_dir() and any(folder.iterdir())
        records.append(distill(link, folder, resume=begun, overwrite=False, progress=progress, resources=resources))
        weights.append(load_run(folder)[0].weights)
    return records, weights


def _folder(out: Path, number: int) -> Path:
    return out / "assistants" / str(number + 1)


def _link(request: Request, number: int, out: Path) -> Request:
    """The distillation into assistant `number` (from 0), or after the last into the student."""
    changes: dict[str, object] = {"assistants": ()}
    if number < len(request.assistants):
        changes["student"] = request.assistants[number]
    if number > 0:
        recipe = request.recipe.model_copy(update={"ensemble": Ensemble()})
        taught_by = {"teacher": f"run:{_folder(out, number - 1)}", "other_teachers": (), "teacher_classes": None}
        changes |= {**taught_by, "recipe": recipe}
    return request.model_copy(update=changes)


def _require_chain(request: Request) -> None:
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


def _require_possible(request: Request) -> None:
    """Make every model of the chain once, and find the layers that losses look at; nothing is kept."""
    terms = bind_losses(request.recipe, has_teacher=True)
    found = find(request.data, Silent())
    names, size = found.class_names, request.input_size or DEFAULT_INPUT_SIZE
    teacher: LoadedModel | None = load_teacher(request, names)
    samples = len(found.parts["train"].ids)
    students: Sequence[str] = [*request.assistants, str(request.student)]
    for name in students:
        student = create_student(name, request.init, names, size, request.recipe.crop_pct)
        sides_of(terms, student, teacher, classes=len(names), samples=samples)
        teacher = student
