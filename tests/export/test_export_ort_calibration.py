"""Ranges from training images, biases corrected, sensitivities: each against a value worked out otherwise."""

import tracemalloc
from collections.abc import Collection
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization.calibrate import HistogramCollector

from compressor.errors import KdcError
from compressor.export.base import Source
from compressor.export.calibration import METHODS, activation_ranges, batches
from compressor.export.onnx.bias_correction import channel_means, correct_biases
from compressor.export.onnx.qdq import insert_pairs, plan_for, quantize
from compressor.export.onnx.qdq_plan import Layer, heavy_layers
from compressor.export.onnx.session import open_session
from compressor.export.sensitivity import Sensitivity, divergence, growing_sets, in_order, measure_layers
from compressor.progress import Silent
from compressor.schema.quantization import Scheme
from tests.export.ort_kit import HEAVY, make_model, make_source

U8S8 = Scheme(activations="uint8")
TENSORS = ("input", "x", "expand_out")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return make_source(tmp_path)


def one_tensor(*chunks: np.ndarray) -> dict[str, dict[str, tuple[float, float]]]:
    """The ranges of a network's input that takes `chunks`, a batch each."""
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch"])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch"])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"], "neg")], "net", [value], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return activation_ranges(model, ["x"], lambda: ({"x": chunk.astype(np.float32)} for chunk in chunks))


def test_ranges_by_hand() -> None:
    # Of 500,000 values 2.5 may lie outside at each end. Bins are 10 / 1024 wide.
    width = 10 / 1024
    found = one_tensor(np.linspace(-1, 2, 499_996), np.array([-8.0, -7.0, 9.0, 10.0]))
    assert found["minmax"]["x"] == (-8.0, 10.0)
    assert found["percentile"]["x"] == pytest.approx((-1, 2), abs=width)
    three = one_tensor(np.linspace(-1, 2, 499_995), np.array([-8.0, -7.0, 6.0, 9.0, 10.0]))["percentile"]["x"]
    assert three == pytest.approx((-1, 6), abs=width)
    one_side = one_tensor(np.linspace(0, 2, 499_998), np.array([9.0, 10.0]))["percentile"]["x"]
    assert one_side[0] == 0
    # By magnitude five may lie outside, whatever their sign.
    five = one_tensor(np.linspace(-1, 2, 499_996), np.array([-8.0, -7.0, -6.0, 10.0]))["magnitude"]["x"]
    assert five == pytest.approx((-2, 2), abs=width)
    assert one_side[1] == pytest.approx(2, abs=width)


def test_percentile_is_onnxruntimes() -> None:
    """PercentileCalibrater's collector is given the same values at once."""
    values = np.random.default_rng(0).standard_t(3, 200_000).astype(np.float32)
    found = one_tensor(*np.split(values, 8))["percentile"]["x"]
    collector = HistogramCollector("percentile", False, 2048, 2048, 99.999, "same")
    collector.collect({"x": values})
    low, high = collector.compute_collection_result()["x"][:2]
    assert found == (float(low), float(high))
    width = float(np.abs(values).max()) / 1024
    assert found == pytest.approx(np.quantile(values, [0.000005, 0.999995]).tolist(), abs=2 * width)


@pytest.mark.parametrize("first", [0.0, 1e-9, 1.0])
def test_a_batch_much_larger_than_the_first_adds_no_bins(first: float) -> None:
    tracemalloc.start()
    values = np.random.default_rng(0).uniform(0, 1000, 10_000)
    found = one_tensor(np.full(10_000, first), values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000  # bytes; a histogram that grew from 1e-9 would have 2e15 bins
    assert found["percentile"]["x"][1] == pytest.approx(1000, rel=2e-3)


def test_memory_does_not_grow_with_the_images(source: Source) -> None:
    def peak(times: int) -> int:
        tracemalloc.start()
        activation_ranges(make_model(), TENSORS, lambda: chain(*(batches(source) for _ in range(times))))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(1)
    assert peak(8) < 1.2 * peak(1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(KdcError, match="not finite"):
        one_tensor(np.array([1.0, 2.0]), np.array([1.0, bad]))


def test_a_tensor_that_is_always_zero() -> None:
    assert one_tensor(np.zeros(100), np.zeros(100)) == {method: {"x": (0.0, 0.0)} for method in METHODS}


def test_nothing_is_printed(source: Source, capfd: pytest.CaptureFixture[str]) -> None:
    activation_ranges(make_model(), TENSORS, partial(batches, source))
    assert capfd.readouterr() == ("", "")


def test_minmax_is_what_the_network_gives(source: Source) -> None:
    found = activation_ranges(make_model(), TENSORS, partial(batches, source))
    inputs = source.calibration.fed(np.arange(len(source.calibration)))["input"]
    assert found["minmax"]["input"] == (inputs.min(), inputs.max())
    session = open_session(make_model(), ["x"])
    values = np.concatenate([session.run({"input": inputs[i : i + 1]})["x"] for i in range(len(inputs))])
    assert found["minmax"]["x"] == (0.0, values.max())
    for name in TENSORS:
        assert found["minmax"][name][0] <= found["percentile"][name][0] < found["percentile"][name][1]
        assert found["percentile"][name][1] <= found["minmax"][name][1]


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match="31 training samples are too few to calibrate with: 32 are needed") as error:
        next(batches(make_source(tmp_path, images=31)))
    assert error.value.exit_code == 2


def coarse(source: Source) -> tuple[onnx.ModelProto, dict[str, tuple[float, float]], tuple[Layer, ...]]:
    """Weights of few steps, so that rounding moves means visibly: the largest of each channel is made 30 times larger
    than the others, and a constant 0.3 of a step added to them."""
    model = make_model()
    for tensor in model.graph.initializer:
        if tensor.name in ("expand.weight", "project.weight"):
            weight = numpy_helper.to_array(tensor).copy()
            scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) * 30 / 127
            weight = np.rint(weight / scale) * scale + 0.3 * scale
            weight[:, 0] = 127 * scale[:, 0]
            tensor.CopyFrom(numpy_helper.from_array(weight.astype(np.float32), tensor.name))
    chosen = plan_for(model, U8S8, bias_int32=True)
    return model, activation_ranges(model, chosen.activations, partial(batches, source))["minmax"], chosen.layers


def test_bias_correction_puts_the_means_back(source: Source) -> None:
    model, ranges, layers = coarse(source)
    inputs = list(batches(source))

    def rounded(changed: onnx.ModelProto) -> onnx.ModelProto:
        chosen = plan_for(changed, U8S8, bias_int32=True)
        return insert_pairs(changed, chosen, ranges, U8S8, bias_int32=False, weight_scales={})

    wanted = channel_means(model, layers, inputs)
    before = channel_means(rounded(model), layers, inputs)
    corrected = correct_biases(model, layers, rounded, inputs, Silent())
    after = channel_means(quantize(corrected, ranges, U8S8), layers, inputs)
    for layer in layers:
        was = np.abs(before[layer.name] - wanted[layer.name]).max()
        now = np.abs(after[layer.name] - wanted[layer.name]).max()
        # Those behind int32 biases: half a step of the sums is left, and what is rounded otherwise because of it.
        assert now < max(0.05 * was, 1e-3), layer.name
    assert np.abs(before["expand"] - wanted["expand"]).max() > 0.05  # there was something to be put back
    assert [layer.name for layer in heavy_layers(corrected.graph)] == HEAVY


def test_the_float_model_keeps_its_other_weights(source: Source) -> None:
    model, ranges, layers = coarse(source)

    def rounded(changed: onnx.ModelProto) -> onnx.ModelProto:
        return quantize(changed, ranges, U8S8, bias_int32=False)

    corrected = correct_biases(model, layers, rounded, list(batches(source, 32)), Silent())
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in corrected.graph.initializer}
    for tensor in model.graph.initializer:
        if not tensor.name.endswith(".bias") or tensor.name in ("reduce.bias", "excite.bias"):
            np.testing.assert_array_equal(values[tensor.name], numpy_helper.to_array(tensor))
    assert values["project_own_bias"].shape == (16,)  # it had none


def test_divergence_by_hand() -> None:
    wanted = np.log(np.array([[0.5, 0.5]], np.float32))
    found = np.log(np.array([[0.25, 0.75]], np.float32))
    by_hand = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert divergence(wanted, found) == pytest.approx(by_hand, rel=1e-6)
    assert divergence(wanted, wanted + 7) == pytest.approx(0, abs=1e-6)


def test_the_layer_that_was_ruined_is_the_most_sensitive(source: Source) -> None:
    model = make_model()
    chosen = plan_for(model, U8S8, bias_int32=True)
    ranges = activation_ranges(model, chosen.activations, partial(batches, source))["minmax"]

    def mixed(float_nodes: Collection[str]) -> onnx.ModelProto:
        made = quantize(model, ranges, U8S8, float_nodes=float_nodes)
        for tensor in made.graph.initializer:
            if tensor.name == "depthwise.weight_scale":  # not there when the layer is in float
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 3, tensor.name))
        return made

    measured = measure_layers(model, chosen.layers, mixed, list(batches(source)), Silent())
    assert [row.layer.name for row in measured] == HEAVY
    worst = max(measured, key=lambda row: row.regained)
    assert worst.layer.name == "depthwise"
    assert worst.regained > 10 * max(row.regained for row in measured if row is not worst)


def rows(*numbers: tuple[float, float]) -> list[Sensitivity]:
    layers = (Layer(f"{number}", "Conv", "", "", None, "", 0) for number in range(len(numbers)))
    return [Sensitivity(layer, *pair) for layer, pair in zip(layers, numbers, strict=True)]


def test_order_is_accuracy_for_time() -> None:
    # (regained, slower): 1 is useless; 0 gives 0.02 a microsecond, 2 gives 0.03, 3 counts as the median of 50.
    measured = rows((1.0, 50.0), (-0.1, 1.0), (3.0, 100.0), (0.5, -4.0))
    assert [layer.name for layer in in_order(measured)] == ["2", "0", "3"]


def test_sets_grow_by_two_up_to_half() -> None:
    layers = [row.layer for row in rows(*[(1.0, 1.0)] * 20)]
    assert [len(one) for one in growing_sets(layers)] == [1, 2, 4, 8]
    assert [len(one) for one in growing_sets(layers[:1])] == [1]
    assert growing_sets([]) == []
