"""The table that a student learned from is found again, or it is said why not."""

import shutil
import sys
from pathlib import Path

import pytest

from compressor.errors import EXIT_MISSING, KdcError
from compressor.models.prediction_table import LoadedTable, find_table, load_table
from compressor.schema.student import Request, Student
from tests.models.test_models_lineage import RECIPE
from tests.models.test_models_runs import record, saved

HEADER = "id,cat,dog,sea lion\n"


def request(teacher: object) -> Request:
    return Request(
        task="image-classification",
        command="distill", teacher=str(teacher), student="timm:x", init="random", data="digits", skip_bad=False,
        input_size=None, recipe=RECIPE,
    )  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "t.csv").write_text(HEADER + "a,0.7,0.1,0.2\nb,0.2,0.5,0.3\n")
    return tmp_path / "home" / "t.csv"


@pytest.fixture
def student(tmp_path: Path, file: Path) -> Student:
    """The record of one that learned from it."""
    taught = record(saved(tmp_path / "run"))
    table = load_table(request(f"outputs:{file}"), taught.class_names)
    assert table is not None
    return taught.model_copy(update={"teacher": table.weights})


def test_it_is_found_where_it_was_and_where_it_was_moved(tmp_path: Path, file: Path, student: Student) -> None:
    asked = request(f"outputs:{file}")
    found = find_table(asked, student, None)
    assert isinstance(found, LoadedTable)
    assert student.teacher is not None
    assert found.weights.sha256 == student.teacher.sha256
    assert found.answers.top1(["b", "a"]).tolist() == [1, 0]
    moved = Path(shutil.move(file, tmp_path / "moved.csv"))
    again = find_table(asked, student, f"outputs:{moved}")
    assert isinstance(again, LoadedTable)
    assert again.weights.sha256 == found.weights.sha256


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "the table of answers t.csv does not exist"),
        (HEADER, "t.csv has no rows"),
        (HEADER + "a,0.7,0.1,x\n", "t.csv line 2: column sea lion holds 'x', which is no number"),
        (
            HEADER + "a,0.7,0.2,0.1\nb,0.2,0.5,0.3\n",
            "outputs:t.csv is not the table that this student was distilled from (its content differs)",
        ),
    ],
)
@pytest.mark.parametrize("slash", ["/", "//"])
def test_where_it_is_not_to_be_had_a_line_without_a_path_says_why(
    tmp_path: Path, file: Path, student: Student, content: str | None, said: str, slash: str
) -> None:
    file.unlink()
    if content is not None:
        file.write_text(content)
    asked = f"outputs:{file.parent}{slash}{file.name}"
    assert find_table(request(asked), student, None) == said
    with pytest.raises(KdcError, match=str(file.parent)):  # what was typed is at fault
        find_table(request(f"outputs:{tmp_path}/gone.csv"), student, asked)


def test_a_model_is_no_table(student: Student) -> None:
    assert find_table(request("run:teacher"), student, None) is None
    assert find_table(request("self"), student, None) is None


def test_a_library_that_is_missing_is_no_lost_table(
    tmp_path: Path, student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(KdcError, match=r"t\.parquet needs pyarrow") as raised:
        find_table(request(f"outputs:{tmp_path / 't.parquet'}"), student, None)
    assert raised.value.exit_code == EXIT_MISSING
