"""The whole way with 12-bit data in 16-bit files: one range for teacher, student, bundle and example program."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compressor.models import load_model
from compressor.schema.accuracy import accuracy_in
from compressor.schema.base import read_json
from compressor.schema.student import Student
from compressor.tasks.image_classification.models.pixel_range import seeing
from compressor.tasks.image_classification.preprocessing import of_images
from tests.data.hand_made import png
from tests.kit import TRAINING, Ended, Hearing, call

Kdc = Callable[..., Ended]
RANGE = ("--set", "pixel_range=[0, 4095]")
QUICK = ("--set", "optimizer.lr=0.01", "--set", "ema_decay=0.9")
LEVELS = {"dark": 900, "light": 1300, "mid": 1100}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def twelve_bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "12"
    for seed, (name, level) in enumerate(LEVELS.items()):
        (root / name).mkdir(parents=True)
        for number in range(40):
            noise = np.random.default_rng([seed, number]).normal(level, 120, (24, 24)).clip(0, 4095)
            (root / name / f"{number:02}.png").write_bytes(png(noise.astype(np.uint16)))
    return root


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, twelve_bits: Path) -> Path:
    out = tmp_path_factory.mktemp("deep") / "teacher"
    code = call(
        "teach", "--teacher", "timm:test_resnet", "--teacher-init", "random", "--data", f"folder:{twelve_bits}",
        "--epochs", 12, "--out", out, *TRAINING, "--set", "head_epochs=0", *QUICK, *RANGE,
    )  # fmt: skip
    assert code == 0
    return out


def test_one_range_for_all(kdc: Kdc, tmp_path: Path, twelve_bits: Path, teacher: Path, here: Path) -> None:
    record = read_json(teacher / "student.json", Student)
    assert of_images(record.preprocess).pixel_range == record.recipe.pixel_range == (0.0, 4095.0)
    assert accuracy_in(record.test).accuracy > 0.7  # about a third without the range
    assert any(note.startswith("pixel_range [0, 4095] becomes black to white") for note in record.data.notes)

    distill = (
        "distill", "--teacher", f"run:{teacher}", "--data", f"folder:{twelve_bits}", "--student",
        "timm:test_efficientnet", "--student-init", "random", "--epochs", 12, *TRAINING, *QUICK,
    )  # fmt: skip
    for other, said in (
        ((), "and here none is stated"),
        (("--set", "pixel_range=[0, 65535]"), "here it is [0, 65535]"),
    ):
        ended = kdc(*distill, *other, "--out", tmp_path / "refused")
        assert ended.code == 2
        assert "learned from images that were read with pixel_range [0, 4095]" in ended.err
        assert said in ended.err
        assert "pixel_range: [0, 4095] in the recipe" in ended.err
    assert not (tmp_path / "refused" / "student.json").exists()
    ended = kdc(*distill, *RANGE, "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    score = read_json(tmp_path / "run" / "student.json", Student).teacher_validation
    assert score is not None
    assert accuracy_in(score).accuracy > 0.7

    ended = kdc(
        "export", tmp_path / "run", "--profile", here, "--target", "onnxruntime-fp32", "--rounds", 12,
        "--no-throughput", "--out", tmp_path / "bundle",
    )  # fmt: skip
    assert ended.code in (0, 1, 3), ended.err
    best = tmp_path / "bundle" / "best"
    shipped = json.loads((best / "preprocess.json").read_text())
    assert shipped["pixel_range"] == [0, 4095]
    right = 0
    for name in LEVELS:
        command = [sys.executable, best / "classify.py", twelve_bits / name / "00.png", "--top", "1"]
        out = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True).stdout
        right += out.split()[-1] == name
    assert right >= 2


def test_predict_takes_the_range_from_the_run_or_from_the_command(
    kdc: Kdc, tmp_path: Path, twelve_bits: Path, teacher: Path
) -> None:
    predict = ("predict", "--teacher", f"run:{teacher}", "--data", f"folder:{twelve_bits}", "--json")
    ended = kdc(*predict, "--out", tmp_path / "a.csv")
    assert ended.code == 0, ended.err
    record = read_json(teacher / "student.json", Student)
    done = json.loads(ended.out)
    assert done["validation"]["accuracy"] == accuracy_in(record.validation).accuracy
    assert done["info"]["data"] == record.data.fingerprint
    assert kdc(*predict, "--pixel-range", 0, 4095, "--out", tmp_path / "b.csv").code == 0
    for values, said in (((0, 1000), "and here it is [0, 1000]"), ((5, 5), "black must be below white")):
        ended = kdc(*predict, "--pixel-range", *values, "--out", tmp_path / "c.csv")
        assert ended.code == 2
        assert said in ended.err
    assert not (tmp_path / "c.csv").exists()


def test_a_run_without_a_range_is_said_where_one_is_stated(teacher_run: Path) -> None:
    hearing = Hearing()
    model = seeing(load_model(f"run:{teacher_run}"), (0, 4095), hearing)
    assert of_images(model.preprocess).pixel_range == (0.0, 4095.0)
    assert "was trained without a pixel_range" in hearing.notes[0]
