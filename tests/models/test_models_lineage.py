"""The teacher of a run is found again, or it is said what helps."""

from pathlib import Path

import pytest

from compressor.errors import KdcError
from compressor.models.lineage import load_teacher, teacher_of
from compressor.spec.recipe import LossTerm, Recipe
from compressor.spec.student import Request, Student
from tests.models.test_models_runs import record, saved

RECIPE = Recipe(losses=(LossTerm(name="cross_entropy"),))


def request(teacher: Path) -> Request:
    return Request(
        command="distill",
        teacher=f"run:{teacher}",
        student="timm:mobilenetv3_small_050",
        init="random",
        data="digits",
        skip_bad=False,
        input_size=None,
        recipe=RECIPE,
    )


def student_of(folder: Path) -> Student:
    """The record of a student, whose teacher is made in `folder`."""
    made = record(saved(folder))
    teacher = load_teacher(request(folder), made.class_names)
    assert teacher is not None
    return made.model_copy(update={"teacher": teacher.weights})


def test_the_teacher_is_found_where_it_was_and_where_it_was_moved(tmp_path: Path) -> None:
    student = student_of(tmp_path / "teacher")
    found = teacher_of(request(tmp_path / "teacher"), student, None, "")
    assert student.teacher is not None
    assert found is not None
    assert found.weights.sha256 == student.teacher.sha256
    (tmp_path / "teacher").rename(tmp_path / "moved")
    again = teacher_of(request(tmp_path / "teacher"), student, f"run:{tmp_path / 'moved'}", "")
    assert again is not None
    assert again.weights.sha256 == found.weights.sha256


def test_where_it_is_gone_the_caller_says_what_helps(tmp_path: Path) -> None:
    student, nowhere = student_of(tmp_path / "teacher"), tmp_path / "nowhere"
    with pytest.raises(KdcError, match=r"^the teacher of this run: the run .*nowhere does not exist") as raised:
        teacher_of(request(nowhere), student, None, "kdc distill … --resume")
    assert raised.value.hint == "kdc distill … --resume"
    with pytest.raises(KdcError, match=r"^the run .*nowhere does not exist") as raised:  # what was typed is at fault
        teacher_of(request(tmp_path / "teacher"), student, f"run:{nowhere}", "kdc distill … --resume")
    assert raised.value.hint != "kdc distill … --resume"
