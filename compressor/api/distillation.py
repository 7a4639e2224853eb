"""`kdc distill` and `kdc distill --precompute` as functions."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.api.call import Listener, StrPath, api_call, called_like, listener
from compressor.api.results import RunResult
from compressor.api.results_before import PlanResult
from compressor.api.values import (
    Assignments,
    assignments,
    optional_path,
    path_of,
    profile_of,
    recipe_of,
    several,
    text_of,
)
from compressor.errors import KdcError
from compressor.progress import Progress

if TYPE_CHECKING:
    from compressor.api.values import ProfileLike, RecipeLike
    from compressor.choice import Choosing
    from compressor.distill import Destination, RecipeAsked, Resources
    from compressor.schema.quantization import Scheme
    from compressor.schema.race import RaceRequest
    from compressor.schema.student import Request

__all__ = ["distill", "plan_distill", "precompute"]


@api_call
def distill(
    *,
    teacher: str | Sequence[str],
    data: str,
    out: StrPath,
    profile: "ProfileLike | None" = None,
    student: str | None = None,
    students: str | Sequence[str] | None = None,
    race_share: float = 0.5,
    race_losses: bool = True,
    allow_surgery: bool = False,
    device: str = "local",
    device_python: str | None = None,
    student_init: str | None = None,
    assistant: str | Sequence[str] | None = None,
    qat: bool = False,
    control: bool = False,
    teacher_classes: StrPath | None = None,
    unlabelled: str | None = None,
    recipe: "RecipeLike | None" = None,
    input_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    set: Assignments | None = None,
    skip_bad: bool = False,
    teacher_cache: StrPath | None = None,
    decode_cache: str | int | None = None,
    tracker: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | Progress = False,
) -> RunResult:
    """Train a small student to answer as the teacher does.

    Args:
        teacher: e.g. "run:DIR", "timm:NAME", "outputs:FILE", "self"; several: an ensemble.
        out: folder for the run, which `export` takes.
        profile: name, path or Profile: train at its input size, and for its budget.
        student: a timm model, "timm:NAME" or "timm:local-dir:PATH", changed where the name says so, as
            "timm:NAME+width0.5"; None: those that the budget admits race.
        students: who races instead, as `student`.
        race_share: how long all trials of a race may take together, in trainings.
        race_losses: try other weights of a default recipe's losses before the training, labels alone among them, where
            validation has 1,000 samples or more; that takes at most half as long as the training.
        allow_surgery: candidates changed for speed may race, too.
        device: where candidates are measured, "local", "ssh://[USER@]HOST[:PORT][/FOLDER]" or "adb:SERIAL[/FOLDER]".
        device_python: the interpreter on the device.
        student_init: "pretrained", "random", or the path of a checkpoint; None: pretrained, or random where the student
            is chosen and weights are not to be had.
        assistant: models between teacher and student, that learn first.
        qat: then train on under the fake quantization of the profile's int8 kernels.
        control: then train the same student on labels alone too, for the same steps; the result's `student.gain` says
            what distillation gained.
        teacher_classes: a file with the names of the teacher's outputs, one a line, where its weights have none.
        unlabelled: more images to learn from, without labels.
        teacher_cache: folder for the teacher's answers, or "off"; None: the user's cache folder.
        data, recipe, input_size, epochs, batch_size, seed, set, skip_bad, decode_cache, tracker, resume, overwrite,
            progress: see `teach`.

    Raises:
        KdcError: see `teach`.
    """
    from compressor import pipeline

    way = _prepared(locals())
    done = pipeline.distill(way.request, way.out, way.choosing, resources=way.resources, progress=way.heard)
    return RunResult(way.out.folder, done, way.heard.warnings)


@api_call
@called_like(distill)
def plan_distill(**keywords: Any) -> PlanResult:
    """What `distill` with the same keywords would do: checked, a few steps timed, nothing written where it would be.

    Args:
        keywords: those of `distill`.

    Raises:
        KdcError: see `distill`.
    """
    from compressor import planning

    way = _prepared(keywords)
    plan = planning.plan_distill(way.request, way.out, way.choosing, resources=way.resources, progress=way.heard)
    return PlanResult(plan, planning.to_text(plan), planning.exit_code(plan), way.heard.warnings)


@dataclass(frozen=True)
class _Way:
    """What the keywords of `distill` come to."""

    request: "Request"
    out: "Destination"
    choosing: "Choosing"
    resources: "Resources"
    heard: Listener


def _prepared(given: Mapping[str, Any]) -> _Way:
    """`given`: all keywords of `distill`."""
    from compressor.choice import Choosing
    from compressor.distill import Destination

    heard, profile, start = listener(given["progress"]), given["profile"], given["student_init"]
    asked = _Asked(
        several(given["teacher"], "--teacher"), text_of(given["data"], "--data"),
        _race(given["student"], given["students"], given["race_share"], profile), given["student"], start, profile,
        several(given["assistant"], "--assistant"), given["qat"],
        optional_path(given["teacher_classes"], "--teacher-classes"), given["unlabelled"], given["input_size"],
        given["skip_bad"], given["control"], given["race_losses"],
    )  # fmt: skip
    _refuse_without_choice(given)
    flags = {name: given[name] for name in ("epochs", "batch_size", "seed")}
    to = Destination(path_of(given["out"], "--out"), resume=given["resume"], overwrite=given["overwrite"])
    request, wanted = asked.request(recipe_of(given["recipe"]), flags, assignments(given["set"]), heard)
    device = None if profile is None else profile_of(profile)
    return _Way(
        request,
        to,
        Choosing(device, given["device"], given["device_python"], start is None, given["allow_surgery"], wanted),
        _resources(given["decode_cache"], given["teacher_cache"], given["tracker"]),
        heard,
    )


@api_call
def precompute(
    *,
    teacher: str | Sequence[str],
    data: str,
    out: StrPath,
    profile: "ProfileLike | None" = None,
    student: str | None = None,
    student_init: str | None = None,
    qat: bool = False,
    teacher_classes: StrPath | None = None,
    unlabelled: str | None = None,
    recipe: "RecipeLike | None" = None,
    input_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    set: Assignments | None = None,
    skip_bad: bool = False,
    teacher_cache: StrPath | None = None,
    decode_cache: str | int | None = None,
    tracker: str | None = None,
    progress: bool | Progress = False,
) -> None:
    """Compute and keep the teacher's answers to all that `distill` with the same keywords would ask; trains nothing.

    Args:
        out: the folder that `distill` will be given; nothing stays in it.
        teacher, data, …: see `distill`. The recipe must let views come again: `set={"views.distinct": 10}`.

    Raises:
        KdcError: see `teach`, and where nothing may be kept.
    """
    from compressor.distill import decided
    from compressor.distill import precompute as run

    heard, folder = listener(progress), path_of(out, "--out")
    asked = _Asked(
        several(teacher, "--teacher"), text_of(data, "--data"), None, student, student_init, profile, [], qat,
        optional_path(teacher_classes, "--teacher-classes"), unlabelled, input_size, skip_bad,
    )  # fmt: skip
    flags = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    request, wanted = asked.request(recipe_of(recipe), flags, assignments(set), heard)
    decide = None if wanted is None else lambda provisional: decided(provisional, wanted, None, heard)
    resources = _resources(decode_cache, teacher_cache, tracker)
    run(request, folder, progress=heard, resources=resources, decide=decide)


def _resources(decode_cache: str | int | None, teacher_cache: StrPath | None, tracker: str | None) -> "Resources":
    from compressor.distill import Resources

    kept = None if teacher_cache is None else str(path_of(teacher_cache, "--teacher-cache"))
    return Resources.of(decode_cache, kept, tracker)


@dataclass(frozen=True)
class _Asked:
    """What `distill` and `precompute` are asked for, but for the recipe; keywords as theirs."""

    teachers: list[str]
    data: str
    race: "RaceRequest | None"
    student: str | None
    student_init: str | None
    profile: "ProfileLike | None"
    assistants: list[str]
    qat: bool
    teacher_classes: Path | None
    unlabelled: str | None
    input_size: int | None
    skip_bad: bool
    control: bool = False
    race_losses: bool = False

    def request(
        self, recipe: Path | Mapping[str, Any] | None, flags: dict[str, int | None], sets: list[str], heard: Progress
    ) -> "tuple[Request, RecipeAsked | None]":
        """The same, wholly resolved; and what a default recipe is to be made of, once the data are open."""
        from compressor.distill.recipes import DEFAULT_STUDENT, RecipeAsked
        from compressor.schema.base import parse
        from compressor.schema.student import Request
        from compressor.tasks.table import name_for_data

        _refuse_teachers(self.teachers)
        race = None if self.teachers == ["peers"] and self.race and not self.race.named else self.race
        student, init = self.student or DEFAULT_STUDENT, self.student_init or "pretrained"
        if self.student is None and race is None:
            heard.note(f"student {student} (the default; choose another with --student)")
        input_size, scheme = self._for_device(heard)
        wanted = RecipeAsked(self.teachers, student, init, recipe, flags, sets, self.race_losses)
        values = {
            "task": name_for_data(self.data), "command": "distill",
            "teacher": self.teachers[0], "other_teachers": self.teachers[1:],
            "teacher_classes": str(self.teacher_classes) if self.teacher_classes else None,
            "student": student if race is None else None, "race": race, "init": init,
            "data": self.data, "unlabelled": self.unlabelled, "skip_bad": self.skip_bad,
            "input_size": input_size, "recipe": wanted.recipe(), "control": self.control,
            "qat": scheme() if self.qat else None, "assistants": self.assistants,
        }  # fmt: skip
        return parse(Request, values, "distill"), wanted if recipe is None else None

    def _for_device(self, heard: Progress) -> "tuple[int | None, Callable[[], Scheme]]":
        """The input size, and how the int8 kernels of the profile round."""
        from compressor import pipeline

        device = None if self.profile is None else profile_of(self.profile)
        size = self.input_size
        if device is not None:
            said = "of" if size in (None, device.input_size) else f"given; {device.input_size} is that of"
            size = size or device.input_size
            named = self.profile if isinstance(self.profile, str | os.PathLike) else device.name
            heard.note(f"input size {size} ({said} profile {named})")
        return size, lambda: pipeline.scheme_for(device, heard)


def _race(
    student: str | None, students: str | Sequence[str] | None, share: float, profile: "ProfileLike | None"
) -> "RaceRequest | None":
    """What races where no student is named. `students`: each text may hold several, with commas between them."""
    from compressor.schema.base import parse
    from compressor.schema.race import RaceRequest

    named = [name.strip() for text in several(students, "--students") for name in text.split(",")]
    if named and student is not None:
        raise KdcError("--student names one, and --students several that race", "give one of them")
    if student is not None:
        return None
    if not all(named) or len({*named}) < len(named):
        raise KdcError(
            f"--students {','.join(named)}: a name is empty, or stands there twice", "--students timm:A,timm:B"
        )
    device = None if profile is None else profile_of(profile).name
    return parse(RaceRequest, {"named": named, "profile": device, "share": share}, "--race-share")


def _refuse_without_choice(given: Mapping[str, Any]) -> None:
    """Raise KdcError for what is asked of a choice where there is none."""
    from compressor.choice import Choosing

    named = "--student names it" if given["student"] is not None else None
    if named is None and (given["students"] or "peers" in several(given["teacher"], "--teacher")):
        named = "--students names the field" if given["students"] else "with --teacher peers no student is chosen"
    share = None if given["students"] else given["race_share"]
    asked = Choosing(None, given["device"], given["device_python"], surgery=given["allow_surgery"]).asked(share)
    if named and asked:
        hint = "a change stands in the name: timm:NAME+relu" if asked[0] == "--allow-surgery" else "leave it out"
        raise KdcError(f"{asked[0]} is for candidates that kdc chooses among, and {named}", hint)


def _refuse_teachers(teachers: list[str]) -> None:
    if not teachers:
        raise KdcError("--teacher names none")
    for alone in ("self", "peers"):
        if alone in teachers and len(teachers) > 1:
            raise KdcError(f"--teacher {alone} stands alone: it cannot be part of an ensemble", "give one teacher")
    if len({*teachers}) < len(teachers):
        raise KdcError("the same --teacher is given twice", "ensemble.weights in the recipe weighs them")
