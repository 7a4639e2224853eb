"""Graphs that TensorRT would refuse, or read as something else, are refused with the node's name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compressor.errors import KdcError
from compressor.export.tensorrt.conformance import build, check_conformance, violations
from compressor.install import install_line
from tests.targets.trt_graphs import CHANNELS, Graph

OPSET = 17


def with_constant(name: str, value: object, kind: type[np.generic]) -> Graph:
    graph = Graph()
    graph.constants[name] = np.asarray(value, kind)
    return graph


def without_zero_points() -> Graph:
    graph = Graph()
    for node in ("q_in", "dq_in"):
        del graph.nodes[node].input[2]
    return graph


def integers_elsewhere() -> Graph:
    graph = Graph()
    graph.nodes["cast"] = helper.make_node("Cast", ["x_q"], ["back"], "cast", to=TensorProto.FLOAT)
    graph.nodes["also"] = helper.make_node("ReduceMax", ["back"], ["unused"], "also", keepdims=0)
    return graph


def computed(name: str) -> Graph:
    graph = Graph()
    value = graph.constants.pop(name)
    graph.constants["raw"] = value
    graph.nodes = {"make": helper.make_node("Identity", ["raw"], [name], "make"), **graph.nodes}
    return graph


def foreign() -> Graph:
    graph = Graph()
    graph.nodes["relu"].domain, graph.nodes["relu"].op_type = "com.microsoft", "FusedRelu"
    return graph


def as_constant_node() -> Graph:
    """Exporters write constants in either way."""
    graph = Graph()
    value = onnx.numpy_helper.from_array(np.array(5, np.int8))
    del graph.constants["x_z"]
    graph.nodes = {"five": helper.make_node("Constant", [], ["x_z"], "five", value=value), **graph.nodes}
    return graph


# case -> (graph, node, op, part of the rule)
BROKEN: dict[str, tuple[Callable[[], Graph], str, str, str]] = {
    "uint8": (lambda: Graph(np.array(0, np.uint8)), "q_in", "QuantizeLinear", "its zero point is UINT8"),
    "asymmetric": (lambda: Graph(np.array(128, np.uint8)), "q_in", "QuantizeLinear", "its zero point is UINT8"),
    "zero-point": (lambda: Graph(np.array(3, np.int8)), "q_in", "QuantizeLinear", "its zero point is 3; "),
    "constant-node": (as_constant_node, "q_in", "QuantizeLinear", "its zero point is 5; "),
    "weights": (lambda: with_constant("w_z", [0] * 15 + [-2], np.int8), "dq_w", "DequantizeLinear", "point is -2"),
    "no-zero-point": (without_zero_points, "q_in", "QuantizeLinear", "no zero point, which means UINT8 in ONNX"),
    "bias": (lambda: Graph().quantize_bias(), "dq_b", "DequantizeLinear", "it dequantizes INT32, a quantized bias"),
    "integers": (integers_elsewhere, "q_in", "QuantizeLinear", "its integers go to node cast (Cast)"),
    "computed-scale": (lambda: computed("x_s"), "q_in", "QuantizeLinear", "its scale is computed"),
    "computed-zero": (lambda: computed("x_z"), "q_in", "QuantizeLinear", "its zero point is computed"),
    "domain": (foreign, "relu", "FusedRelu", "an operator of com.microsoft"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_graph_that_breaks_a_rule_is_refused_with_its_node(tmp_path: Path, case: str) -> None:
    make, node, op, rule = BROKEN[case]
    graph = make()
    path = graph.save(tmp_path / "model.onnx", domains=("com.microsoft",))
    first = violations(path, OPSET)[0]
    assert (first.node, first.op) == (node, op)
    assert rule in first.rule
    with pytest.raises(KdcError, match=r"model\.onnx is not fit for TensorRT: node") as raised:
        check_conformance(path, OPSET)
    assert str(first) in raised.value.message
    assert raised.value.exit_code == 2


def test_a_scale_a_channel_of_an_activation(tmp_path: Path) -> None:
    """TensorRT's parser takes it, and computes in float."""
    graph = Graph()
    graph.constants["x_s"], graph.constants["x_z"] = np.full(3, 0.02, np.float32), np.zeros(3, np.int8)
    [found] = violations(graph.save(tmp_path / "model.onnx"), OPSET)
    assert (found.node, "it rounds an activation with 3 scales" in found.rule) == ("q_in", True)


def test_a_double_is_no_type_of_tensorrts(tmp_path: Path) -> None:
    """Its parser narrows it with a warning."""
    graph = Graph()
    graph.constants["half"] = np.full(CHANNELS, 0.5, np.float64)
    graph.nodes["double"] = helper.make_node("Cast", ["half"], ["unused"], "double", to=TensorProto.FLOAT)
    [found] = violations(graph.save(tmp_path / "model.onnx"), OPSET)
    assert str(found).startswith("node double (Cast): its constant half is DOUBLE; permitted: BOOL, FLOAT, FLOAT16, ")


def test_an_opset_that_the_device_may_not_know(tmp_path: Path) -> None:
    path = Graph(opset=18).save(tmp_path / "model.onnx")
    with pytest.raises(KdcError, match="its opset is 18, and the device reads 17 and below"):
        check_conformance(path, OPSET)
    assert violations(path, 18) == ()


def test_a_node_without_a_name_is_named_by_what_it_makes(tmp_path: Path) -> None:
    graph = Graph(np.array(0, np.uint8))
    graph.nodes["q_in"].name = ""
    assert violations(graph.save(tmp_path / "model.onnx"), OPSET)[0].node == "that makes x_q"


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(KdcError, match=r"model\.onnx is no valid ONNX model: "):
        check_conformance(tmp_path / "model.onnx", OPSET)
    with pytest.raises(KdcError, match=r"No such file or directory while reading"):
        check_conformance(tmp_path / "none.onnx", OPSET)


def test_without_tensorrt_rtx_nothing_passes_unchecked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "blocked" / "tensorrt_rtx"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('not here')\n")
    monkeypatch.setenv("PYTHONPATH", str(blocked.parent))
    with pytest.raises(KdcError, match="cannot import tensorrt_rtx: not here") as raised:
        check_conformance(Graph().save(tmp_path / "model.onnx"), OPSET)
    assert (raised.value.exit_code, raised.value.hint) == (4, install_line("tensorrt-rtx"))


# The second look, through TensorRT's own parser and builder


def test_a_graph_that_keeps_the_rules_passes_both_looks(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    path = Graph().save(tmp_path / "model.onnx")
    assert violations(path, OPSET) == ()
    check_conformance(path, OPSET)
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"]


def test_an_operator_that_tensorrt_does_not_know(tmp_path: Path) -> None:
    """It is of ONNX, so only TensorRT itself can tell."""
    pytest.importorskip("tensorrt_rtx")
    graph = Graph()
    graph.nodes["relu"].op_type = "Det"
    path = graph.save(tmp_path / "model.onnx")
    assert violations(path, OPSET) == ()
    message = r"model\.onnx is not fit for TensorRT: node relu \(Det\): not supported \(checkDet\)"
    with pytest.raises(KdcError, match=message):
        check_conformance(path, OPSET)


def test_what_no_engine_can_be_built_for(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    path = Graph().save(tmp_path / "model.onnx")
    with pytest.raises(KdcError, match="this TensorRT cannot build for SM 87"):
        build(path, tmp_path / "a.engine", (87,))
    told = build(path, tmp_path / "a.engine", (86, 120))
    assert told["sm"] == [86, 120]
    assert (tmp_path / "a.engine").stat().st_size == told["engine_bytes"]
