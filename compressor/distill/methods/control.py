"""What distillation gains: the same student is trained on labels alone too, and both are held against each other.

    RUN            the student, as without a control; whole before its control begins
    RUN/control    the same network from the same start, seed, views, optimizer and steps; only the labels teach it

The gain is the difference of their accuracies, paired by sample, on validation and on test. Each is measured on test
once, at its end, and nothing is chosen by the difference.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from compressor.data.samples import Dataset
from compressor.distill.api import already_finished, has_teacher, training_data
from compressor.distill.host.resources import Resources
from compressor.distill.loop.learner import bind_losses
from compressor.distill.methods.assistants import distill_chain, require_possible
from compressor.distill.methods.qat import distill_quantized
from compressor.distill.run_folder import Destination, acquire, acquired
from compressor.distill.stages import steps_before
from compressor.errors import KdcError
from compressor.models import load_run
from compressor.models.compared import Right, read_right
from compressor.models.runs import read_student
from compressor.processes.interruption import uninterrupted
from compressor.processes.team import team
from compressor.progress import Muted, Progress
from compressor.references import CUT
from compressor.schema.accuracy import Gain, accuracy_in
from compressor.schema.base import write_json
from compressor.schema.recipe import Ensemble, LossTerm, TeacherAnswers
from compressor.schema.student import Request, Student
from compressor.stats import advantage, gain_line, gained_interval
from compressor.tasks.plain_feed import batch_size_of

__all__ = ["control_of", "distill_controlled", "require_comparable", "require_controllable"]

FOLDER = "control"


def distill_controlled(
    request: Request,
    out: Destination,
    *,
    progress: Progress,
    resources: Resources | None = None,
    data: Dataset | None = None,
) -> Student:
    """Distill as without `request.control`; then train the control, and write the gain into student.json.

    Interrupted anywhere, it goes on with `resume`: a student that is whole is not trained again. `data`: where the
    caller has opened it already. Raises KdcError before anything is trained for whatever would stop the control.
    """
    assert request.control
    require_comparable(request)
    if acquire(out, request):
        with acquired(out, request, progress):  # a kill may have left its lock
            return already_finished(out.folder, progress)
    if not (out.resume and (out.folder / "student.json").is_file()):
        data = data if out.resume else require_controllable(request, progress, data)
        _train(request, out, progress, resources, data)
        data = None  # the control's is another
    with acquired(replace(out, resume=True), request, progress):
        return _controlled(request, out.folder, progress, resources)


def control_of(request: Request, student: str | None, steps_per_epoch: int) -> Request:
    """The request of the control of `student`: only the labels teach it, as the recipe's cross_entropy would with
    weight 1."""
    recipe = request.recipe
    given = next((term for term in recipe.losses if term.name == "cross_entropy"), LossTerm(name="cross_entropy"))
    alone = recipe.model_copy(
        update={
            "losses": (given.model_copy(update={"weight": 1.0}),),
            "peers": (),
            "stages": (),
            "epochs": recipe.epochs_in_all,
            "ensemble": Ensemble(),
            "teacher_answers": TeacherAnswers(),
        }
    )
    changes = {
        "teacher": "self",
        "other_teachers": (),
        "teacher_classes": None,
        "student": student,
        "race": None,
        "assistants": (),
        "unlabelled": None,
        "recipe": alone,
        "regime": None,
        "control": False,
        "steps_per_epoch": steps_per_epoch,
    }
    return request.model_copy(update=changes)


def _train(
    request: Request, out: Destination, progress: Progress, resources: Resources | None, data: Dataset | None
) -> Student:
    train = distill_chain if request.qat is None else distill_quantized
    return train(request, out, progress=progress, resources=resources, data=data)


def require_comparable(request: Request) -> None:
    """Raise KdcError where the student would learn as its control does, or sees what the control could not."""
    if request.recipe.views.word_replacement:
        raise KdcError(
            "--control: views.word_replacement asks the teacher, and a control has none",
            "leave one of them out; views.token_dropping needs no teacher",
        )
    terms = bind_losses(request.recipe, has_teacher=has_teacher(request))
    if all(term.row.knowledge == "labels" for term in terms):
        names = ", ".join(term.name for term in terms)
        raise KdcError(
            f"--control trains on labels alone, and so does the recipe ({names}): there is nothing to compare",
            "leave --control out, or add kd to its losses",
        )


def require_controllable(request: Request, progress: Progress, data: Dataset | None = None) -> Dataset:
    """The data, once it is known that neither the student nor its control will be stopped. Raises KdcError."""
    require_comparable(request)
    data = require_possible(request.model_copy(update={"qat": None}), progress, data)
    batch_size_of(request.recipe, int((data.train.labels >= 0).sum()), team().num_processes)
    return data


def _controlled(request: Request, folder: Path, progress: Progress, resources: Resources | None) -> Student:
    record = read_student(folder)
    taught = read_right(folder, record)
    assert record.steps_per_epoch is not None
    same = request.recipe.model_copy(update={"views": record.recipe.views})
    ask = control_of(
        request.model_copy(update={"recipe": same}), _student_of(request, folder, record), record.steps_per_epoch
    )
    if any(stage.data is not None for stage in request.recipe.stages):  # their epochs have other steps
        epochs = request.recipe.epochs + math.ceil(steps_before(folder) / record.steps_per_epoch)
        ask = ask.model_copy(update={"recipe": ask.recipe.model_copy(update={"epochs": epochs})})
    if ask.student is not None and ask.student.startswith(CUT):
        last = f"run:{folder / 'assistants' / str(len(request.assistants))}"
        ask = ask.model_copy(update={"cut_from": last if request.assistants else request.teacher})
    terms = bind_losses(ask.recipe, has_teacher=True)
    data = training_data(ask, terms, Muted(progress))
    _require_same(data, record, taught)
    epochs = ask.recipe.epochs + (ask.recipe.qat.epochs if ask.qat is not None else 0)
    samples, steps = len(data.train), epochs * record.steps_per_epoch
    _say_control(ask, samples, steps, progress)
    beside = folder / FOLDER
    control = _train(ask, Destination(beside, resume=(beside / "run.json").is_file()), progress, resources, data)
    plain = read_right(beside, control)
    gains = [advantage(taught[name]["right"], plain[name]["right"], name) for name in ("validation", "test")]
    gain = Gain(
        validation=gains[0], test=gains[1], control_validation=accuracy_in(control.validation),
        control_test=accuracy_in(control.test),
        control_sha256=control.weights.sha256, steps=steps, samples=samples,
    )  # fmt: skip
    for counted in gains:
        progress.note(gain_line(gained_interval(counted), counted.split))
    if team().is_main_process:
        with uninterrupted():
            write_json(folder / "student.json", record.model_copy(update={"gain": gain}))
    team().wait_for_everyone()
    return load_run(folder)[1]


def _student_of(request: Request, folder: Path, record: Student) -> str | None:
    """As the user named it, or as it won its race, which is kept where the student was trained in float."""
    if request.race is None:
        return request.student
    race = record.race if request.qat is None else read_student(folder / "float").race
    assert race is not None
    return race.winner


def _say_control(ask: Request, samples: int, steps: int, progress: Progress) -> None:
    batch, _ = batch_size_of(ask.recipe, samples, team().num_processes)
    passes = "" if samples // batch == ask.steps_per_epoch else ", over and over: an epoch is as long as the student's"
    progress.note(
        f"the control: {ask.student} learns from the labels of {samples:,} samples alone, for as many steps as the "
        f"student ({steps:,}){passes}"
    )


def _require_same(data: Dataset, record: Student, taught: Right) -> None:
    """Both are held against each other on the same samples, and learned from the same."""
    same = data.info.fingerprint == record.data.fingerprint
    for name in ("validation", "test"):
        same = same and np.array_equal(getattr(data, name).contents, taught[name]["content"])
    if not same:
        raise KdcError(
            "--resume: since the student was trained, the data changed, which its control is to be trained on",
            "put it back as it was, or start again with --overwrite",
        )
