"""`kdc distill` without --student: which students race, filled in before the run begins.

With a budget that latency, size or memory decide, and the device at hand, those that it admits; else the default one,
and that is said.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.schema.profile import Profile
from compressor.schema.race import Contender, RaceRequest
from compressor.schema.student import Request

if TYPE_CHECKING:
    from compressor.data.samples import Dataset
    from compressor.distill import Destination, RecipeAsked
    from compressor.students.contenders import Device

__all__ = ["Choosing", "settled", "with_contenders"]


@dataclass(frozen=True)
class Choosing:
    """For which `profile` a student is chosen, and on which device candidates are measured. `any_start`: neither
    pretrained nor random weights were asked for. `surgery`: networks changed for speed may run, too. `recipe`: it is a
    default, which goes by the data; None: the user's own."""

    profile: Profile | None = None
    device: str = "local"
    python: str | None = None
    any_start: bool = False
    surgery: bool = False
    recipe: "RecipeAsked | None" = None

    def asked(self, share: float | None) -> list[str]:
        """The options that say how to choose, and that were given. `share`: what all trials of a race may take."""
        options = {
            "--allow-surgery": self.surgery,
            "--device-python": self.python is not None,
            "--device": self.device != "local",
            "--race-share": share not in (None, RaceRequest().share),
        }
        return [name for name, given in options.items() if given]


def settled(
    request: Request, choosing: Choosing, out: "Destination", progress: Progress
) -> "tuple[Request, Dataset | None]":
    """`request` with who is trained, and how; and the data, where they had to be opened. Raises KdcError."""
    from compressor.distill import decided

    data = None
    if request.race is not None:
        request, data = with_contenders(request, choosing, out, progress)
    if choosing.recipe is not None:
        request, data = decided(request, choosing.recipe, out, progress, data)
    return request, data


def with_contenders(
    request: Request, choosing: Choosing, out: "Destination", progress: Progress
) -> "tuple[Request, Dataset | None]":
    """`request` with the students that race, or with the only one; and the data, where it had to be opened.

    A run that is resumed has them from its run.json. Raises KdcError for whatever would stop the race.
    """
    from compressor.distill.run_folder import acquire

    assert request.race is not None
    before = _before(request, choosing, out) if out.resume else None
    if before is not None:
        return before, None
    acquire(out, request)
    if request.race.named:
        return _with(
            request, tuple(Contender(student=name) for name in request.race.named), "named by --students"
        ), None
    why = _nothing_decides(choosing)
    if why is not None:
        return _default(request, choosing, why, progress), None
    return _measured(request, choosing, progress)


def _with(request: Request, contenders: tuple[Contender, ...], why: str) -> Request:
    assert request.race is not None
    race = request.race.model_copy(update={"contenders": contenders, "why": why})
    return request.model_copy(update={"race": race})


def _default(request: Request, choosing: Choosing, why: str, progress: Progress) -> Request:
    from compressor.tasks.table import TASKS

    assert request.race is not None
    if asked := choosing.asked(request.race.share):
        raise KdcError(
            f"{asked[0]} says how a student is chosen, and none is: {why}",
            "--profile NAME with a budget, or leave it out",
        )
    student = TASKS[request.task].student
    progress.note(f"student {student} (the default, {why}; --student names one, --students lets several race)")
    return request.model_copy(update={"student": student, "race": None})


def _before(request: Request, choosing: Choosing, out: "Destination") -> Request | None:
    """What the run that is resumed had filled in; None where no run has begun."""
    from compressor.schema.base import read_json

    path = out.folder / "run.json"
    if not path.is_file():
        return None
    earlier = read_json(path, Request)
    assert request.race is not None
    changes: dict[str, object] = {"init": earlier.init} if choosing.any_start else {}
    if earlier.race is None:
        named = request.race.named
        return None if named else request.model_copy(update={**changes, "student": earlier.student, "race": None})
    filled = {"contenders": earlier.race.contenders, "why": earlier.race.why}
    return request.model_copy(update={**changes, "race": request.race.model_copy(update=filled)})


def _nothing_decides(choosing: Choosing) -> str | None:
    """Why no measurement could tell which student to take; None where one can."""
    from compressor.measure.machine import this_machine
    from compressor.students.contenders import deciding

    profile = choosing.profile
    if profile is None:
        return "without --profile there is no budget"
    if not deciding(profile.budget):
        return f"the budget of {profile.name} has no line on latency, size or memory"
    if choosing.device == "local" and (differences := list(profile.differences(this_machine()))):
        return f"{profile.name} is not this machine ({differences[0]}), and --device names none"
    return None


def _measured(request: Request, choosing: Choosing, progress: Progress) -> "tuple[Request, Dataset]":
    """The contenders that the budget admits, for the classes of the data."""
    from compressor.distill.api import has_teacher, training_data
    from compressor.distill.loop.learner import bind_losses
    from compressor.distill.methods.race import require_one_process_to_race
    from compressor.hub import offline_if_unreachable
    from compressor.models.lineage import load_teacher
    from compressor.students import Wanted
    from compressor.students.contenders import choose_contenders
    from compressor.tasks.table import candidates_of

    profile = choosing.profile
    assert profile is not None
    if request.init not in ("pretrained", "random"):
        raise KdcError(
            f"--student-init {request.init} is of one network, and several would race",
            "name the student: --student timm:NAME",
        )
    require_one_process_to_race()
    device = _device(choosing)
    data = training_data(request, bind_losses(request.recipe, has_teacher=has_teacher(request)), progress)
    catalogue = candidates_of(request.task)
    teacher = load_teacher(request, data.info.class_names)
    if choosing.any_start:
        with offline_if_unreachable() as unreachable:
            if unreachable is not None:
                request = _at_random(request, f"the hub cannot be reached: {unreachable}", progress)
    names = [name for family in catalogue.CATALOGUE.values() for name in family]
    if request.init == "pretrained":
        names = [name for name in names if catalogue.has_weights(name)]
    wanted = Wanted(
        classes=len(data.info.class_names),
        input_sizes=(request.input_size or profile.input_size,),
        names=tuple(names),
        task=request.task,
        surgery=choosing.surgery,
    )
    beside = catalogue.as_candidate(teacher) if teacher is not None else None
    contenders, why = choose_contenders(profile, wanted, beside, device, progress)
    if choosing.any_start and request.init == "pretrained":
        request = _if_they_load(request, contenders, data, progress)
    return _with(request, contenders, why), data


def _device(choosing: Choosing) -> "Device":
    from compressor.measure.devices import parse_device, refuse_python_here
    from compressor.students.contenders import Device

    url = parse_device(choosing.device)
    refuse_python_here(url, choosing.python)
    return Device(url, choosing.python)


def _if_they_load(request: Request, contenders: tuple[Contender, ...], data: "Dataset", progress: Progress) -> Request:
    """`request`, or the same from random weights where those of a contender are not to be had."""
    from compressor.tasks.table import task_named

    names, crop = data.info.class_names, request.recipe.crop_pct
    for contender in contenders:
        try:
            task_named(request.task).create_student(contender.student, "pretrained", names, request.input_size, crop)
        except KdcError as error:
            return _at_random(request, error.message, progress)
    return request


def _at_random(request: Request, why: str, progress: Progress) -> Request:
    progress.warn(f"all students start from random weights, since {why}; --student-init pretrained insists")
    return request.model_copy(update={"init": "random"})
