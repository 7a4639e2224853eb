"""Which task's candidates `kdc students` is asked for: those that are made of a teacher, or those of the catalogue."""

from collections.abc import Mapping, Sequence

from compressor.errors import KdcError
from compressor.models.runs import read_student
from compressor.references import CUT, Reference
from compressor.tasks.table import DEFAULT, TASKS

__all__ = ["students_task"]


def students_task(teacher: str | None, names: Sequence[str], unfit: Mapping[str, object]) -> str:
    """The task. `names`: candidates; `unfit`: options of images, with what was given. Raises KdcError where these do
    not fit one another."""
    if teacher is None:
        made = next((name for name in names if name.startswith(CUT)), None)
        if made is not None:
            raise KdcError(
                f"--student {made} is made of a teacher, and none is named",
                "--teacher run:DIR, or hf:REPO_OR_PATH of an encoder of texts",
            )
        return DEFAULT
    task = _task_of(Reference.parse(teacher))
    if task is None:
        raise KdcError(
            f"--teacher {teacher}: only students of texts are made of a teacher, a run:DIR or hf:REPO_OR_PATH of texts",
            "leave it out: candidates for images are those of the catalogue",
        )
    for option, given in unfit.items():
        if given:
            hint = "--set sequence_length=TOKENS" if option == "--input-size" else "leave it out"
            raise KdcError(f"{option} is of images, and this is {task}", hint)
    return task


def _task_of(teacher: Reference) -> str | None:
    """Of a teacher whose students are made of it."""
    made = [name for name, row in TASKS.items() if any(f"{scheme}:" in CUT for scheme in row.students)]
    folder = teacher.folder("run")
    if folder is not None:
        task = read_student(folder).task
        return task if task in made else None
    return next((name for name in made if teacher.scheme in TASKS[name].models and teacher.rest), None)
