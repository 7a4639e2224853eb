"""Folders of sounds -> kdc teach -> kdc distill -> kdc predict."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from compressor.models import load_run
from compressor.schema.preprocess import AudioPreprocess
from compressor.tasks.audio_classification.opening import open_data
from compressor.tasks.table import task_named
from tests.kit import call
from tests.tasks.audio_classification import kit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return kit.distilled(tmp_path_factory)


def test_teacher_and_student_know_the_pitches(folders: Mapping[str, Path]) -> None:
    for name, family, architecture in (("teacher", "timm", "test_resnet"), ("student", "mlp", "mlp:64x2")):
        model, record = load_run(folders[name])
        assert (record.task, record.family, record.architecture) == ("audio-classification", family, architecture)
        assert record.test.n == 24
        assert record.test.accuracy > 0.85, name
        assert isinstance(model.preprocess, AudioPreprocess)
        assert (model.preprocess.sample_rate, model.preprocess.samples, model.preprocess.window) == (4000, 800, 100)
        assert record.class_names == ("high", "low", "middle")


def test_the_run_answers_what_its_record_says(folders: Mapping[str, Path]) -> None:
    """Once more from the files alone, by the seam that bundles are made through."""
    model, record = load_run(folders["student"])
    data = open_data(f"folder:{folders['data']}")
    task = task_named(record.task)
    (batch,) = list(task.evaluation(data.test, model.preprocess, 64, torch.device("cpu")))
    with torch.no_grad():
        right = (model.network(*batch).argmax(1).numpy() == data.test.labels).sum()
    assert right == record.test.correct
    assert data.info.fingerprint == record.data.fingerprint


def test_the_same_features_by_mel_bands_train_both(folders: Mapping[str, Path]) -> None:
    teacher, student = (load_run(folders[name])[0].preprocess for name in ("teacher", "student"))
    assert teacher == student
    history = [json.loads(line) for line in (folders["student"] / "history.jsonl").read_text().splitlines()]
    assert history[-1]["loss"]["kd"] < 0.5 * history[0]["loss"]["kd"]


def test_predictions(folders: Mapping[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "answers.csv"
    assert (
        call("predict", "--teacher", f"run:{folders['teacher']}", "--data", f"folder:{folders['data']}", "--out", out)
        == 0
    )
    rows = out.read_text().splitlines()
    assert len([row for row in rows if not row.startswith("#")]) == 121
    code = call(
        "distill", "--teacher", f"outputs:{out}", "--data", f"folder:{folders['data']}", "--student", "mlp:8x1",
        "--student-init", "random", "--epochs", 1, "--out", tmp_path / "run",
    )  # fmt: skip
    assert code == 0
