"""A table's answers to the test samples in the bundle: all of them in their order, or none and why."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor.data.predictions import NOTHING, AnswerTable
from compressor.data.samples import Dataset, Split
from compressor.export.bundle.teacher_predictions import matched_by_ids_alone, write_teacher_table
from compressor.models.prediction_table import LoadedTable
from compressor.schema.bundle import TeacherTable
from compressor.schema.predictions import Kind, OutputsInfo
from compressor.schema.student import DataInfo, Weights
from tests.kit import Hearing

NAMES = ("ant", "bee", "cat")
WEIGHTS = Weights(source="outputs:t.csv", architecture="x", sha256="ab", licence="mit", parameters=0)
ROWS = {"a": [0.5, 0.125, 0.0], "b": [-1.0, 2.0, 1.0], "c": [0.0, 0.25, 4.0]}
SHORT = {"a": [2, -0.5, -0.9], "b": [0, -1.5, -0.25], "c": [1, -1.0, -0.5]}
LABELS = {"a": [2, 0, NOTHING], "b": [0, 0, NOTHING], "c": [1, 0, NOTHING]}


def loaded(kind: Kind, rows: dict[str, list[float]], data: str | None = None) -> LoadedTable:
    """`data`: the fingerprint of the data that kdc says it answered; None for one that was made by hand."""
    info = data and OutputsInfo(kdc="0", kind=kind, class_names=NAMES, teacher=WEIGHTS, data=data)
    encoded = np.array(list(rows.values()), np.float32)
    numbers = {name: number for number, name in enumerate(rows)}
    k = 1 if kind in ("top-k", "labels") else None
    return LoadedTable(AnswerTable(kind, k, numbers, encoded, None, info or None, "ab"), WEIGHTS)


def data_of(*ids: str) -> Dataset:
    contents = np.arange(len(ids), dtype=np.uint64)
    test = Split("test", ids, np.zeros(len(ids), np.int64), lambda number: Image.new("RGB", (1, 1)), contents)
    info = DataInfo(source="digits", fingerprint="f", class_names=NAMES, counts={})
    return Dataset(info, test.part(np.arange(0)), test.part(np.arange(0)), test)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "eval").mkdir()
    return tmp_path


@pytest.mark.parametrize("kind", ["probabilities", "logits"])
def test_what_the_table_tells_of_every_class_is_kept(root: Path, kind: Kind) -> None:
    progress = Hearing()
    table = write_teacher_table(loaded(kind, ROWS), "outputs:t.csv", data_of("c", "a"), root, progress)
    assert table == TeacherTable(kind=kind, answers="eval/teacher_answers.npy")
    found = np.load(root / "eval/teacher_answers.npy")
    assert (found.dtype, found.tolist()) == (np.float32, [ROWS["c"], ROWS["a"]])
    assert progress.warnings == []
    [note] = progress.notes
    assert "teacher outputs:t.csv is a table of answers, which holds those to all 2 test samples" in note


@pytest.mark.parametrize(("kind", "rows"), [("top-k", SHORT), ("labels", LABELS)])
def test_else_the_class_alone(root: Path, kind: Kind, rows: dict[str, list[float]]) -> None:
    table = write_teacher_table(loaded(kind, rows), "outputs:t.csv", data_of("b", "c", "a"), root, Hearing())
    assert table == TeacherTable(kind=kind, answers="eval/teacher_answers.npy")
    found = np.load(root / "eval/teacher_answers.npy")
    assert (found.dtype, found.tolist()) == (np.int64, [0, 1, 2])


@pytest.mark.parametrize("kind", ["probabilities", "labels"])
def test_a_table_that_lacks_a_sample_is_not_taken_for_the_rest(root: Path, kind: Kind) -> None:
    progress = Hearing()
    rows = ROWS if kind == "probabilities" else LABELS
    table = write_teacher_table(loaded(kind, rows), "outputs:t.csv", data_of("c", "d", "a"), root, progress)
    assert table == TeacherTable(missing="outputs:t.csv has 2 of 3 test samples")
    assert not list((root / "eval").iterdir())
    said = "none is measured, so no retention, no speed-up: outputs:t.csv has 2 of 3 test samples"
    assert progress.warnings == [f"teacher outputs:t.csv is a table of answers: {said}"]


def test_a_table_that_was_not_found_says_so_and_what_to_type(root: Path) -> None:
    progress = Hearing()
    table = write_teacher_table("t.csv is gone", "outputs:t.csv", data_of("a"), root, progress)
    assert table == TeacherTable(missing="t.csv is gone")
    assert progress.warnings[0].endswith("t.csv is gone (--teacher outputs:FILE says where it lies now)")


def test_a_table_of_other_data_says_so() -> None:
    data = data_of("a")
    assert matched_by_ids_alone(loaded("logits", ROWS, data="f"), "outputs:t.csv", data) == ""
    for nothing in (loaded("logits", ROWS), "gone", None):
        assert matched_by_ids_alone(nothing, "outputs:t.csv", data) == ""
    other = matched_by_ids_alone(loaded("logits", ROWS, data="other"), "outputs:t.csv", data)
    assert other.startswith("outputs:t.csv was made from other data")
