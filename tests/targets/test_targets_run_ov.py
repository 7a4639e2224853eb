"""run_ov.py and int8: what really runs as int8 is reported as such, what silently runs in float as float."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

if TYPE_CHECKING:
    from tests.targets.harness import LoadScript, StartRunner
    from tests.targets.tiny_bundle import BATCH, IMAGES, MEAN, SIDE, STD, Tiny
else:
    from tiny_bundle import BATCH, IMAGES, MEAN, SIDE, STD

KERNEL = np.random.default_rng(5).integers(-63, 64, (16, 3, 3, 3), dtype=np.int8)
SCALE = np.float32(0.01)
LOW, HIGH = np.float32(-3), np.float32(3)


def write_ir(folder: Path, *, quantized: bool, float_layer: bool) -> Path:
    """A 3×3 convolution, relu, perhaps a 1×1 convolution in float, and the mean over all places: [BATCH, channels]."""
    image = ops.parameter([BATCH, 3, SIDE, SIDE], np.float32)
    bounds = [ops.constant(value) for value in (LOW, HIGH, LOW, HIGH)]
    data = ops.fake_quantize(image, *bounds, levels=256) if quantized else image
    kernel = ops.convert(ops.constant(KERNEL), np.float32) if quantized else ops.constant(KERNEL.astype(np.float32))
    places = [1, 1], [1, 1], [1, 1], [1, 1]
    result = ops.relu(ops.convolution(data, ops.multiply(kernel, ops.constant(SCALE)), *places))
    if float_layer:
        pointwise = np.random.default_rng(6).normal(size=(8, 16, 1, 1)).astype(np.float32)
        result = ops.convolution(result, ops.constant(pointwise), [1, 1], [0, 0], [0, 0], [1, 1])
    path = folder / f"model-{quantized}-{float_layer}.xml"
    ov.save_model(ov.Model([ops.reduce_mean(result, [2, 3], False)], [image]), path, compress_to_fp16=False)
    return path


@pytest.mark.parametrize(
    ("quantized", "float_layer", "expected"),
    [(True, False, "int8"), (True, True, "mixed f32+int8"), (False, True, "f32")],
    ids=["quantized", "partly", "not-at-all"],
)
def test_executed_tells_int8_from_float(
    start: "StartRunner", tmp_path: Path, quantized: bool, float_layer: bool, expected: str
) -> None:
    runner = start("run_ov.py")
    if "int8" not in runner.ask("info")["precisions"]:
        pytest.skip("OpenVINO has no int8 kernels on this machine")
    model = write_ir(tmp_path, quantized=quantized, float_layer=float_layer)
    assert runner.ask("load", model=str(model), threads=1, precision="int8")["ok"] is True
    assert runner.ask("executed")["executed_precision"] == expected


def test_int8_answers_to_the_step_of_its_scale(start: "StartRunner", tiny: "Tiny", tmp_path: Path) -> None:
    answers = {}
    for precision, quantized in (("int8", True), ("f32", False)):
        runner = start("run_ov.py")
        model = write_ir(tmp_path, quantized=quantized, float_layer=False)
        runner.ask("load", model=str(model), threads=1, precision=precision)
        out = tmp_path / f"{precision}.npy"
        asked = {"inputs": "images.npy", "mean": MEAN, "std": STD, "batch": BATCH, "out": str(out)}
        assert runner.ask("predict", **asked) == {"ok": True, "n": IMAGES}
        answers[precision] = np.load(out)
    # Half a step in each input of a sum of 27 products, at worst; the mean over 256 places averages most of it away.
    step = (HIGH - LOW) / 255
    worst = 0.5 * step * SCALE * np.abs(KERNEL.astype(int)).sum(axis=(1, 2, 3))
    difference = np.abs(answers["int8"] - answers["f32"])
    assert (difference <= worst).all()
    assert difference.max() > 0


def test_precisions_name_int8_only_where_a_convolution_runs_as_int8(
    load: "LoadScript", monkeypatch: pytest.MonkeyPatch
) -> None:
    run_ov = load("run_ov")
    assert ("int8" in run_ov.precisions(ov)) == (run_ov.executed(compiled(run_ov.quantized_convolution(ov))) == "int8")
    # A plugin that computes the quantized convolution in float: here by giving it one that is not quantized.
    image = ops.parameter([1, 16, 4, 4], np.float32)
    weights = ops.constant(np.ones((16, 16, 1, 1), np.float32))
    plain = ov.Model([ops.convolution(image, weights, [1, 1], [0, 0], [0, 0], [1, 1])], [image])
    monkeypatch.setattr(run_ov, "quantized_convolution", lambda _: plain)
    assert run_ov.precisions(ov)[:2] == ["f32", "f16"]
    assert "int8" not in run_ov.precisions(ov)


def compiled(model: Any) -> Any:
    return ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
