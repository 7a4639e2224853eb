"""A class that a model has lost is said wherever its figures are, and no bundle of it passes by default."""

from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.report import build_report
from tests.kit import TRAINING, Ended

Kdc = Callable[..., Ended]
STUDENT = ("--student", "timm:test_efficientnet", "--student-init", "random", "--epochs", 1, *TRAINING)
UNTRAINED = (*STUDENT, "--set", "optimizer.lr=1e-9")
"""It stays as it was made, and answers one or two of the three classes whatever it sees."""


def said(ended: Ended) -> str:
    return " ".join(ended.err.split())


@pytest.mark.slow
def test_from_training_to_the_gate(kdc: Kdc, teacher_run: Path, colours: Path, here: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    data = ("--data", f"folder:{colours}")
    trained = kdc("distill", "--teacher", f"run:{teacher_run}", *data, "--out", run, *UNTRAINED)
    assert trained.code == 0
    for split in ("validation", "test"):
        assert f"{split} samples right" in said(trained)
    assert said(trained).count("the student never or hardly ever answers class") == 1
    assert "the teacher never" not in said(trained)
    predicted = kdc("predict", "--teacher", f"run:{run}", *data, "--out", tmp_path / "answers.csv")
    assert f"run:{run}".split("/")[0] in said(predicted)
    assert "never or hardly ever answers class" in said(predicted)
    exported = kdc(
        "export", run, "--profile", here, "--out", tmp_path / "bundle", "--rounds", 12, "--no-throughput",
        "--target", "onnxruntime", "--set", "budget.min_retention=null",
    )  # fmt: skip
    assert exported.code == 1
    lines = {check.line: check for check in build_report(tmp_path / "bundle").checks}
    assert lines["min_class_retention"].verdict == "fail"
    assert "0 of" in lines["min_class_retention"].reason
    assert "min_retention" not in lines
