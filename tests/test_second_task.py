"""A task that knows no images goes the whole way, and nothing outside its file knows of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from compressor.models import load_run
from compressor.schema.preprocess import PREPROCESS
from compressor.tasks.table import TASKS, TaskRow
from tests.kit import call
from tests.toy_task import ToyPreprocess

pytestmark = pytest.mark.slow

DATA = ("--data", "toy:any")
ORT = "{runtime: onnxruntime, precisions: [fp32, int8]}"
OV = "{runtime: openvino, precisions: [f32, int8]}"


@pytest.fixture(scope="module", autouse=True)
def _tenant() -> Iterator[None]:
    """All that it takes: a row of the table, and how its inputs are described on disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "toy", TaskRow("tests.toy_task", ("toy",), ("toy",), ("toy",)))
        patch.setitem(PREPROCESS, "toy", ToyPreprocess)
        yield


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toy") / "teacher"
    code = call(
        "teach", "--teacher", "toy:32", "--teacher-init", "random", *DATA, "--out", out, "--epochs", 6,
        "--batch-size", 20, "--set", "head_epochs=0", "--set", "optimizer.lr=0.02",
    )  # fmt: skip
    assert code == 0
    return out


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> Path:
    out = tmp_path_factory.mktemp("toy") / "student"
    losses = "losses=[{name: cross_entropy, weight: 0.1}, {name: kd, weight: 0.9}, {name: hint, weight: 1}]"
    code = call(
        "distill", "--teacher", f"run:{teacher}", *DATA, "--student", "toy:8", "--student-init", "random",
        "--out", out, "--epochs", 6, "--batch-size", 20, "--set", losses, "--set", "optimizer.lr=0.02",
    )  # fmt: skip
    assert code == 0
    return out


def test_it_teaches_and_learns_from_tokens(teacher: Path, student: Path) -> None:
    assert load_run(teacher)[1].test.accuracy > 0.9
    _, record = load_run(student)
    assert (record.task, record.test.accuracy > 0.8) == ("toy", True)
    history = [json.loads(line) for line in (student / "history.jsonl").read_text().splitlines()]
    hints = [row["loss"]["hint"] for row in history]
    assert hints[-1] < 0.7 * hints[0]


def test_it_is_exported_measured_and_judged(student: Path, here: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    code = call(
        "export", student, "--profile", here, "--out", bundle, "--rounds", 12, "--no-throughput", "--no-qat",
        "--set", f"targets=[{ORT}, {OV}]", "--set", "max_drop=0.2",
    )  # fmt: skip
    assert code in (0, 1, 3)
    report = json.loads((bundle / "report.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    for name in ("onnxruntime-fp32", "onnxruntime-int8", "openvino-f32", "openvino-int8"):
        assert rows[name]["accuracy"]["value"] > 0.7, name
    logits = {path.stem: np.load(path) for path in (bundle / "measurements").rglob("*.npy")}
    reference = np.load(bundle / "eval" / "student_reference.npy")
    assert any(np.allclose(values, reference, atol=1e-4) for values in logits.values())
    assert call("check", bundle) in (0, 1, 3)
    assert call("report", bundle) == 0
    assert call("measure", bundle, "--rounds", 12, "--no-throughput") in (0, 1, 3)
