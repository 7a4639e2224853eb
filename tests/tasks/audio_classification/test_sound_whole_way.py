"""Folders of sounds -> kdc teach -> kdc distill -> kdc predict."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.models import load_run
from compressor.schema.accuracy import accuracy_in
from compressor.schema.preprocess import AudioPreprocess
from compressor.tasks.audio_classification.feed import AudioFeed
from compressor.tasks.audio_classification.opening import open_data
from compressor.tasks.base import Batch
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
        assert accuracy_in(record.test).accuracy > 0.85, name
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
    assert right == accuracy_in(record.test).correct
    assert data.info.fingerprint == record.data.fingerprint


def test_the_same_features_by_mel_bands_train_both(folders: Mapping[str, Path]) -> None:
    teacher, student = (load_run(folders[name])[0].preprocess for name in ("teacher", "student"))
    assert teacher == student
    history = [json.loads(line) for line in (folders["student"] / "history.jsonl").read_text().splitlines()]
    assert history[-1]["loss"]["kd"] < 0.5 * history[0]["loss"]["kd"]


def test_a_resumed_run_is_the_same_bytes(
    folders: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within its second epoch, with all views of sounds and a teacher that is asked anew each time."""
    views = "views={time_shift: 0.01, gain: 6, noise: 0.1, mixup: 0.2, time_masking: 0.2, frequency_masking: 0.2}"
    command = (
        "distill", "--teacher", f"run:{folders['teacher']}", "--data", f"folder:{folders['data']}", "--student",
        "timm:test_resnet", "--student-init", "random", "--epochs", 3, "--set", views, *kit.SPEED,
    )  # fmt: skip
    assert call(*command, "--out", tmp_path / "whole") == 0
    batches = AudioFeed.batches

    def stopping(feed: AudioFeed, epoch: int, first_step: int, keys: Any = None) -> Iterator[Batch]:
        for number, batch in enumerate(batches(feed, epoch, first_step, keys)):
            if (epoch, number) == (1, 3):
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(AudioFeed, "batches", stopping)
        assert call(*command, "--out", tmp_path / "parts") == 130
    assert not (tmp_path / "parts" / "student.json").exists()
    assert call(*command, "--out", tmp_path / "parts", "--resume") == 0
    whole, parts = ((tmp_path / name / "student.safetensors").read_bytes() for name in ("whole", "parts"))
    assert whole == parts


def test_sounds_without_labels_join_and_copies_of_held_out_ones_do_not(
    folders: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = kit.tones(tmp_path / "more", 5, first=500)
    data = open_data(f"folder:{folders['data']}")
    for number, name in enumerate((*data.test.ids[:2], *data.train.ids[:1])):
        shutil.copy(folders["data"] / name, more / f"copy{number}.wav")
    code = call(
        "distill", "--teacher", f"run:{folders['teacher']}", "--data", f"folder:{folders['data']}", "--student",
        "mlp:8x1", "--student-init", "random", "--epochs", 1, "--unlabelled", f"folder:{more}", "--out",
        tmp_path / "run", "--set", "transfer.labelled=0.5", "--set", "views.mixup=0.2",
    )  # fmt: skip
    assert code == 0
    record = load_run(tmp_path / "run")[1]
    assert record.data.unlabelled is not None
    assert (record.data.unlabelled.count, record.data.unlabelled.left_out_copies) == (15, 3)
    said = capsys.readouterr().err
    assert "unlabelled: left out 3 copies of sounds in the data (1 of train, 2 of test)" in said
    assert "15 sounds join train" in said


def test_ten_into_one_in_small(folders: Mapping[str, Path], tmp_path: Path) -> None:
    """Two fully connected teachers of other seeds, their mean taught to one of the same size on kept answers. It hears
    as long as they do."""
    for seed in (1, 2):
        code = call(
            "teach", "--teacher", "mlp:24x1", "--teacher-init", "random", "--data", f"folder:{folders['data']}",
            "--seed", seed, "--epochs", 2, "--out", tmp_path / f"teacher{seed}", "--clip-seconds", 0.15, *kit.SPEED,
        )  # fmt: skip
        assert code == 0
    code = call(
        "distill", "--teacher", f"run:{tmp_path / 'teacher1'}", "--teacher", f"run:{tmp_path / 'teacher2'}", "--data",
        f"folder:{folders['data']}", "--student", "mlp:24x1", "--student-init", "random", "--epochs", 2, "--out",
        tmp_path / "one", "--set", "views={distinct: 1}", *kit.SPEED,
    )  # fmt: skip
    assert code == 0
    record = load_run(tmp_path / "one")[1]
    assert record.preprocess.inputs[0].shape == ("batch", 1, 40, 13)
    assert record.architecture == "mlp:24x1"
    assert record.teacher is not None
    assert " + " in record.teacher.source


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--input-size", 32), "--input-size is of images, and this is audio-classification"),
        (("--max-length", 32), "--max-length is of texts, and this is audio-classification"),
        (("--text-column", "text"), "--text-column is of texts, and this is audio-classification"),
        (("--set", "views.rotation=5"), "views.rotation changes images, and this is a sound"),
        (("--set", "crop_pct=0.9"), "crop_pct is of images"),
        (("--clip-seconds", 0.001), "--clip-seconds"),
        (("--qat", "--profile", "x86-laptop"), "kdc cannot do that for audio-classification yet"),
    ],
)
def test_what_is_of_other_tasks_is_refused(
    folders: Mapping[str, Path], tmp_path: Path, options: tuple[object, ...], said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    code = call(
        "distill", "--teacher", f"run:{folders['teacher']}", "--data", f"folder:{folders['data']}", "--student",
        "mlp:8x1", "--student-init", "random", "--out", tmp_path / "run", *options,
    )  # fmt: skip
    assert code == 2
    assert said in capsys.readouterr().err.replace("\n", " ")


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
