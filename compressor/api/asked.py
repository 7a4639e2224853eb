"""What `distill` and `precompute` are asked for, as a request."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.api.task import TaskAsked
from compressor.api.values import profile_of, several
from compressor.errors import KdcError
from compressor.progress import Progress

if TYPE_CHECKING:
    from compressor.api.values import ProfileLike
    from compressor.distill import RecipeAsked
    from compressor.schema.quantization import Scheme
    from compressor.schema.race import RaceRequest
    from compressor.schema.student import Request

__all__ = ["Asked", "race_of", "refuse_without_choice"]


@dataclass(frozen=True)
class Asked:
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
    task: TaskAsked
    skip_bad: bool
    control: bool = False
    race_losses: bool = False

    def request(
        self, recipe: Path | Mapping[str, Any] | None, flags: dict[str, int | None], sets: list[str], heard: Progress
    ) -> "tuple[Request, RecipeAsked | None]":
        """The same, wholly resolved; and what a default recipe is to be made of, once the data are open."""
        from compressor.distill.recipes import RecipeAsked
        from compressor.schema.base import parse
        from compressor.schema.student import Request
        from compressor.tasks.table import TASKS

        _refuse_teachers(self.teachers)
        task = self._task(heard)
        alone = self.teachers == ["peers"] or "--students" in TASKS[task].lacks
        race = None if alone and self.race and not self.race.named else self.race
        student, init = self.student or TASKS[task].student, self.student_init or "pretrained"
        if self.student is None and race is None:
            heard.note(f"student {student} (the default; choose another with --student)")
        input_size, scheme = self._for_device(task, heard)
        wanted = RecipeAsked(self.teachers, student, init, recipe, flags, sets, self.race_losses, task)
        values = {
            "task": task, "columns": self.task.columns, "command": "distill",
            "teacher": self.teachers[0], "other_teachers": self.teachers[1:],
            "teacher_classes": str(self.teacher_classes) if self.teacher_classes else None,
            "student": student if race is None else None, "race": race, "init": init,
            "data": self.data, "unlabelled": self.unlabelled, "skip_bad": self.skip_bad,
            "input_size": input_size, "recipe": wanted.recipe(), "control": self.control,
            "qat": scheme() if self.qat else None, "assistants": self.assistants,
        }  # fmt: skip
        request = parse(Request, values, "distill")
        self._refuse_unlicensed(request, heard)
        return request, wanted if recipe is None else None

    def _refuse_unlicensed(self, request: "Request", heard: Progress) -> None:
        """Raise KdcError where the profile rules a licence out that the request brings."""
        if self.profile is not None and (device := profile_of(self.profile)).licence.stated:
            from compressor.models.licences import require_permitted

            require_permitted(request, device.licence, f"profile {device.name}", heard)

    def _task(self, heard: Progress) -> str:
        """Which task it is. Raises KdcError for what kdc cannot do with it yet."""
        from compressor.tasks.table import require_able

        raced = self.race.named if self.race else ()
        students = [name for name in (self.student, *raced, *self.assistants) if name]
        task = self.task.named(self.data, self.teachers, students, heard)
        options = {
            "--qat": self.qat, "--profile": self.profile, "--students": raced, "--control": self.control,
            "--assistant": self.assistants,
        }  # fmt: skip
        for option, given in options.items():
            if given:
                require_able(task, option)
        return task

    def _for_device(self, task: str, heard: Progress) -> "tuple[int | None, Callable[[], Scheme]]":
        """The input size, or of texts the most tokens, and how the int8 kernels of the profile round."""
        from compressor import pipeline
        from compressor.tasks.table import TASKS

        device = None if self.profile is None else profile_of(self.profile)
        size = self.task.size
        if device is not None:
            texts = TASKS[task].columns
            theirs, word = (device.sequence_length, "max length") if texts else (device.input_size, "input size")
            named = self.profile if isinstance(self.profile, str | os.PathLike) else device.name
            if theirs is None:
                heard.note(f"profile {named} states no sequence_length: a text has as many tokens as it would without")
            else:
                said = "of" if size in (None, theirs) else f"given; {theirs} is that of"
                size = size or theirs
                heard.note(f"{word} {size} ({said} profile {named})")
        return size, lambda: pipeline.scheme_for(device, heard)


def race_of(
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


def refuse_without_choice(given: Mapping[str, Any]) -> None:
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
