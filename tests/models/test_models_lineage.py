"""The teacher of a run is found again, or it is said what helps."""

from pathlib import Path

import pytest
from PIL import Image

from compressor.errors import KdcError
from compressor.models.lineage import data_of, load_teacher, teacher_of
from compressor.progress import Silent
from compressor.schema.recipe import LossTerm, Recipe
from compressor.schema.student import Request, Student
from compressor.tasks.image_classification import open_data
from tests.kit import write_colours
from tests.models.test_models_runs import record, saved

RECIPE = Recipe(losses=(LossTerm(name="cross_entropy"),))


def request(teacher: Path) -> Request:
    return Request(
        task="image-classification",
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


def test_the_data_is_found_by_what_it_shows(tmp_path: Path) -> None:
    """Moved, renamed, listed anew or in another format it is the same; with one image changed it is another."""
    colours = write_colours(tmp_path / "colours", each=12)
    made = record(saved(tmp_path / "teacher"))
    data = open_data(f"folder:{colours}")
    student = made.model_copy(update={"data": data.info, "class_names": data.info.class_names})
    rows = []
    for number, file in enumerate(sorted(colours.rglob("*.png"), reverse=True)):
        Image.open(file).save(tmp_path / f"{number}.bmp")
        rows.append(f"{number}.bmp,{file.parent.name}\n")
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(rows))
    elsewhere = request(tmp_path / "teacher").model_copy(update={"data": f"csv:{tmp_path / 'list.csv'}"})
    found = data_of(elsewhere, student, Silent())
    assert set(found.test.contents) == set(data.test.contents)
    Image.new("RGB", (24, 24)).save(tmp_path / "0.bmp")
    with pytest.raises(KdcError, match="is not the data that this student was trained on") as raised:
        data_of(elsewhere, student, Silent())
    assert raised.value.hint == "its test split might hold training samples: put the data back, or distill again"
    packages = student.environment.packages | {"pillow": "1.2.3"}
    other = student.model_copy(update={"environment": student.environment.model_copy(update={"packages": packages})})
    with pytest.raises(KdcError) as raised:
        data_of(elsewhere, other, Silent())
    assert "; or install pillow==1.2.3, which decoded it then (this is " in raised.value.hint
