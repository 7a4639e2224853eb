"""`kdc specialists`: a generalist's confusable classes in groups, and a specialist trained for each (Hinton, Vinyals &
Dean 2015, arXiv 1503.02531, sec. 5). Together they are a teacher, `specialists:DIR`.

    DIR/run.json           what was asked for
        recipe.yaml        how each is trained, as it was resolved
        specialists/1 …    a run each, made by kdc teach --specialty, and 1.log …, what it said
        specialists.json   written last
"""

import copy
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from compressor.data.labels import listed
from compressor.data.samples import Dataset, Split
from compressor.data.specialty import specialised, specialty_classes
from compressor.distill.api import made_from_weights
from compressor.distill.host.subprocesses import Child, train_in_processes
from compressor.distill.loop.learner import bind_losses
from compressor.distill.methods.grouping import groups_of
from compressor.distill.methods.predict import answers_of
from compressor.distill.overlap import tell_overlap, with_notes
from compressor.distill.run_files import SPECIALISTS
from compressor.distill.run_folder import Destination, acquired, discard_backup, start
from compressor.distill.teacher.card import tell_lost_classes
from compressor.distill.teacher.gap import points_apart
from compressor.distill.teacher.setup import at_chance, scored
from compressor.distill.trainer import log_sizes
from compressor.errors import KdcError
from compressor.files.atomic import write_text
from compressor.models import LoadedModel, load_model, load_run, map_classes, with_classes
from compressor.models.lineage import told
from compressor.models.lookup import require_model
from compressor.models.specialists import joined
from compressor.processes.launcher import world_size
from compressor.processes.python import kdc_command
from compressor.progress import Progress
from compressor.references import TRAINABLE
from compressor.schema.accuracy import accuracy_in
from compressor.schema.base import read_json, write_json
from compressor.schema.recipe import Transfer
from compressor.schema.specialists import Specialist, Specialists, SpecialistsRequest
from compressor.schema.student import Student
from compressor.stats import accuracy_of, top1
from compressor.tasks.table import task_named

__all__ = ["specialists"]


def specialists(request: SpecialistsRequest, out: Destination, *, jobs: int, progress: Progress) -> Specialists:
    """Group the classes by what the generalist confuses on the validation split, and train a specialist a group, `jobs`
    at a time. Classes that it hardly confuses stay with it alone.

    Raises KdcError before any training where the generalist is at chance level or cannot be trained on, where there
    cannot be so many groups, or where specialists would see images otherwise than it does.
    """
    if world_size() > 1:
        raise KdcError("kdc specialists starts processes of its own", "run it without a launcher; --jobs says how many")
    with acquired(out, request, progress) as finished:
        if finished:
            progress.note(f"{out.folder} is finished already: nothing to resume")
            discard_backup(out.folder, SPECIALISTS)
            return read_json(out.folder / "specialists.json", Specialists)
        return _specialists(request, out, jobs, progress)


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is to be trained: `classes` of each specialist, and those left `alone`, as the `generalist` confuses them.
    `logits`: its answers to the validation split, [N, classes]."""

    data: Dataset
    generalist: LoadedModel
    logits: NDArray[np.float32]
    classes: tuple[tuple[str, ...], ...]
    alone: tuple[str, ...]


def _specialists(request: SpecialistsRequest, out: Destination, jobs: int, progress: Progress) -> Specialists:
    folder, plan = out.folder, _planned(request, progress)
    if out.resume:
        _require_same(request, folder, plan)
    start(out, request)
    write_text(folder / "recipe.yaml", request.recipe.model_dump_json(indent=2) + "\n")
    children = [_child(request, folder, number, group, jobs) for number, group in enumerate(plan.classes, 1)]
    train_in_processes(children, jobs, progress)
    return _finish(request, folder, plan, progress)


def _planned(request: SpecialistsRequest, progress: Progress) -> _Plan:
    """Open the data, measure the generalist, and group the classes; said for people."""
    bind_losses(request.recipe, has_teacher=False)
    if request.recipe.transfer != Transfer():
        raise KdcError("specialists draw their own parts of the training data: recipe transfer cannot cut it too")
    require_model(request.teacher, TRAINABLE, request.input_size)
    deep = request.recipe.pixel_range
    task = task_named(request.task)
    data = task.open_data(request.data, skip_bad=request.skip_bad, progress=progress, pixel_range=deep)
    log_sizes(data, progress)
    data = with_notes(data, tell_overlap((request.teacher,), data, progress))
    names = data.info.class_names
    (generalist,) = told(progress, load_model(request.teacher, request.input_size))
    generalist = task.with_range(generalist, deep, progress)
    if generalist.class_names is None:
        raise KdcError(
            f"the classes of {request.teacher} have no names, so they cannot be matched with those of the data",
            f"fine-tune it on your classes first: kdc teach --teacher {request.teacher} --data … --out teacher",
        )
    _require_trainable(generalist, request, names[:2])
    logits = _measured(request.teacher, generalist, data, progress)
    groups, rest = groups_of(torch.from_numpy(logits).double().softmax(-1).numpy(), request.count)
    classes = tuple(specialty_classes([names[number] for number in group], names) for group in groups)
    for number, group in enumerate(classes, 1):
        progress.note(f"specialist {number}: {listed(group, 20)}")
    alone = tuple(names[number] for number in rest)
    progress.note(f"with the generalist alone: {listed(alone) or 'none'}")
    return _Plan(data, generalist, logits, classes, alone)


def _measured(reference: str, generalist: LoadedModel, data: Dataset, progress: Progress) -> NDArray[np.float32]:
    """The generalist's logits for the validation split, [N, classes]; raises KdcError where it is at chance level."""
    names = data.info.class_names
    classifier = with_classes(generalist, map_classes(generalist, names), names)
    logits = _answers(classifier, data.validation, "the generalist's answers", progress)
    score = accuracy_of(logits, data.validation.labels, "validation")
    progress.note(f"generalist {reference}: {scored(score)}")
    if (said := at_chance(score, len(names))) is not None:
        raise KdcError(
            f"generalist {reference} {said}",
            f"fine-tune it first: kdc teach --teacher {reference} --data … --out teacher",
        )
    return logits


def _finish(request: SpecialistsRequest, out: Path, plan: _Plan, progress: Progress) -> Specialists:
    """Measure all of them together, and write specialists.json."""
    data, generalist = plan.data, plan.generalist
    names, labels = data.info.class_names, data.validation.labels
    rows, experts = [], []
    for number, group in enumerate(plan.classes, 1):
        model, student = load_run(out / "specialists" / str(number))
        assert student.specialty is not None
        experts.append((model, student.specialty))
        run, sha256 = f"specialists/{number}", student.weights.sha256
        rows.append(Specialist(classes=group, run=run, sha256=sha256, validation=accuracy_in(student.validation)))
    all_together = joined(generalist, experts, names, f"specialists:{out}")
    classifier = with_classes(generalist, map_classes(generalist, names), names)
    together = _answers(all_together, data.validation, "all together", progress)
    record = Specialists(
        task=request.task,
        generalist=classifier.weights.model_copy(update={"source": request.teacher}),
        input_size=request.input_size,
        class_names=names,
        specialists=tuple(rows),
        alone=plan.alone,
        data=data.info,
        recipe=request.recipe,
        generalist_validation=accuracy_of(plan.logits, labels, "validation"),
        validation=accuracy_of(together, labels, "validation"),
    )
    apart = points_apart(top1(together) == labels, top1(plan.logits) == labels, "the generalist alone")
    progress.note(f"all together: {scored(record.validation)}; {apart}")
    tell_lost_classes("all together they", [record.validation], names, progress)
    write_json(out / "specialists.json", record)
    discard_backup(out, SPECIALISTS)
    return record


def _require_trainable(generalist: LoadedModel, request: SpecialistsRequest, names: Sequence[str]) -> None:
    """Make a specialist once, without keeping it: what is refused then is refused before anything was trained."""
    task = task_named(generalist.preprocess.task)
    trainee = task.create_trainee(copy.deepcopy(generalist), names, request.recipe.crop_pct)
    if trainee.preprocess != generalist.preprocess:
        raise KdcError(
            f"crop_pct {request.recipe.crop_pct} would show specialists other images than their generalist sees",
            "leave crop_pct out: they take their generalist's preprocessing",
        )


def _require_same(request: SpecialistsRequest, out: Path, plan: _Plan) -> None:
    """The specialists that are finished must have been made from this data and this generalist."""
    for number, group in enumerate(plan.classes, 1):
        record = out / "specialists" / str(number) / "student.json"
        if not record.is_file():
            continue
        student, now = read_json(record, Student), specialised(plan.data, group, request.recipe.seed)[0].info
        made_from = made_from_weights(request.teacher, plan.generalist)
        if (student.data.fingerprint, student.init) != (now.fingerprint, made_from):
            raise KdcError(
                f"--resume: since specialist {number}/{request.count} was trained, the data or the generalist changed",
                "put it back as it was, or start again with --overwrite",
            )


def _answers(model: LoadedModel, split: Split, doing: str, progress: Progress) -> NDArray[np.float32]:
    """Logits [N, classes] for all of a split."""
    answers = [logits for _, _, logits in answers_of(model, split, doing, progress)]
    model.network.cpu()
    return np.concatenate(answers)


def _child(request: SpecialistsRequest, out: Path, number: int, classes: Sequence[str], jobs: int) -> Child:
    folder = out / "specialists" / str(number)
    # Half of what is free is for all of them.
    space = shutil.disk_usage(out).free // (2 * jobs)
    size = ["--input-size", str(request.input_size)] if request.input_size is not None else []
    command = kdc_command(
        "teach", "--teacher", request.teacher, "--data", request.data,
        *(part for name in classes for part in ("--specialty", name)), "--recipe", str(out / "recipe.yaml"),
        *size, *(["--skip-bad"] if request.skip_bad else []), "--decode-cache", f"{space}B", "--out", str(folder),
    )  # fmt: skip
    name = f"specialist {number}/{request.count}"
    return Child(name, tuple(command), folder, folder.with_name(f"{number}.log"), request.recipe.epochs)
