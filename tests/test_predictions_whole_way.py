"""The whole way without the teacher's weights: a table of its answers, a student, an export, a verdict."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.distill import quantization_aware
from compressor.distill.run_folder import Destination
from compressor.errors import KdcError
from compressor.models.prediction_table import load_table
from compressor.progress import Silent
from compressor.schema.base import read_json, write_json
from compressor.schema.bundle import Bundle, TeacherTable
from compressor.schema.quantization import Scheme
from compressor.schema.report import Check, Report
from compressor.schema.student import Request, Student
from tests.kit import TRAINING, Ended, call

Kdc = Callable[..., Ended]
QUICK = ("--target", "onnxruntime-fp32", "--rounds", 12, "--no-throughput")


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


def min_retention(bundle: Path) -> Check:
    report = read_json(bundle / "report.json", Report)
    [found] = [check for check in report.checks if check.line == "min_retention"]
    return found


def test_a_table_a_student_a_bundle_a_verdict(
    kdc: Kdc, tmp_path: Path, student: Path, here: Path, table: Path, teacher_run: Path
) -> None:
    export = ("export", student, "--profile", here, *QUICK)
    ended = kdc(*export, "--out", tmp_path / "bundle")
    assert ended.code == 0, ended.err
    assert f"teacher outputs:{table.name} is a table of answers, which holds those to all 24 test samples" in ended.err
    told_of_it = "The teacher is a table (probabilities) that answers all 24 test samples"
    assert told_of_it in (tmp_path / "bundle" / "report.md").read_text(encoding="utf-8")
    bundle = read_json(tmp_path / "bundle" / "bundle.json", Bundle)
    assert bundle.teacher is not None
    assert bundle.teacher.source == f"outputs:{table.name}", "no path of this machine"
    assert bundle.teacher.parameters == 0
    assert bundle.teacher_table == TeacherTable(kind="probabilities", answers="eval/teacher_answers.npy")
    assert {variant.role for variant in bundle.variants} == {"student"}
    assert not (tmp_path / "bundle" / "teacher").exists()
    told = [path for path in (tmp_path / "bundle").rglob("*") if path.suffix in (".json", ".md", ".txt")]
    assert not [path for path in told if str(table.parent) in path.read_text()]
    assert min_retention(tmp_path / "bundle").verdict == "pass"
    assert kdc("check", tmp_path / "bundle").code == 0
    # Without kdc: the device measures the student alone, and what comes back is held against the table again.
    bench = [sys.executable, tmp_path / "bundle/runners/bench.py", tmp_path / "bundle", "--rounds", "12"]
    subprocess.run([*map(str, bench), "--no-throughput"], check=True, capture_output=True)
    assert kdc("report", tmp_path / "bundle").code == 0
    assert min_retention(tmp_path / "bundle").verdict == "pass"
    ended = kdc(*export, "--out", tmp_path / "other", "--teacher", f"run:{teacher_run}")
    assert ended.code == 2
    assert "this student was distilled from a table" in ended.err
    assert not (tmp_path / "other").exists()


def test_an_export_does_without_its_table_and_says_so(
    kdc: Kdc, tmp_path: Path, student: Path, here: Path, table: Path
) -> None:
    export = ("export", student, "--profile", here, *QUICK)
    moved = Path(shutil.move(str(table), tmp_path / "moved.csv"))
    try:
        ended = kdc(*export, "--out", tmp_path / "bundle")
        assert ended.code == 3, ended.err
        gone = f"the table of answers {table.name} does not exist"
        assert f"is a table of answers: none is measured, so no retention, no speed-up: {gone}" in ended.err
        bundle = read_json(tmp_path / "bundle" / "bundle.json", Bundle)
        assert bundle.teacher_table == TeacherTable(missing=gone)
        unmeasured = min_retention(tmp_path / "bundle")
        assert (unmeasured.verdict, unmeasured.value) == ("unmeasured", "not measured")
        assert gone in unmeasured.reason
        assert kdc("check", tmp_path / "bundle").code == 3
        assert kdc("check", tmp_path / "bundle", "--allow-unmeasured").code == 0
        ended = kdc(*export, "--out", tmp_path / "found", "--teacher", f"outputs:{moved}")
        assert ended.code == 0, ended.err
        bundle = read_json(tmp_path / "found" / "bundle.json", Bundle)
        assert bundle.teacher is not None
        assert bundle.teacher.source == f"outputs:{table.name}"
        moved.with_name("other.csv").write_text("".join(moved.read_text().splitlines(keepends=True)[:-1]))
        for name, said in (("other.csv", "is not the table that this student"), ("gone.csv", "does not exist")):
            ended = kdc(*export, "--out", tmp_path / "refused", "--teacher", f"outputs:{tmp_path / name}")
            assert ended.code == 2
            assert said in ended.err
            assert not (tmp_path / "refused").exists()
    finally:
        shutil.move(str(moved), table)


@pytest.mark.slow
def test_a_table_gives_the_same_retention_as_the_teacher_that_made_it(kdc: Kdc, tmp_path: Path, here: Path) -> None:
    """One student on the digits, 359 test samples, exported with each: the figures are equal, to the last digit. The
    teacher learns little, so that there is something to disagree on."""
    little = (*TRAINING, "--data", "digits", "--epochs", 1, "--set", "optimizer.lr=0.003")
    teacher, table = tmp_path / "teacher", tmp_path / "answers.csv"
    ended = kdc("teach", "--teacher", "timm:test_resnet", "--teacher-init", "random", *little, "--out", teacher)
    assert ended.code == 0, ended.err
    student = ("--student", "timm:test_efficientnet", "--student-init", "random", "--out", tmp_path / "model")
    ended = kdc("distill", "--teacher", f"run:{teacher}", *student, *little)
    assert ended.code == 0, ended.err
    found = {}
    for kind, how in {"model": None, "all": (), "top": ("--top-k", 2), "label": ("--labels-only",)}.items():
        run = tmp_path / kind
        if how is not None:
            ended = kdc(
                "predict", "--teacher", f"run:{teacher}", "--data", "digits", "--out", table, "--overwrite", *how
            )
            assert ended.code == 0, ended.err
            as_taught_by(table, tmp_path / "model", run)
        budget = ("--profile", here, "--set", "budget.min_retention=0.999")
        ended = kdc("export", run, *budget, *QUICK, "--out", tmp_path / f"{kind}-bundle")
        assert ended.code == 1, ended.err
        found[kind] = read_json(tmp_path / f"{kind}-bundle" / "report.json", Report)
        assert min_retention(tmp_path / f"{kind}-bundle").verdict == "fail"
    ran = found.pop("model")
    row, theirs = ran.rows
    assert row.retention is not None
    assert theirs.accuracy is not None
    assert row.retention.value < 0.99, "else this compares nothing"
    assert theirs.accuracy.value < 1
    for report in found.values():
        [other] = report.rows
        for figure in ("accuracy", "retention", "difference", "agreement", "mcnemar_p", "worst_retention"):
            assert getattr(other, figure) == getattr(row, figure), figure
        assert report.teacher_table is not None
        for figure in ("accuracy", "balanced_accuracy", "worst_class"):
            assert getattr(report.teacher_table, figure) == getattr(theirs, figure), figure


def as_taught_by(table: Path, run: Path, to: Path) -> None:
    """The run `run` in `to`, as if its student had learned from `table`: the same weights."""
    shutil.copytree(run, to)
    request = read_json(to / "run.json", Request).model_copy(update={"teacher": f"outputs:{table}"})
    record = read_json(to / "student.json", Student)
    loaded = load_table(request, record.class_names)
    assert loaded is not None
    write_json(to / "run.json", request)
    write_json(to / "student.json", record.model_copy(update={"teacher": loaded.weights}))


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
    unlearned = ("--set", "budget.min_class_recall=null")  # two epochs teach it hardly more than one class
    ended = kdc(*export, "--out", tmp_path / "bundle", "--no-throughput", "--allow-unmeasured", *unlearned)
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
            student, scheme, Destination(tmp_path / name), teacher=teacher, epochs=1, progress=Silent(),
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
