"""int8 from the run to the program that classifies an image, through the command line; quantization-aware too."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pytest
from PIL import Image

from compressor.export.bundle import items as bundle_steps
from compressor.export.onnx.qat import qat_model
from compressor.measure.machine import this_machine
from compressor.profiles import write_new_profile
from tests.kit import TRAINING, Ended, call, write_colours
from tests.targets.trt_graphs import needs_rtx

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


def test_what_ships_classifies_a_image(tournament: Path, tmp_path: Path, kdc: Kdc) -> None:
    report = json.loads((tournament / "report.json").read_text())
    shipped = json.loads((tournament / "best" / "manifest.json").read_text())
    assert shipped["variant"] == report["winner"]
    logits = np.load(tournament / "measurements" / f"{report['winner']}.npy")
    Image.fromarray(np.load(tournament / "eval" / "student_inputs.npy")[0]).save(tmp_path / "image.png")
    command = [sys.executable, "classify.py", str(tmp_path / "image.png"), "--top", "1"]
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


def edited(bundle: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of the bundle with another measurement, as a device brings one back."""
    copy = Path(shutil.copytree(bundle, folder / "copy"))
    file = copy / "measurements" / "measurement.json"
    measured = json.loads(file.read_text())
    change(measured)
    file.write_text(json.dumps(measured))
    return copy


def test_what_ships_follows_the_winner(tournament: Path, tmp_path: Path, kdc: Kdc) -> None:
    """A device on which the winner is slow: best/ becomes another model, and keeps nothing of the one before."""
    first = json.loads((tournament / "report.json").read_text())["winner"]

    def slower(measured: dict[str, Any]) -> None:
        for block in measured["blocks"]:
            # The winner, and on its runtime all others: so that another runtime wins, with other files.
            if block["variant"].startswith(first.split("-")[0]):
                block["wall_ms"] = [100 * value for value in block["wall_ms"]]

    copy = edited(tournament, tmp_path, slower)
    refused(kdc("check", copy), "measurements/measurement.json was changed", "kdc report")
    assert kdc("report", copy, "--format", "json").code == 0
    report = json.loads((copy / "report.json").read_text())
    shipped = json.loads((copy / "best" / "manifest.json").read_text())
    assert report["winner"].split("-")[0] != first.split("-")[0]
    assert shipped["variant"] == report["winner"]
    one = manifest(copy)[report["winner"]]
    for entry in one["files"]:
        assert (copy / "best" / Path(entry["path"]).name).read_bytes() == (copy / entry["path"]).read_bytes()
    models = {path.name for path in (copy / "best").iterdir() if path.suffix in (".onnx", ".xml", ".bin")}
    assert models == {Path(entry["path"]).name for entry in one["files"]}
    assert kdc("check", copy, "--quiet").code == (0 if report["verdict"] == "pass" else 1)


def test_what_may_not_ship_any_more_is_taken_away(tournament: Path, tmp_path: Path, kdc: Kdc) -> None:
    """A device on which every variant runs at another precision than was asked for."""

    def otherwise(measured: dict[str, Any]) -> None:
        for contestant in measured["contestants"]:
            contestant["executed_precision"] = "fp8"

    copy = edited(tournament, tmp_path, otherwise)
    assert (copy / "best" / "manifest.json").exists()
    kdc("report", copy)
    report = json.loads((copy / "report.json").read_text())
    assert (report["winner"], report["verdict"]) == (None, "fail")
    assert not (copy / "best").exists()
    assert kdc("check", copy, "--quiet").code == 1


def test_pixels_in_batches_that_vary(student_run: Path, precise: Path, tmp_path: Path, kdc: Kdc) -> None:
    """--bake-preprocessing and --dynamic-batch at once: the model takes any number of images as they are."""
    out = tmp_path / "bundle"
    both = ("--bake-preprocessing", "--dynamic-batch", "--precision", "fp32", "--precision", "f32")
    ended = kdc("export", student_run, "--profile", precise, "--out", out, *both, *FAST)
    assert ended.code == 0, ended.err
    variants = manifest(out)
    assert {name: (one["baked"], one["dynamic_batch"]) for name, one in variants.items()} == {
        "onnxruntime-fp32": (True, True),
        "openvino-f32": (True, True),
        "teacher-onnxruntime-fp32": (False, False),
    }
    rows = {row["name"]: row for row in json.loads((out / "report.json").read_text())["rows"]}
    assert all(rows[name]["parity_cosine"] > 0.9999 for name in variants)
    given = json.loads((out / "best" / "preprocess.json").read_text())
    assert (given["type"], given["layout"]) == ("uint8", "NHWC")

    session = onnxruntime.InferenceSession(out / variants["onnxruntime-fp32"]["model"])
    # On a CPU with bfloat16 it would take that by itself.
    precisely = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(out / variants["openvino-f32"]["model"], "CPU", precisely)
    [pixels] = session.get_inputs()
    assert (pixels.type, pixels.shape[1:]) == ("tensor(uint8)", [32, 32, 3])
    assert (model.input(0).element_type, str(model.input(0).partial_shape)) == (openvino.Type.u8, "[?,32,32,3]")
    one = variants["openvino-f32"]
    images, wanted = np.load(out / one["inputs"]), np.load(out / one["reference_logits"])
    for size in (1, 5, 24):
        for answer in (session.run(None, {pixels.name: images[:size]})[0], model(images[:size])[0]):
            np.testing.assert_allclose(answer, wanted[:size], atol=1e-3 * np.abs(wanted).max())


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


@pytest.fixture(scope="module")
def trained_for_int8(
    tmp_path_factory: pytest.TempPathFactory, teacher_run: Path, colours: Path, precise: Path
) -> tuple[Path, tuple[object, ...]]:
    """A run of `kdc distill --qat`, and the command that made it."""
    run = tmp_path_factory.mktemp("trained") / "run"
    training = (
        "distill", "--teacher", f"run:{teacher_run}", "--data", f"folder:{colours}", "--student",
        "timm:test_efficientnet", "--student-init", "random", "--epochs", 4, "--out", run, *TRAINING,
        "--set", "optimizer.lr=0.01", "--set", "qat.epochs=1", "--quiet", "--qat", "--profile", precise,
    )  # fmt: skip
    assert call(*training) == 0
    return run, training


def test_training_for_int8_is_recorded_and_not_lost(
    trained_for_int8: tuple[Path, tuple[object, ...]], teacher_run: Path, precise: Path, kdc: Kdc
) -> None:
    run, training = trained_for_int8
    record = json.loads((run / "student.json").read_text())
    assert record["quantization"]["scheme"]["activations"] == "uint8"
    refused(kdc(*(one for one in training if one not in ("--profile", precise))), "--qat needs a profile")
    mistyped = [f"run:{teacher_run}-nowhere" if one == f"run:{teacher_run}" else one for one in training]
    assert kdc(*mistyped, "--overwrite").code == 2
    assert json.loads((run / "student.json").read_text()) == record, "the finished run is still there"


def test_a_student_trained_for_int8_enters_at_the_top(
    trained_for_int8: tuple[Path, tuple[object, ...]], precise: Path, tmp_path: Path, kdc: Kdc
) -> None:
    run, out = trained_for_int8[0], tmp_path / "bundle"
    ended = kdc("export", run, "--profile", precise, "--out", out, "--precision", "int8", "--explain", *FAST)
    assert ended.code in (0, 1), ended.err
    lost = {row["variant"]: row for row in json.loads((out / "report.json").read_text())["explained"]["lost"]}
    for name in ("onnxruntime-int8", "openvino-int8"):
        one = manifest(out)[name]
        taken = next(rung["rung"] for rung in one["rungs"] if rung["taken"])
        assert (lost[name]["missing"], lost[name]["of"] > 20) == (None, True)
        assert lost[name]["against"].startswith("the retrained student" if taken == "qat" else "the student in fp32")
        assert lost[name]["most"]["module"] is not None
        assert one["rungs"][0]["rung"] == "qat"
        assert one["reference_logits"].startswith("eval/student_qat_uint8") == (one["rungs"][0]["taken"])
    assert manifest(out)["onnxruntime-fp32"]["reference_logits"] == "eval/student_reference.npy"


@needs_rtx
def test_a_target_that_rounds_otherwise_takes_it_as_any_other_student(
    trained_for_int8: tuple[Path, tuple[object, ...]], precise: Path, tmp_path: Path, kdc: Kdc
) -> None:
    """TensorRT rounds to symmetric int8: ranges that were trained for uint8 are none for it, and it climbs from below.

    test_workflow has which of two such targets a student is trained for.
    """
    targets, elsewhere = "targets=[{runtime: tensorrt, precisions: [int8]}]", "fingerprint.arch=aarch64"
    out = tmp_path / "bundle"
    asked = ("export", trained_for_int8[0], "--profile", precise, "--set", targets, "--set", elsewhere, "--out", out)
    ended = kdc(*asked, *FAST)
    assert ended.code == 3, ended.err
    assert "the student was trained for uint8 activations with" in ended.err
    assert "tensorrt needs int8 activations with 8-bit weights: it is quantized as any other" in ended.err
    one = manifest(out)["tensorrt-int8"]
    assert {rung["rung"] for rung in one["rungs"]} >= {"ptq"}
    assert "qat" not in {rung["rung"] for rung in one["rungs"]}
    assert one["reference_logits"] == "eval/student_reference.npy"
    assert not list((out / "eval").glob("student_qat*"))


@pytest.fixture(scope="module")
def beginner(tmp_path_factory: pytest.TempPathFactory, teacher_run: Path, colours: Path) -> Path:
    """A student after one step, which guesses. Trained on for int8 it learns the colours."""
    out = tmp_path_factory.mktemp("beginner") / "run"
    training = (
        "distill", "--teacher", f"run:{teacher_run}", "--data", f"folder:{colours}", "--student",
        "timm:test_efficientnet", "--student-init", "random", "--epochs", 1, "--out", out, "--quiet",
        "--input-size", 32, "--batch-size", 87, "--set", "crop_pct=1.0", "--set", "optimizer.lr=0.004",
        "--set", "qat.epochs=8", "--set", "qat.lr_share=1", "--set", "qat.ema_decay=0", "--set", "losses.2.weight=0",
    )  # fmt: skip
    assert call(*training) == 0
    return out


def test_where_nothing_below_holds_the_student_is_trained_on_inside_the_export(
    beginner: Path, precise: Path, tmp_path: Path, kdc: Kdc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where that export is interrupted behind its training, the next one goes on there."""
    monkeypatch.setattr(bundle_steps, "needed", lambda profile, right, n, teacher: float(n))  # of a demanding profile
    out = tmp_path / "bundle"
    asked = ("export", beginner, "--profile", precise, "--target", "onnxruntime-int8", "--out", out, *FAST)
    times = list[int]()

    def taken_up(run: Path, *more: Any) -> Any:
        """The step that comes after the training."""
        times.append((run / "student.safetensors").stat().st_mtime_ns)
        if len(times) == 1:
            raise KeyboardInterrupt
        return qat_model(run, *more)

    monkeypatch.setattr(bundle_steps, "qat_model", taken_up)
    stopped = kdc(*asked)
    assert stopped.code == 130
    assert "the same kdc export goes on from there" in stopped.err
    assert "--resume" not in stopped.err, "export has no such option"
    [kept] = out.iterdir()
    assert kept.name.startswith(".kdc-qat-")
    ended = kdc(*asked)
    assert ended.code == 0, ended.err
    assert len(times) == 2
    assert times[0] == times[1], "it was trained again"
    assert not list(out.glob(".kdc-qat-*")), "the training itself does not stay"

    report = json.loads((out / "report.json").read_text())
    [row] = [row for row in report["rows"] if row["name"] == "onnxruntime-int8"]
    climbed = dict.fromkeys(rung["rung"] for rung in row["rungs"])
    assert list(climbed) == ["ptq", "bias-correction", "fallback", "qat"]
    assert [rung["rung"] for rung in row["rungs"] if rung["taken"]] == ["qat"]
    assert row["score"]["correct"] == row["score"]["n"] > row["score"]["reference_correct"]
    assert "int8" in row["executed_precision"]
    # It is another student now: held against its own answers in torch, and not against those in fp32.
    one = manifest(out)["onnxruntime-int8"]
    assert one["reference_logits"].startswith("eval/student_qat_uint8_w")
    assert one["weights"]["sha256"] != json.loads((out / "bundle.json").read_text())["student"]["weights"]["sha256"]
    assert row["parity_agreement"] >= 0.9
    assert report["winner"] == "onnxruntime-int8"


def test_too_few_images_to_calibrate_on(
    teacher_run: Path, tmp_path: Path, precise: Path, student_run: Path, kdc: Kdc
) -> None:
    """A run whose training split holds fewer images than ranges can be computed from."""
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
