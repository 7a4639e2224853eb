"""run_ort.py's precisions: what ran is read from onnxruntime, whatever was asked for."""

import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from tests.targets.harness import LoadScript, StartRunner
else:
    from harness import LoadScript, StartRunner

SIDE, CHANNELS = 8, 16
Write = Callable[..., Path]


def graph_of(precision: str, weight: int = 64, value: float = 1.0) -> onnx.ModelProto:
    """A convolution with 3x3 filters, all of whose weights are `weight` steps of 1, and a mean: "fp32", "fp16" with
    casts, "int8" as Q/DQ, or "unfused": Q/DQ before the convolution and none behind it, which no kernel takes."""
    kernel = np.full((CHANNELS, 3, 3, 3), weight)
    ones = {"scale": np.float32(value), "zero": np.uint8(0), "unit": np.float32(1), "none": np.int8(0)}
    weights = {"fp32": kernel.astype(np.float32), "fp16": kernel.astype(np.float16)}
    stored = {"kernel": weights.get(precision, kernel.astype(np.int8)), "big": np.float32(4000), **ones}
    quantize = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["data"]),
        helper.make_node("DequantizeLinear", ["kernel", "unit", "none"], ["filters"]),
    ]
    behind = [
        helper.make_node("QuantizeLinear", ["sums", "big", "zero"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "big", "zero"], ["results"]),
    ]
    casts = [helper.make_node("Cast", ["image"], ["data"], to=TensorProto.FLOAT16)]
    before = {"fp16": casts, "int8": quantize, "unfused": quantize}.get(precision, [])
    data = "image" if precision == "fp32" else "data"
    filters = "filters" if quantize == before else "kernel"
    after = {"int8": behind, "fp16": [helper.make_node("Cast", ["sums"], ["results"], to=TensorProto.FLOAT)]}
    last = "results" if precision in after else "sums"
    nodes = [
        *before,
        helper.make_node("Conv", [data, filters], ["sums"]),
        *after.get(precision, []),
        helper.make_node("GlobalAveragePool", [last], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    used = {name for node in nodes for name in node.input}
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items() if name in used]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CHANNELS])
    graph = helper.make_graph(nodes, "one", [image], [logits], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to(name: str, **how: int) -> Path:
        onnx.save(graph_of(name, **how), str(tmp_path / f"{name}.onnx"))
        return tmp_path / f"{name}.onnx"

    return to


@pytest.mark.slow
def test_int8_runs_and_is_reported(start: "StartRunner", write: Write) -> None:
    runner = start("run_ort.py")
    assert {"fp32", "int8"} <= set(runner.ask("info")["precisions"]) <= {"fp32", "fp16", "int8"}
    for name, expected in (("int8", "int8"), ("unfused", "fp32"), ("fp32", "fp32")):
        # Asked for int8 each time: what ran is told all the same.
        assert runner.ask("load", model=str(write(name)), threads=1, precision="int8")["ok"] is True
        assert runner.ask("executed") == {"ok": True, "executed_precision": expected}


@pytest.mark.slow
def test_fp16_is_listed_where_it_runs(start: "StartRunner", write: Write) -> None:
    runner = start("run_ort.py")
    listed = "fp16" in runner.ask("info")["precisions"]
    assert runner.ask("load", model=str(write("fp16")), threads=1, precision="fp16")["ok"] is True
    executed = runner.ask("executed")["executed_precision"]
    assert executed == ("fp16" if listed else "fp32")
    if platform.machine() in ("x86_64", "AMD64"):
        assert not listed


def test_layers_that_differ_are_called_mixed(load: "LoadScript", write: Write) -> None:
    script = load("run_ort")
    model = onnx.load(str(write("int8")))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((CHANNELS, CHANNELS, 1, 1), np.float32), "more"))
    model.graph.node[-2].input[0] = "others"
    model.graph.node.insert(len(model.graph.node) - 2, helper.make_node("Conv", ["results", "more"], ["others"]))
    assert script.executed(ort, model.SerializeToString(), 1) == "mixed fp32+int8"


def test_sums_do_not_saturate(load: "LoadScript", write: Write) -> None:
    """x86 without VNNI adds two products in 16 bits: 2 * 255 * 127 is more than they hold. The option that makes them
    exact must stay."""
    script = load("run_ort")
    loaded = script.load(ort, str(write("int8", weight=127)), 1, "int8", 1)
    logits = loaded.call(np.full((1, 3, SIDE, SIDE), 255, np.float32))
    by_hand = np.rint(27 * 255 * 127 / 4000) * 4000
    np.testing.assert_array_equal(logits, np.full((1, CHANNELS), by_hand, np.float32))


def test_a_runtime_that_cannot_try_fp16_has_none(load: "LoadScript") -> None:
    assert load("run_ort").precisions(object()) == ["fp32", "int8"]
