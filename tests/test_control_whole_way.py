"""What distillation gained, from `kdc distill --control` to the report of the bundle."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.report import build_report
from compressor.schema.base import read_json
from compressor.schema.student import Student
from compressor.stats import gain_line, gained_interval
from tests.kit import TRAINING, Ended

Kdc = Callable[..., Ended]
STUDENT = ("--student", "timm:test_efficientnet", "--student-init", "random", "--epochs", 2, *TRAINING)


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.slow
def test_from_training_to_the_report(kdc: Kdc, teacher_run: Path, colours: Path, here: Path, tmp_path: Path) -> None:
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    data = ("--data", f"folder:{colours}")
    trained = kdc("distill", "--teacher", f"run:{teacher_run}", *data, "--out", run, *STUDENT, "--control", "--json")
    assert trained.code == 0, trained.err
    student = read_json(run / "student.json", Student)
    gain = student.gain
    assert gain is not None
    assert json.loads(trained.out)["gain"] == gain.model_dump(mode="json")
    lines = [gain_line(gained_interval(found), found.split) for found in (gain.validation, gain.test)]
    assert all(line in words(trained.err) for line in lines)
    again = kdc("distill", "--teacher", f"run:{teacher_run}", *data, "--out", run, *STUDENT, "--control", "--resume")
    assert again.code == 0
    assert lines[1] in words(again.out)
    exported = kdc(
        "export", run, "--profile", here, "--out", bundle, "--rounds", 12, "--no-throughput", "--target", "onnxruntime",
    )  # fmt: skip
    assert exported.code in (0, 1, 3), exported.err
    report = build_report(bundle)
    assert report.gain is not None
    assert (report.gain.test.value, report.gain.test.n) == (gain.test.difference, gain.test.n)
    assert f"**Gain:** {lines[1]}; {lines[0]} (95 %" in (bundle / "report.md").read_text(encoding="utf-8")
    told = json.loads(kdc("report", bundle, "--format", "json").out)["gain"]
    assert told == report.gain.model_dump(mode="json")
    assert str(tmp_path) not in (bundle / "bundle.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--set", "losses=[{name: cross_entropy}]"), "there is nothing to compare"),
        (("--precompute", "--set", "views.distinct=2"), "--control has no meaning with it"),
    ],
)
def test_what_makes_no_sense_is_refused(options: tuple[str, ...], said: str, kdc: Kdc, tmp_path: Path) -> None:
    model = ("--teacher", "timm:test_resnet", "--data", "digits")
    ended = kdc("distill", *model, "--out", tmp_path / "run", "--control", *options)
    assert (ended.code, ended.out) == (2, "")
    assert said in words(ended.err)
    assert not (tmp_path / "run").exists()
