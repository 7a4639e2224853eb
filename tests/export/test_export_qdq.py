"""What is quantized and how: the plan, the rounding by hand, layers back to float, and from Q/DQ back to ranges."""

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compressor.errors import KdcError
from compressor.export.base import Source
from compressor.export.calibration import activation_ranges, batches
from compressor.export.onnx.qdq import plan_for, quantize, write_model
from compressor.export.onnx.qdq_plan import GraphIndex, heavy_layers, squeeze_excite
from compressor.export.onnx.qdq_strip import strip
from compressor.schema.quantization import Scheme
from tests.export.ort_kit import GATE, HEAVY, logits_of, make_model, make_source, ops

U8S7 = Scheme(activations="uint8", weight_bits=7)
U8S8 = Scheme(activations="uint8")
S8S8 = Scheme(activations="int8")
ORT_ROUNDED = ("input", "x", "expand_out", "gated", "project_out", "sum", "z", "flat")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return make_source(tmp_path)


def ranges_of(source: Source, scheme: Scheme, bias_int32: bool = True) -> dict[str, tuple[float, float]]:
    model = onnx.load(str(source.onnx_file))
    tensors = plan_for(model, scheme, bias_int32=bias_int32).activations
    return activation_ranges(model, tensors, partial(batches, source))["minmax"]


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_squeeze_excite_is_found_and_left_out() -> None:
    graph = make_model().graph
    assert squeeze_excite(GraphIndex(graph)) == GATE
    assert [layer.name for layer in heavy_layers(graph)] == HEAVY


def test_swish_is_no_squeeze_excite() -> None:
    swish = [
        helper.make_node("Sigmoid", ["a"], ["s"], "sigmoid"),
        helper.make_node("Mul", ["a", "s"], ["b"], "mul"),
    ]
    value = helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [1, 2])
    assert squeeze_excite(GraphIndex(helper.make_graph(swish, "swish", [value], []))) == set()


def test_onnxruntime_rounds_results_and_absorbs_activations() -> None:
    chosen = plan_for(make_model(), U8S8, bias_int32=True)
    assert chosen.activations == ORT_ROUNDED  # not stem_out and depthwise_out, whose Relu and Clip are absorbed
    assert [layer.name for layer in chosen.layers] == HEAVY


def test_a_symmetric_rounding_cannot_absorb_a_relu() -> None:
    assert "stem_out" in plan_for(make_model(), S8S8, bias_int32=True).activations


def test_tensorrt_rounds_only_what_layers_read() -> None:
    assert plan_for(make_model(), S8S8, bias_int32=False).activations == ("input", "x", "gated", "sum", "flat")


def test_max_pool_shares_its_inputs_range() -> None:
    model = make_model()
    graph = model.graph
    pool = helper.make_node("MaxPool", ["x"], ["x_pooled"], "max_pool", kernel_shape=[2, 2])
    for node in graph.node:
        for slot, name in enumerate(node.input):
            if name == "x":
                node.input[slot] = "x_pooled"
    graph.node.insert(2, pool)
    chosen = plan_for(model, U8S8, bias_int32=True)
    assert {"x", "x_pooled"} <= set(chosen.activations)
    made = quantize(model, dict.fromkeys(chosen.activations, (0.0, 3.0)) | {"x": (0.0, 5.0)}, U8S8)
    rounding = next(
        node for node in made.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "x_pooled"
    )
    assert list(rounding.input[1:]) == ["x_scale", "x_zero_point"]
    assert float(constants(made)["x_scale"]) == pytest.approx(5 / 255)


@pytest.mark.parametrize(("scheme", "largest"), [(U8S7, 64), (U8S8, 127)])
def test_weights_are_rounded_per_channel(source: Source, scheme: Scheme, largest: int) -> None:
    made = constants(quantize(make_model(), ranges_of(source, scheme), scheme))
    weight = constants(make_model())["stem.weight"]
    codes, scale = made["stem.weight_quantized"], made["stem.weight_scale"]
    by_hand = np.abs(weight).reshape(16, -1).max(axis=1) / largest
    np.testing.assert_allclose(scale, by_hand, rtol=1e-6)
    assert codes.dtype == np.int8
    assert np.abs(codes).reshape(16, -1).max(axis=1).tolist() == [largest] * 16
    np.testing.assert_allclose(codes * scale[:, None, None, None], weight, atol=by_hand.max() / 2 * 1.001)
    assert not made["stem.weight_zero_point"].any()


def test_biases_are_int32_at_the_scale_of_the_sums(source: Source) -> None:
    made = constants(quantize(make_model(), ranges_of(source, U8S8), U8S8))
    bias = constants(make_model())["stem.bias"]
    np.testing.assert_allclose(
        made["stem.bias_quantized_scale"], made["input_scale"] * made["stem.weight_scale"], rtol=1e-6
    )
    assert made["stem.bias_quantized"].dtype == np.int32
    np.testing.assert_allclose(made["stem.bias_quantized"] * made["stem.bias_quantized_scale"], bias, atol=1e-3)
    assert "stem.bias" not in made


def test_a_bias_beyond_int32_widens_its_channels_scale(source: Source) -> None:
    model = make_model()
    for tensor in model.graph.initializer:
        if tensor.name == "stem.weight":
            weight = numpy_helper.to_array(tensor).copy()
            weight[3] = 0  # a dead channel: any scale would do for its weights
            weight[4] *= 1e-12
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    made = constants(quantize(model, ranges_of(source, U8S8), U8S8))
    bias = constants(model)["stem.bias"]
    np.testing.assert_allclose(
        made["stem.bias_quantized"] * made["stem.bias_quantized_scale"].astype(float), bias, atol=1e-3
    )


def test_tensorrts_rules(source: Source) -> None:
    graph = quantize(make_model(), ranges_of(source, S8S8, False), S8S8, bias_int32=False)
    made = constants(graph)
    kinds = {name: value.dtype for name, value in made.items() if name.endswith("_zero_point")}
    assert set(kinds.values()) == {np.dtype(np.int8)}
    assert not any(value.any() for name, value in made.items() if name in kinds)
    assert made["stem.bias"].dtype == np.float32
    assert not any(value.dtype == np.int32 for value in made.values())


def test_zero_is_a_value_of_every_rounding(source: Source) -> None:
    ranges = {**ranges_of(source, U8S8), "gated": (0.5, 2.0), "sum": (-3.0, -1.0)}
    made = constants(quantize(make_model(), ranges, U8S8))
    assert [int(made["gated_zero_point"]), int(made["sum_zero_point"])] == [0, 255]
    assert float(made["gated_scale"]) == pytest.approx(2 / 255)
    assert float(made["sum_scale"]) == pytest.approx(3 / 255)


@pytest.mark.parametrize(("scheme", "bias_int32"), [(U8S7, True), (U8S8, True), (S8S8, False)])
def test_its_logits_are_close(source: Source, scheme: Scheme, bias_int32: bool) -> None:
    graph = quantize(make_model(), ranges_of(source, scheme, bias_int32), scheme, bias_int32=bias_int32)
    wanted, found = logits_of(make_model(), source), logits_of(graph, source)
    noise = float(np.square(wanted - found).sum() / np.square(wanted - wanted.mean(axis=0)).sum())
    assert 0 < noise < 0.02  # 8 bits: some 2^-14 of the energy a rounding, and 7-bit weights


def test_a_layer_back_in_float_has_its_own_weights(source: Source) -> None:
    ranges = ranges_of(source, U8S8)
    graph = quantize(make_model(), ranges, U8S8, float_nodes=["expand"])
    made = constants(graph)
    np.testing.assert_array_equal(made["expand.weight"], constants(make_model())["expand.weight"])
    node = next(node for node in graph.graph.node if node.name == "expand")
    assert list(node.input[1:]) == ["expand.weight", "expand.bias"]
    assert "expand_out_QuantizeLinear" not in {one.name for one in graph.graph.node}  # nothing behind it needs one
    everything = quantize(make_model(), ranges, U8S8, float_nodes=HEAVY)
    np.testing.assert_allclose(logits_of(everything, source), logits_of(make_model(), source), atol=1e-5)
    assert "QuantizeLinear" not in ops(everything)


def test_the_original_is_not_changed_and_two_runs_are_equal(source: Source, tmp_path: Path) -> None:
    model = make_model()
    before, ranges = model.SerializeToString(deterministic=True), ranges_of(source, U8S8)
    for name in ("a", "b"):
        write_model(quantize(model, ranges, U8S8), tmp_path / name / "model.onnx")
    assert model.SerializeToString(deterministic=True) == before
    assert (tmp_path / "a" / "model.onnx").read_bytes() == (tmp_path / "b" / "model.onnx").read_bytes()
    made = onnx.load(str(tmp_path / "a" / "model.onnx"))
    assert {row.key: row.value for row in made.metadata_props} == {"licence": "apache-2.0"}
    assert str(tmp_path).encode() not in (tmp_path / "a" / "model.onnx").read_bytes()


def test_a_missing_range_and_a_range_that_is_not_finite_are_named(source: Source) -> None:
    ranges = ranges_of(source, U8S8)
    with pytest.raises(KdcError, match="tensor sum takes values that are not finite"):
        quantize(make_model(), {**ranges, "sum": (0.0, float("nan"))}, U8S8)
    del ranges["gated"]
    with pytest.raises(KdcError, match="tensor gated has no range"):
        quantize(make_model(), ranges, U8S8)


@pytest.mark.parametrize(("scheme", "bias_int32"), [(U8S7, True), (S8S8, False)])
def test_stripping_gives_back_what_was_put_in(source: Source, scheme: Scheme, bias_int32: bool) -> None:
    first = quantize(make_model(), ranges_of(source, scheme, bias_int32), scheme, bias_int32=bias_int32)
    stripped = strip(first)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(ops(stripped.model))
    # Its tensors have other names now; the numbers are the same. (onnxruntime 1.20 computes scales in float32.)
    scales = {name.removesuffix("_DequantizeLinear_Output"): scale for name, scale in stripped.weight_scales.items()}
    assert set(scales) == {f"{name}.weight" for name in HEAVY}
    again = quantize(
        stripped.model, stripped.ranges, scheme, bias_int32=bias_int32, weight_scales=stripped.weight_scales
    )
    before, after = constants(first), constants(again)
    for name in HEAVY:
        np.testing.assert_array_equal(
            before[f"{name}.weight_quantized"], after[f"{name}.weight_DequantizeLinear_Output_quantized"]
        )
    for name in stripped.ranges:
        np.testing.assert_allclose(before[f"{name}_scale"], after[f"{name}_scale"], rtol=2e-7)
        np.testing.assert_array_equal(before[f"{name}_zero_point"], after[f"{name}_zero_point"])


def test_a_stripped_graph_must_have_symmetric_weights(source: Source) -> None:
    graph = quantize(make_model(), ranges_of(source, U8S8), U8S8)
    for tensor in graph.graph.initializer:
        if tensor.name == "stem.weight_zero_point":
            tensor.CopyFrom(numpy_helper.from_array(np.ones(16, np.int8), tensor.name))
    with pytest.raises(KdcError, match=r"stem\.weight_DequantizeLinear: its weights have a zero point"):
        strip(graph)
