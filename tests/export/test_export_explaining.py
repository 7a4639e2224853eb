"""What int8 costs each layer: by hand, on graphs of kdc's own, and on one whose weights were ruined on purpose."""

import json
import os
import signal
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.export.base import QatModel, TwinLayer, Twins
from compressor.export.builders import builder_of
from compressor.export.bundle.explaining import Subject, explain, layer_errors
from compressor.export.calibration import activation_ranges, batches
from compressor.export.onnx.graph import to_onnx
from compressor.export.onnx.qdq import plan_for, quantize, write_model
from compressor.export.onnx.twins import onnx_twins
from compressor.export.openvino.ir import converted, save
from compressor.export.openvino.twins import openvino_twins
from compressor.export.schemes import onnxruntime_scheme
from compressor.progress import Silent
from compressor.runtimes import RUNTIMES
from compressor.schema.base import read_json
from compressor.schema.explain import Explanation, GraphLayer, LayerError
from compressor.schema.quantization import Quantization, Scheme
from compressor.schema.tensors import TensorSpec
from compressor.stats import lost_db, sqnr_db
from tests.export.ort_kit import HEAVY, make_model, make_source
from tests.kit import pixels

Floats = NDArray[np.float32]
NAME = 'node <b>"x"</b>|`\u202e' + "long" * 50


def write(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, object], shape: list[int]) -> Path:
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "net", [source], [result], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), str(path))
    return path


def by_name(errors: tuple[LayerError, ...]) -> dict[str, float | None]:
    return {error.name: sqnr_db(sum(error.signal), sum(error.noise)) for error in errors}


def test_the_ratio_is_the_one_by_hand(tmp_path: Path) -> None:
    head = np.array([[1], [1], [1], [1]], np.float32)
    relu, gemm = helper.make_node("Relu", ["input"], ["act"], NAME), ["act", "head"]
    in_float = write(
        tmp_path / "f.onnx", [relu, helper.make_node("MatMul", gemm, ["logits"], "sum")], {"head": head}, [1, 4]
    )
    rounding = {"scale": np.float32(1), "zero": np.uint8(0), "head": head}
    nodes = [
        relu,
        helper.make_node("QuantizeLinear", ["act", "scale", "zero"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["anything"], "dq"),
        helper.make_node("MatMul", ["anything", "head"], ["logits"], "sum"),
    ]
    twins = onnx_twins(in_float, write(tmp_path / "q.onnx", nodes, rounding, [1, 4]))
    assert twins.layers == (
        TwinLayer("input", "Input"),
        TwinLayer(NAME, "Relu", ("input",)),
        TwinLayer("sum", "MatMul", (NAME,)),
    )
    batches = [{"input": np.array([values], np.float32)} for values in ([0.4, 1.6, -3, 2.25], [-1, -2, -3, 4])]
    errors = {error.name: error for error in layer_errors(twins, batches, Silent())}
    # Behind the relu (0.4, 1.6, 0, 2.25), rounded (0, 2, 0, 2); then (0, 0, 0, 4), which is kept.
    assert errors[NAME].signal == pytest.approx((0.16 + 2.56 + 5.0625, 16))
    assert errors[NAME].noise == pytest.approx((0.16 + 0.16 + 0.0625, 0), rel=1e-5)
    assert errors["sum"].signal == pytest.approx((4.25**2, 16))
    assert errors["sum"].noise == pytest.approx((0.25**2, 0), rel=1e-4)
    assert list(errors["input"].noise) == [0, 0]
    ratios = by_name(tuple(errors.values()))
    assert ratios[NAME] == pytest.approx(10 * np.log10(23.7825 / 0.3825), abs=1e-3)
    assert ratios["input"] is None


def test_an_activation_that_the_rounding_takes_over_is_compared_behind_it(tmp_path: Path) -> None:
    """uint8 with a zero point of 0 cuts what is below 0, so that the Relu is not in the graph any more: held against
    the layer before its Relu, half of all would count as noise."""
    source = make_source(tmp_path)
    model, path = onnx.load(str(source.onnx_file)), tmp_path / "int8" / "model.onnx"
    scheme = Scheme(activations="uint8")
    names = plan_for(model, scheme, bias_int32=True, gating=True).activations
    ranges = activation_ranges(model, names, lambda: batches(source))["minmax"]
    write_model(quantize(model, ranges, scheme, gating=True), path)
    made = {node.name for node in onnx.load(str(path)).graph.node}
    assert "stem_relu" not in made
    twins = onnx_twins(source.onnx_file, path)
    layers = {layer.name: layer for layer in twins.layers}
    assert "stem_relu" not in layers
    assert {*HEAVY, "add", "swish", "gating"} <= set(layers)
    assert layers["expand"].reads == ("stem",)
    assert layers["head"].reads == ("head_pool",), "through the Flatten"
    ratios = by_name(layer_errors(twins, list(batches(source, 32)), Silent()))
    assert all(ratio is None or ratio > 15 for ratio in ratios.values()), ratios
    assert ratios["stem"] is not None


def ruined(name: str) -> onnx.ModelProto:
    """The first of the layer's input channels is never anything but 0, and its weights are 10,000 times as large: so is
    the step of every output channel, and nothing else is left of it in 8 bits."""
    model = make_model()
    weights = {tensor.name: tensor for tensor in model.graph.initializer}

    def change(tensor: str, to: Callable[[Floats], None]) -> None:
        values = numpy_helper.to_array(weights[tensor]).copy()
        to(values)
        weights[tensor].CopyFrom(numpy_helper.from_array(values, tensor))

    def dead(values: Floats) -> None:
        values[0] = 0

    def scaled(values: Floats) -> None:
        values[:, 0] = 10_000 * np.abs(values).max()

    before = {"expand": "stem", "head": "depthwise"}[name]
    change(f"{before}.weight", dead)
    change(f"{before}.bias", dead)
    change(f"{name}.weight", scaled)
    return model


def most_lost(errors: tuple[LayerError, ...]) -> str:
    ratios = by_name(errors)
    lost = {error.name: lost_db(ratios, error.name, error.reads)[1] for error in errors}
    return max(lost, key=lambda name: lost[name])


@pytest.mark.parametrize("name", ["expand", "head"])
def test_the_layer_that_was_ruined_loses_most(tmp_path: Path, name: str) -> None:
    source = make_source(tmp_path)
    onnx.save(ruined(name), str(source.onnx_file))
    model, path = onnx.load(str(source.onnx_file)), tmp_path / "int8" / "model.onnx"
    scheme = onnxruntime_scheme(source.profile)
    ranges = activation_ranges(model, plan_for(model, scheme, bias_int32=True).activations, lambda: batches(source))[
        "minmax"
    ]
    write_model(quantize(model, ranges, scheme), path)
    errors = layer_errors(onnx_twins(source.onnx_file, path), list(batches(source, 32)), Silent())
    assert most_lost(errors) == name
    ratio = by_name(errors)[name]
    assert ratio is not None
    assert ratio < 10


def rounded_ir(onnx_file: Path, folder: Path, behind: str, levels: int) -> Path:
    """The OpenVINO model of it, in which what the operation `behind` gives is rounded to so many levels."""
    ov = pytest.importorskip("openvino")
    ops, model = ov.opset13, converted(onnx_file)
    for operation in model.get_ordered_ops():
        if operation.get_friendly_name() == behind:
            output, readers = operation.output(0), operation.output(0).get_target_inputs()
            low, high = ops.constant(np.float32(-8)), ops.constant(np.float32(8))
            rounding = ops.fake_quantize(output, low, high, low, high, levels=levels)
            for reader in readers:
                reader.replace_source_output(rounding.output(0))
    return save(model, folder, half=False)


def test_openvino_is_compared_by_its_names(tmp_path: Path) -> None:
    source = make_source(tmp_path)
    operations = [operation.get_friendly_name() for operation in converted(source.onnx_file).get_ordered_ops()]
    behind = next(name for name in operations if name.startswith("depthwise") and "/" not in name)
    exact = openvino_twins(source.onnx_file, save(converted(source.onnx_file), tmp_path / "same", half=False))
    some = list(batches(source, 32))
    assert {layer.op for layer in exact.layers} >= {"Input", "Convolution", "GroupConvolution", "MatMul", "Relu"}
    errors = layer_errors(exact, some, Silent())
    assert all(ratio is None or ratio > 90 for ratio in by_name(errors).values())
    twins = openvino_twins(source.onnx_file, rounded_ir(source.onnx_file, tmp_path / "coarse", behind, 8))
    errors = layer_errors(twins, some, Silent())
    assert most_lost(errors) == behind
    ratios = by_name(errors)
    reads = {error.name: error.reads for error in errors}
    ratio = ratios[behind]
    assert ratio is not None
    assert ratio < 20
    assert reads[behind], "what it reads is known"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_openvino_a_ctrl_c_is_still_an_interruption(tmp_path: Path) -> None:
    """Its plugin has a stack of its own for signals, and what it puts back at its end must be there still."""
    source = make_source(tmp_path)
    twins = openvino_twins(source.onnx_file, save(converted(source.onnx_file), tmp_path / "same", half=False))
    layer_errors(twins, list(batches(source, 32)), Silent())
    del twins
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: there are other threads
        child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_what_cannot_be_compared_is_refused() -> None:
    ones = np.ones((1, 4), np.float32)

    def twins(actual: Floats) -> Twins:
        return Twins((TwinLayer("a", "Conv"),), lambda names: lambda batch: iter([("a", ones, actual)]))

    with pytest.raises(KdcError, match=r"layer a gives \[1, 4\] in float and \[1, 3\] in int8"):
        layer_errors(twins(np.ones((1, 3), np.float32)), [{}], Silent())
    with pytest.raises(KdcError, match="layer a gives values that are not finite"):
        layer_errors(twins(np.full((1, 4), np.nan, np.float32)), [{}], Silent())
    with pytest.raises(KdcError, match="no layer of the same name"):
        layer_errors(Twins((), lambda names: lambda batch: iter(())), [{}], Silent())


class Samples:
    """In place of the judge of validation."""

    def __init__(self, listed: list[dict[str, Floats]]) -> None:
        self.listed = listed

    def batches(self, most: int) -> list[dict[str, Floats]]:
        return self.listed[:most]


@pytest.mark.parametrize("runtime", ["litert", "executorch"])
def test_a_runtime_whose_layers_cannot_be_read_says_so(tmp_path: Path, runtime: str) -> None:
    source = make_source(tmp_path)
    assert builder_of(runtime).twins is None
    subject = Subject("x-int8", runtime, "int8", tmp_path / "model.bin", source, None)
    explain(subject, Samples(list(batches(source))), tmp_path, tmp_path, Silent())  # type: ignore[arg-type]
    told = read_json(tmp_path / "explain/x-int8.json", Explanation)
    assert told.missing == f"kdc does not read the layers of {runtime}'s models"
    assert not told.errors
    assert not (tmp_path / "explain/x-int8.node_data.json").exists()


def test_the_other_runtimes_can_be_compared() -> None:
    classifiers = [name for name, row in RUNTIMES.items() if not row.generates]
    assert {name for name in classifiers if builder_of(name).twins is not None} == {
        "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"
    }  # fmt: skip


def test_what_is_written_holds_the_raw_sums_and_an_overlay(tmp_path: Path) -> None:
    source = make_source(tmp_path)
    model, path = onnx.load(str(source.onnx_file)), tmp_path / "int8" / "model.onnx"
    scheme = onnxruntime_scheme(source.profile)
    names = plan_for(model, scheme, bias_int32=True).activations
    ranges = activation_ranges(model, names, lambda: batches(source))["minmax"]
    write_model(quantize(model, ranges, scheme), path)
    subject = Subject("onnxruntime-int8", "onnxruntime", "int8", path, source, None)
    listed = list(batches(source))[:10]
    explain(subject, Samples(listed), tmp_path, tmp_path, Silent())  # type: ignore[arg-type]
    told = read_json(tmp_path / "explain/onnxruntime-int8.json", Explanation)
    assert (told.n, told.batch, told.split, told.against) == (10, 1, "validation", "the student in fp32")
    assert {error.name for error in told.errors} >= set(HEAVY)
    assert {len(error.signal) for error in told.errors} == {10}
    assert {layer.name for layer in told.graph} == {node.name for node in model.graph.node}
    overlay = json.loads((tmp_path / "explain/onnxruntime-int8.node_data.json").read_text())
    ratios = by_name(told.errors)
    assert overlay["results"].keys() <= {node.name for node in model.graph.node}
    assert overlay["results"]["stem"]["value"] == pytest.approx(ratios["stem"], abs=0.01)
    assert [stop["stop"] for stop in overlay["gradient"]] == [0, 1]
    in_float = Subject("onnxruntime-fp32", "onnxruntime", "fp32", source.onnx_file, source, None)
    explain(in_float, Samples(listed), tmp_path, tmp_path, Silent())  # type: ignore[arg-type]
    told = read_json(tmp_path / "explain/onnxruntime-fp32.json", Explanation)
    assert (told.errors, told.missing, told.n) == ((), None, 0)


def test_a_retrained_student_is_held_against_itself(tmp_path: Path) -> None:
    source = make_source(tmp_path)
    (tmp_path / "work").mkdir()
    scheme = Scheme(activations="int8")
    model = onnx.load(str(source.onnx_file))
    names = plan_for(model, scheme, bias_int32=False).activations
    ranges = activation_ranges(model, names, lambda: batches(source))["minmax"]
    path = tmp_path / "int8" / "model.onnx"
    write_model(quantize(model, ranges, scheme, bias_int32=False), path)
    record = Quantization.model_construct(scheme=scheme)
    qat = QatModel(nn.Identity(), nn.Identity(), path, record, modules={"stem": "theirs.stem"})
    subject = Subject("onnxruntime-int8", "onnxruntime", "int8", path, source, qat)
    explain(subject, Samples(list(batches(source))[:4]), tmp_path, tmp_path / "work", Silent())  # type: ignore[arg-type]
    told = read_json(tmp_path / "explain/onnxruntime-int8.json", Explanation)
    assert told.against == "the retrained student, its activations in float"
    assert {layer.name: layer.module for layer in told.graph}["stem"] == "theirs.stem"
    assert not {layer.op for layer in told.graph} & {"QuantizeLinear", "DequantizeLinear"}
    ratios = by_name(told.errors)
    assert {*HEAVY, "stem_relu"} <= set(ratios)
    assert (ratios["stem"] or 0) > 30, "its weights are on their grid in both"


@pytest.mark.slow
@pytest.mark.parametrize("opset", [17, 18])
def test_the_exporters_nodes_lead_back_to_their_modules(tmp_path: Path, opset: int) -> None:
    parts = {
        "stem": nn.Conv2d(3, 8, 3), "norm": nn.BatchNorm2d(8), "act": nn.ReLU(), "pool": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(), "head": nn.Linear(8, 4),
    }  # fmt: skip
    path = tmp_path / "m.onnx"
    modules = to_onnx(nn.Sequential(OrderedDict(parts)).eval(), pixels(8, 8), 1, opset, {}, path)
    nodes = onnx.load(str(path)).graph.node
    assert {node.op_type: modules.get(node.name) for node in nodes if node.op_type in ("Conv", "Relu", "Gemm")} == {
        "Conv": "stem", "Relu": "act", "Gemm": "head"
    }  # fmt: skip
    assert not [node.name for node in nodes if node.metadata_props], "the file tells nothing of it"


@pytest.mark.slow
def test_a_node_that_torch_puts_in_has_no_module(tmp_path: Path) -> None:
    """What a dimension that varies is read by."""

    class Positions(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            return (ids + ids.new_ones(ids.shape[1]).cumsum(0)).sum(1, keepdim=True).float()

    spec = TensorSpec(name="ids", dtype="int64", shape=("batch", "tokens"), high=9)
    modules = to_onnx(Positions(), [spec], None, 18, {}, tmp_path / "m.onnx")
    nodes = onnx.load(str(tmp_path / "m.onnx")).graph.node
    assert "Shape" in {node.op_type for node in nodes}
    assert not [name for name in modules.values() if "metadata_hook" in name]


LAYERS = tuple(
    GraphLayer(name=name, op="Conv", output=output, module=module)
    for name, output, module in (
        ("node_conv2d", "conv2d", "stem"),
        ("node_conv2d_1", "conv2d_1", "blocks.0"),
        ("node_conv2d_12", "conv2d_12", "blocks.11"),
        ("/net/layer.1/Conv", "layer.1_out", "layer.1"),
        ("b.c+(d)", "e", "hostile"),
    )
)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("node_conv2d", "stem"),
        ("conv2d_1", "blocks.0"),
        ("conv2d_nchwc", "stem"),
        ("conv2d_1_nchwc", "blocks.0"),
        ("conv2d_12_nchwc", "blocks.11"),
        ("fused node_conv2d_12", "blocks.11"),
        ("node_conv2d_1/WithoutBiases", "blocks.0"),
        ("/net/layer.1/Conv", "layer.1"),
        ("xx b.c+(d)", "hostile"),
        ("conv2d_13", None),
        ("my_node_conv2d", None),
        ("conv2dx", None),
        ("/net/layer.12/Conv", None),
        ("", None),
    ],
)
def test_a_runtimes_name_leads_back_to_the_module(name: str, module: str | None) -> None:
    traced = Explanation(variant="x", graph=LAYERS).traced(name)
    assert (None if traced is None else traced.module) == module
