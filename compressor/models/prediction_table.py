"""A table of a teacher's answers as what a student learns from, `--teacher outputs:FILE`; and the same table again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compressor.data.completion_files import CompletionTable, ancestors_of, read_completions
from compressor.data.predictions import AnswerTable, read_outputs
from compressor.errors import EXIT_MISSING, KdcError
from compressor.models.references import TABLE, holds_completions, is_table
from compressor.schema.student import Request, Student
from compressor.schema.weights import Weights, joint, joint_terms

__all__ = [
    "LoadedTable",
    "find_table",
    "load_completions",
    "load_table",
    "require_alone",
    "require_no_classes",
    "same_table",
]


@dataclass(frozen=True, eq=False)
class LoadedTable:
    """Checked answers, and whose they are: `weights.sha256` is of the table's content, and it has no parameters."""

    answers: AnswerTable
    weights: Weights


def require_no_classes(request: Request) -> None:
    """Raise KdcError where a table is told which classes it has."""
    if request.teacher_classes is not None and is_table(request.teacher):
        raise KdcError("--teacher-classes: a table of answers names its classes itself", "leave it out")


def load_table(request: Request, class_names: Sequence[str]) -> LoadedTable | None:
    """The table that a request names, for these classes; None where its teacher is something else. Raises KdcError."""
    require_alone(request)
    if not is_table(request.teacher) or holds_completions(request.teacher):
        return None
    require_no_classes(request)
    answers = read_outputs(Path(request.teacher.removeprefix(TABLE)), class_names)
    told, ancestors = answers.info and answers.info.teacher, answers.ancestors
    weights = Weights(
        source=request.teacher,
        architecture=told.architecture if told else joint(ancestor.model for ancestor in ancestors),
        sha256=answers.sha256,
        licence=told.licence if told else joint(ancestor.licence for ancestor in ancestors),
        terms=told.terms if told else joint_terms(ancestor.terms for ancestor in ancestors),
        parameters=0,
        ancestors=ancestors,
    )
    return LoadedTable(answers, weights)


def load_completions(request: Request) -> tuple[CompletionTable, Weights] | None:
    """The table of completions that a request names, and whose they are; None where its teacher is something else.
    Raises KdcError."""
    require_alone(request)
    if not holds_completions(request.teacher):
        return None
    table = read_completions(Path(request.teacher.removeprefix(TABLE)))
    ancestors = ancestors_of(table.rows, request.teacher)
    weights = Weights(
        source=request.teacher,
        architecture=joint(ancestor.model for ancestor in ancestors),
        sha256=table.sha256,
        licence=joint(ancestor.licence for ancestor in ancestors),
        terms=joint_terms(ancestor.terms for ancestor in ancestors),
        parameters=0,
        ancestors=ancestors,
    )
    return table, weights


def require_alone(request: Request) -> None:
    """Raise KdcError where a table is one of several teachers."""
    if request.other_teachers and any(map(is_table, (request.teacher, *request.other_teachers))):
        raise KdcError("--teacher outputs:FILE stands alone: it cannot be part of an ensemble", "give --teacher once")


def same_table(request: Request, record: Student, hint: str) -> LoadedTable | None:
    """The table that the student of `record` learned from: its content must be the same. `hint`: see `teacher_of`."""
    try:
        table = load_table(request, record.class_names)
    except KdcError as error:
        raise KdcError(f"the teacher of this run: {error.message}", hint, error.exit_code) from None
    if table is not None:
        _require_same(table, record)
    return table


def find_table(request: Request, record: Student, moved_to: str | None) -> LoadedTable | str | None:
    """The table that the student of `record` learned from, for who can do without it: where it is not to be had any
    more, why, in one line that holds no path. None where the teacher was none. `moved_to`: a reference to it, where it
    lies elsewhere now; what is wrong with that one raises KdcError, since it was typed, and so does a library that is
    missing."""
    if not is_table(request.teacher):
        return None
    try:
        table = load_table(request.model_copy(update={"teacher": moved_to or request.teacher}), record.class_names)
        assert table is not None
        _require_same(table, record)
        return table
    except KdcError as error:
        if moved_to is not None or error.exit_code == EXIT_MISSING:
            raise
        file = request.teacher.removeprefix(TABLE)
        return error.message.replace(file, Path(file).name).replace(str(Path(file)), Path(file).name)


def _require_same(table: LoadedTable, record: Student) -> None:
    """Raise KdcError where the student of `record` learned from a table with other content."""
    if record.teacher is None or table.weights.sha256 != record.teacher.sha256:
        raise KdcError(
            f"{table.weights.source} is not the table that this student was distilled from (its content differs)"
        )
