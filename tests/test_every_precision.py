"""int8 from the run to the program that classifies a picture, through the command line; quantization-aware too."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from compressor.measure.machine import this_machine
from compressor.profiles import write_new_profile
from tests.kit import TRAINING, Ended, call, write_colours

Kdc = Callable[..., Ended]
FAST = ("--rounds", 12, "--no-throughput", "--quiet")


@pytest.fixture(scope="module")
def precise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of this machine with int8 on two runtimes."""
    targets = {"onnxruntime": ["fp32", "int8"], "openvino": ["f32", "int8"]}
    return write_new_profile("precise", tmp_path_factory.mktemp("profile"), this_machine(), targets)


@pytest.fixture(scope="module")
def tournament(tmp_path_factory: pytest.TempPathFactory, student_run: Path, precise: Path) -> Path:
    out = tmp_path_factory.mktemp("tournament") / "bundle"
    assert call("export", student_run, "--profile", precise, "--out", out, "--no-qat", *FAST) in (0, 1)
    return out


def manifest(bundle: Path) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in json.loads((bundle / "bundle.json").read_text())["variants"]}


def refused(ended: Ended, *texts: str) -> None:
    assert ended.code == 2, ended
    assert all(text in ended.err for text in texts), ended.err
    assert "Traceback" not in ended.err


def test_every_variant_is_built_scored_measured_and_one_is_chosen(tournament: Path) -> None:
    report = json.loads((tournament / "report.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    validation = json.loads((tournament / "bundle.json").read_text())["student"]["validation"]["n"]
    for name in ("onnxruntime-int8", "openvino-int8"):
        row = rows[name]
        assert "int8" in row["executed_precision"]
        assert row["score"]["n"] == validation
        assert sum(rung["taken"] for rung in row["rungs"]) == 1
        assert row["rungs"][0]["rung"] == "ptq"
        assert row["parity_agreement"] >= 0.9
        assert row["weight_bytes"]["int8"] > 0
        assert row["size_bytes"] < 0.7 * rows["onnxruntime-fp32"]["size_bytes"]
    timed = {name: row["p50_ms"]["value"] for name, row in rows.items() if row["role"] == "student"}
    failed = {check["variant"] for check in report["checks"] if check["verdict"] == "fail"}
    assert report["winner"] == min(set(timed) - failed, key=lambda name: timed[name])
    assert [path.name for path in tournament.parent.iterdir()] == ["bundle"], "nothing is left beside it"
    assert not list(tournament.glob(".*"))


def test_what_ships_classifies_a_picture(tournament: Path, tmp_path: Path, kdc: Kdc) -> None:
    report = json.loads((tournament / "report.json").read_text())
    shipped = json.loads((tournament / "best" / "manifest.json").read_text())
    assert shipped["variant"] == report["winner"]
    logits = np.load(tournament / "measurements" / f"{report['winner']}.npy")
    Image.fromarray(np.load(tournament / "eval" / "student_inputs.npy")[0]).save(tmp_path / "picture.png")
    command = [sys.executable, "classify.py", str(tmp_path / "picture.png"), "--top", "1"]
    done = subprocess.run(command, cwd=tournament / "best", capture_output=True, text=True, check=True, timeout=120)
    assert report["class_names"][int(logits[0].argmax())] in done.stdout
    before = kdc("check", tournament, "--quiet").code
    assert before == kdc("check", tournament, "--quiet").code == (0 if report["verdict"] == "pass" else 1)


def test_what_ships_is_sealed(tournament: Path, tmp_path: Path, kdc: Kdc) -> None:
    copy = Path(shutil.copytree(tournament, tmp_path / "copy"))
    (copy / "best" / "labels.txt").write_text("cat\ndog\n")
    refused(kdc("check", copy), "best/labels.txt was changed")
    kdc("report", copy)
    assert (copy / "best" / "labels.txt").read_text() == (tournament / "best" / "labels.txt").read_text(), "made anew"


def test_baked_preprocessing_takes_pixels(student_run: Path, precise: Path, tmp_path: Path, kdc: Kdc) -> None:
    out = tmp_path / "bundle"
    ended = kdc(
        "export", student_run, "--profile", precise, "--out", out, "--bake-preprocessing",
        "--precision", "fp32", "--precision", "f32", *FAST,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    variants = manifest(out)
    assert {name: one["picture_type"] for name, one in variants.items()} == {
        "onnxruntime-fp32": "uint8",
        "openvino-f32": "uint8",
        "teacher-onnxruntime-fp32": "float32",
    }
    rows = {row["name"]: row for row in json.loads((out / "report.json").read_text())["rows"]}
    assert all(rows[name]["parity_cosine"] > 0.9999 for name in variants)
    given = json.loads((out / "best" / "preprocess.json").read_text())
    assert (given["type"], given["layout"]) == ("uint8", "NHWC")


def test_dynamic_batch(student_run: Path, precise: Path, tmp_path: Path, kdc: Kdc) -> None:
    asked = ("export", student_run, "--profile", precise, "--out", tmp_path / "bundle", "--dynamic-batch", *FAST)
    refused(kdc(*asked), "--dynamic-batch", "openvino", "--target")
    assert kdc(*asked, "--target", "onnxruntime").code == 0
    for name, one in manifest(tmp_path / "bundle").items():
        session = onnxruntime.InferenceSession(str(tmp_path / "bundle" / one["model"]))
        assert isinstance(session.get_inputs()[0].shape[0], int) == one["name"].startswith("teacher"), name
        assert one["dynamic_batch"] != one["name"].startswith("teacher")


def test_what_cannot_be_had_is_refused(student_run: Path, precise: Path, tmp_path: Path, kdc: Kdc) -> None:
    asked = ("export", student_run, "--profile", precise, "--out", tmp_path / "bundle")
    refused(kdc(*asked, "--precision", "int4"), "--precision int4", "onnxruntime (fp32, int8)")
    refused(kdc(*asked, "--target", "tensorrt"), "--target tensorrt")
    bake = ("--bake-preprocessing", "--set", "targets=[{runtime: tensorrt-rtx, precisions: [fp32]}]")
    refused(kdc(*asked, *bake), "--bake-preprocessing", "tensorrt-rtx", "onnxruntime, openvino")
    assert list(tmp_path.iterdir()) == []


def test_a_student_trained_for_int8_enters_at_the_top(
    teacher_run: Path, colours: Path, precise: Path, tmp_path: Path, kdc: Kdc
) -> None:
    run, out = tmp_path / "run", tmp_path / "bundle"
    training = (
        "distill", "--teacher", f"run:{teacher_run}", "--data", f"folder:{colours}", "--student",
        "timm:test_efficientnet", "--student-init", "random", "--epochs", 4, "--out", run, *TRAINING,
        "--set", "optimizer.lr=0.01", "--set", "qat.epochs=1", "--quiet", "--qat",
    )  # fmt: skip
    refused(kdc(*training), "--qat needs a profile")
    ended = kdc(*training, "--profile", precise)
    assert ended.code == 0, ended.err
    record = json.loads((run / "student.json").read_text())
    assert record["quantization"]["scheme"]["activations"] == "uint8"
    mistyped = [f"run:{teacher_run}-nowhere" if one == f"run:{teacher_run}" else one for one in training]
    assert kdc(*mistyped, "--profile", precise, "--overwrite").code == 2
    assert json.loads((run / "student.json").read_text()) == record, "the finished run is still there"
    ended = kdc("export", run, "--profile", precise, "--out", out, "--target", "onnxruntime", *FAST)
    assert ended.code in (0, 1), ended.err
    one = manifest(out)["onnxruntime-int8"]
    assert one["rungs"][0]["rung"] == "qat"
    assert one["reference_logits"].startswith("eval/student_qat_uint8") == (one["rungs"][0]["taken"])
    assert manifest(out)["onnxruntime-fp32"]["reference_logits"] == "eval/student_reference.npy"


def test_too_few_pictures_to_calibrate_on(
    teacher_run: Path, tmp_path: Path, precise: Path, student_run: Path, kdc: Kdc
) -> None:
    """A run whose training split holds fewer pictures than ranges can be computed from."""
    data = write_colours(tmp_path / "few", each=12)
    run = tmp_path / "run"
    training = (
        "distill", "--teacher", f"run:{teacher_run}", "--data", f"folder:{data}", "--student", "timm:test_efficientnet",
        "--student-init", "random", "--epochs", 1, "--out", run, *TRAINING, "--quiet",
    )  # fmt: skip
    assert kdc(*training).code == 0
    ended = kdc("export", run, "--profile", precise, "--out", tmp_path / "bundle", "--target", "onnxruntime-int8")
    refused(ended, "calibration", "32")
    assert not (tmp_path / "bundle").exists()
    assert not list(tmp_path.glob(".*"))
