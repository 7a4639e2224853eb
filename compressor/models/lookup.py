"""What a request names, looked up before any data is read: teachers, students, and the files that they come from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.data.prediction_files import require_table
from compressor.errors import KdcError
from compressor.models.licences import require_permitted
from compressor.models.prediction_table import require_no_classes
from compressor.models.references import (
    NO_MODEL,
    class_file_names,
    holds_completions,
    is_table,
    parsed_model,
    require_own_size,
)
from compressor.models.runs import read_student
from compressor.models.specialists import read_specialists
from compressor.references import CUT, TEACHERS, TRAINABLE, Reference
from compressor.schema.student import Request
from compressor.tasks.inference import task_of_model
from compressor.tasks.table import TASKS, task_named

__all__ = ["of_peer", "require_found", "require_model"]


def require_found(request: Request) -> None:
    """Raise KdcError for what cannot be understood, or is not where it is said to be: in the words, and with the exit
    code, of who would load it later. Weights are not read, and no hub is asked."""
    if request.command == "teach":
        _require_trainable(request)
    else:
        for reference in (request.teacher, *request.other_teachers):
            _require_teacher(reference, request.task)
        _require_students(request)
    require_permitted(request, request.recipe.licence, "recipe")
    if request.teacher_classes is not None and request.teacher not in NO_MODEL:
        require_no_classes(request)
        class_file_names(Path(request.teacher_classes))


def _require_trainable(request: Request) -> None:
    if request.init == "random":
        task_named(request.task).require_student(request.teacher, "random", request.input_size)
    else:
        require_model(request.teacher, TRAINABLE, request.input_size, request.task)


def _require_teacher(reference: str, task: str) -> None:
    if reference in NO_MODEL:
        return
    table = Reference.parse(reference).folder("outputs")
    if table is not None and TASKS[task].completes:
        _require_completions(table, reference)
    elif table is not None:
        require_table(table)
    else:
        require_model(reference, TEACHERS, None, task)


def _require_completions(table: Path, reference: str) -> None:
    if not holds_completions(reference):
        raise KdcError(f"{reference}: a language model learns from completions, in a file of JSON lines", "FILE.jsonl")
    if not table.exists():
        raise KdcError(f"the table of completions {table} does not exist", "kdc predict --teacher … --out FILE.jsonl")


def require_model(reference: str, permitted: str, input_size: int | None, task: str | None = None) -> None:
    """Raise KdcError as `require_found`, of one model. `permitted`: the forms that a wrong one is to be told; `task`:
    what it is for, where its reference does not tell."""
    parsed = parsed_model(reference, permitted)
    if (run := parsed.folder("run")) is not None:
        require_own_size(reference, read_student(run).preprocess, input_size)
    elif (folder := parsed.folder("specialists")) is not None:
        record = read_specialists(folder)
        require_model(record.generalist.source, TRAINABLE, record.input_size)
        for row in record.specialists:
            require_own_size(reference, read_student(folder / row.run).preprocess, input_size)
    else:
        model_task = task_of_model(reference, task)
        assert model_task is not None
        model_task.require_model(reference, input_size)


def _require_students(request: Request) -> None:
    task = task_named(request.task)
    _refuse_made_of_nothing(request)
    for student in filter(None, (*request.assistants, request.student, *request.raced)):
        task.require_student(student, request.init, request.input_size)
    for number, peer in enumerate(request.recipe.peers):
        with of_peer(number):
            task.require_student(peer.student, peer.init, request.input_size)


def _refuse_made_of_nothing(request: Request) -> None:
    """Raise KdcError for a student that is made of its teacher's layers, where no one network teaches."""
    first = request.assistants[0] if request.assistants else request.student
    several = bool(request.other_teachers) or request.teacher.startswith("specialists:")
    if first is None or not first.startswith(CUT) or request.cut_from is not None:
        return
    if several or request.teacher in NO_MODEL or is_table(request.teacher):
        why = "several teachers are several networks" if several else f"--teacher {request.teacher} is no network"
        raise KdcError(
            f"student {first!r} is made of one network that teaches, and {why}",
            "name one with weights of its own: --student hf:REPO_OR_PATH",
        )


@contextmanager
def of_peer(number: int) -> Iterator[None]:
    """Inside, what is wrong is said of that peer of the recipe."""
    try:
        yield
    except KdcError as error:
        hint = "student: a model's reference; init: pretrained, random or the path of a checkpoint"
        raise KdcError(f"recipe peers.{number}: {error.message}", hint, error.exit_code) from None
