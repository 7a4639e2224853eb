"""The whole way without the teacher's weights: a table of its answers, a student, an export, a verdict."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.distill import quantization_aware
from compressor.errors import KdcError
from compressor.progress import Silent
from compressor.spec.base import read_json
from compressor.spec.bundle import Bundle
from compressor.spec.quantization import Scheme
from compressor.spec.report import Report
from tests.kit import TRAINING, Ended, call

Kdc = Callable[..., Ended]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, teacher_run: Path, colours: Path) -> Path:
    out = tmp_path_factory.mktemp("table") / "answers.csv"
    assert call("predict", "--teacher", f"run:{teacher_run}", "--data", f"folder:{colours}", "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, table: Path, colours: Path) -> Path:
    out = tmp_path_factory.mktemp("student") / "run"
    code = call(
        "distill", "--teacher", f"outputs:{table}", "--data", f"folder:{colours}", "--student",
        "timm:test_efficientnet", "--student-init", "random", "--epochs", 8, "--out", out, *TRAINING,
        "--set", "optimizer.lr=0.01", "--set", "qat.epochs=1",
    )  # fmt: skip
    assert code == 0
    return out


def test_a_table_a_student_a_bundle_a_verdict(
    kdc: Kdc, tmp_path: Path, student: Path, here: Path, table: Path, teacher_run: Path
) -> None:
    export = ("export", student, "--profile", here, "--target", "onnxruntime-fp32", "--rounds", 12, "--no-throughput")
    ended = kdc(*export, "--out", tmp_path / "bundle")
    assert ended.code == 3, ended.err
    assert "is a table of answers: none is measured" in ended.err
    assert "The bundle has no teacher to measure" in ended.out
    bundle = read_json(tmp_path / "bundle" / "bundle.json", Bundle)
    assert bundle.teacher is not None
    assert bundle.teacher.source == f"outputs:{table.name}", "no path of this machine"
    assert bundle.teacher.parameters == 0
    assert {variant.role for variant in bundle.variants} == {"student"}
    assert not (tmp_path / "bundle" / "teacher").exists()
    report = read_json(tmp_path / "bundle" / "report.json", Report)
    (unmeasured,) = [check for check in report.checks if check.verdict != "pass" and check.line == "min_retention"]
    assert (unmeasured.verdict, unmeasured.value) == ("unmeasured", "not measured")
    assert kdc("check", tmp_path / "bundle").code == 3
    assert kdc("check", tmp_path / "bundle", "--allow-unmeasured").code == 0
    ended = kdc(*export, "--out", tmp_path / "other", "--teacher", f"run:{teacher_run}")
    assert ended.code == 2
    assert "this student was distilled from a table" in ended.err
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
@pytest.mark.parametrize("teacher", ["self", "peers"])
def test_a_student_without_a_teacher_is_exported_like_any_other(
    kdc: Kdc, tmp_path: Path, here: Path, colours: Path, teacher: str
) -> None:
    trained = kdc(
        "distill", "--teacher", teacher, "--data", f"folder:{colours}", "--student", "timm:test_efficientnet",
        "--student-init", "random", "--epochs", 2, "--out", tmp_path / "run", *TRAINING,
    )  # fmt: skip
    assert trained.code == 0, trained.err
    export = ("export", tmp_path / "run", "--profile", here, "--target", "onnxruntime-fp32", "--rounds", 12)
    ended = kdc(*export, "--out", tmp_path / "bundle", "--no-throughput", "--allow-unmeasured")
    assert ended.code == 0, ended.err
    assert f"teacher {teacher} is no network of its own: none is measured" in ended.err
    bundle = read_json(tmp_path / "bundle" / "bundle.json", Bundle)
    assert bundle.teacher is None
    assert read_json(tmp_path / "bundle" / "report.json", Report).teacher == "none"
    sbom = json.loads((tmp_path / "bundle" / "best" / "sbom.cdx.json").read_text())
    assert "ancestors" not in sbom["metadata"]["component"]["pedigree"]
    assert kdc("check", tmp_path / "bundle").code == 3, "min_retention was not measured"


@pytest.mark.slow
def test_training_on_under_fake_quantization_needs_the_same_table(tmp_path: Path, student: Path, table: Path) -> None:
    scheme = Scheme(activations="uint8", weight_bits=8, per_channel=True)
    moved = Path(shutil.move(str(table), tmp_path / "moved.csv"))

    def train_on(name: str, teacher: str | None) -> None:
        quantization_aware(
            student, scheme, tmp_path / name, teacher=teacher, epochs=1, resume=False, overwrite=False,
            progress=Silent(),
        )  # fmt: skip

    try:
        with pytest.raises(KdcError, match=r"the teacher of this run: .*does not exist.*--teacher REFERENCE"):
            train_on("gone", None)
        train_on("moved", f"outputs:{moved}")
        assert (tmp_path / "moved" / "student.json").exists()
        lines = moved.read_text().splitlines(keepends=True)
        other = tmp_path / "other.csv"
        other.write_text("".join(lines[:-1]))
        with pytest.raises(KdcError, match="is not the table that this student was distilled from"):
            train_on("other", f"outputs:{other}")
    finally:
        shutil.move(str(moved), table)
