"""Static quantization of an ONNX graph: Q/DQ pairs around what `qdq_plan` chooses, weights as int8, biases as int32.

The graph says what is rounded and how (ONNX QuantizeLinear, DequantizeLinear, opset 13 and later); the runtime fuses
`DQ -> Conv -> Q` into its integer kernel. Written out here rather than by onnxruntime's quantize_static, because ranges
come from several calibrations at once, layers return to float one by one, and logits stay in float.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from compressor.errors import KdcError, first_line, os_error
from compressor.export.onnx.qdq_plan import Layer, Plan, plan
from compressor.quantization.fake_quant import LARGEST_WEIGHT
from compressor.schema.quantization import Scheme

__all__ = ["Ranges", "insert_pairs", "plan_for", "quantize", "write_model"]

Ranges = Mapping[str, tuple[float, float]]
"""Tensor -> the (low, high) that it is rounded within; what lies outside is clipped."""

INT32_ROOM = 2.0**30
"""A bias keeps away from the ends of int32, so that the sum of products still fits beside it."""

SMALLEST = 1e-30
"""Scale below which float32 has no digits left: a tensor that is always 0."""


def plan_for(model: onnx.ModelProto, scheme: Scheme, float_nodes: Collection[str] = (), *, bias_int32: bool) -> Plan:
    """What `quantize` will round: its activations are the tensors that need ranges."""
    return plan(model.graph, scheme, float_nodes, outputs=bias_int32)


def quantize(
    model: onnx.ModelProto,
    ranges: Ranges,
    scheme: Scheme,
    *,
    float_nodes: Collection[str] = (),
    bias_int32: bool = True,
    weight_scales: Mapping[str, NDArray[np.float32]] | None = None,
) -> onnx.ModelProto:
    """A quantized copy of an fp32 model (BatchNorm folded, as torch's exporter leaves it).

    `ranges` of at least plan_for(...).activations. `float_nodes`: layers that stay in float, by their nodes' names.
    `bias_int32`: onnxruntime's rules; without it TensorRT's: biases in float, and only layers' inputs are rounded.
    `weight_scales`: weight -> its scales, where training has fixed them; otherwise the largest value's.
    Raises KdcError where a range is missing or is not finite.
    """
    chosen = plan_for(model, scheme, float_nodes, bias_int32=bias_int32)
    return insert_pairs(model, chosen, ranges, scheme, bias_int32=bias_int32, weight_scales=weight_scales or {})


def insert_pairs(
    model: onnx.ModelProto,
    chosen: Plan,
    ranges: Ranges,
    scheme: Scheme,
    *,
    bias_int32: bool,
    weight_scales: Mapping[str, NDArray[np.float32]],
) -> onnx.ModelProto:
    """`quantize` of a plan that is made already; `bias_int32` is about the biases alone here."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.value_info[:]  # those of tensors that come to be integers would lie
    writer = _Writer(made.graph)
    scales: dict[str, float] = {}
    for name in chosen.activations:
        scales[name] = writer.activation(name, _range(ranges, chosen.same_as.get(name, name)), scheme)
    for layer in chosen.layers:
        writer.layer(layer, scales[layer.data], scheme, weight_scales, bias_int32)
    writer.finish()
    return made


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Check it and write it into its folder, which is made; the same model gives the same bytes."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise KdcError(f"the network cannot be written in low precision: {first_line(error)}") from None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise os_error(error, f"writing {path}") from error


def _range(ranges: Ranges, name: str) -> tuple[float, float]:
    if name not in ranges:
        raise KdcError(f"tensor {name} has no range to be quantized within", "calibrate again")
    low, high = min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)
    if not np.isfinite([low, high]).all():
        raise KdcError(f"tensor {name} takes values that are not finite ({low}, {high})", "look for NaN in the weights")
    return low, high


def _activation_scale(low: float, high: float, scheme: Scheme) -> tuple[np.float32, int]:
    """Scale and zero point: 0 is always one of the values, since padding and Relu make it exactly."""
    if scheme.activations == "int8":
        scale = max(-low, high) / 127
        return np.float32(scale if scale > SMALLEST else 1.0), 0
    scale = (high - low) / 255
    scale = scale if scale > SMALLEST else 1.0
    return np.float32(scale), int(np.clip(np.rint(-low / scale), 0, 255))


def _weight_scale(weight: NDArray[np.float32], axis: int | None, bits: int) -> NDArray[np.float32]:
    """Symmetric: the largest value of each channel (or of all, axis None) becomes LARGEST_WEIGHT."""
    over = tuple(number for number in range(weight.ndim) if number != axis)
    largest = np.abs(weight).max(axis=over if axis is not None else None).astype(np.float64)
    return np.asarray(np.where(largest > SMALLEST, largest, 1.0) / LARGEST_WEIGHT[bits], np.float32)


class _Writer:
    """Adds Q and DQ nodes to a graph, and lets the nodes that read the tensors read the DQs' results instead."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.values = {tensor.name: tensor for tensor in graph.initializer}
        self.before: dict[str, list[onnx.NodeProto]] = {}
        self.reads: dict[str, str] = {}
        self.done: set[str] = set()

    def activation(self, name: str, limits: tuple[float, float], scheme: Scheme) -> float:
        scale, zero = _activation_scale(*limits, scheme)
        kind = np.uint8 if scheme.activations == "uint8" else np.int8
        self._constant(f"{name}_scale", np.asarray(scale))
        self._constant(f"{name}_zero_point", np.asarray(zero, kind))
        numbers = [f"{name}_scale", f"{name}_zero_point"]
        pair = [
            helper.make_node("QuantizeLinear", [name, *numbers], [f"{name}_quantized"], f"{name}_QuantizeLinear"),
            helper.make_node(
                "DequantizeLinear", [f"{name}_quantized", *numbers], [f"{name}_rounded"], f"{name}_DequantizeLinear"
            ),
        ]
        self.before[name] = pair
        self.reads[name] = f"{name}_rounded"
        return float(scale)

    def layer(
        self,
        layer: Layer,
        data_scale: float,
        scheme: Scheme,
        fixed: Mapping[str, NDArray[np.float32]],
        bias_int32: bool,
    ) -> None:
        weight = numpy_helper.to_array(self.values[layer.weight])
        axis = layer.axis if scheme.per_channel else None
        scale = fixed.get(layer.weight, _weight_scale(weight, axis, scheme.weight_bits))
        if bias_int32 and layer.bias is not None:
            bias = numpy_helper.to_array(self.values[layer.bias]).astype(np.float64)
            least = np.abs(bias) / INT32_ROOM / data_scale  # for a channel of tiny weights, or none, and a bias
            scale = np.maximum(scale, least if axis is not None else least.max()).astype(np.float32)
            whole = np.float32(data_scale) * scale
            values = np.clip(np.rint(bias / whole), -(2**31) + 1, 2**31 - 1)
            self._stored(layer.bias, f"{layer.name}_bias", values.astype(np.int32), whole, 0, layer.name)
        shape = [-1 if number == axis else 1 for number in range(weight.ndim)]
        most = LARGEST_WEIGHT[scheme.weight_bits]
        codes = np.clip(np.rint(weight / scale.reshape(shape if scale.ndim else [1] * weight.ndim)), -most, most)
        self._stored(layer.weight, layer.weight, codes.astype(np.int8), scale, layer.axis, layer.name)

    def _stored(
        self,
        original: str,
        name: str,
        codes: NDArray[np.int8] | NDArray[np.int32],
        scale: NDArray[np.float32],
        axis: int,
        reader: str,
    ) -> None:
        """A constant as integers and a DQ, read by the node `reader`."""
        if name not in self.done:
            self.done.add(name)
            self._constant(f"{name}_quantized", codes)
            self._constant(f"{name}_scale", scale)
            self._constant(f"{name}_zero_point", np.zeros(scale.shape, codes.dtype))
            inputs = [f"{name}_quantized", f"{name}_scale", f"{name}_zero_point"]
            node = helper.make_node("DequantizeLinear", inputs, [f"{name}_rounded"], f"{name}_DequantizeLinear")
            if scale.ndim:
                node.attribute.append(helper.make_attribute("axis", axis))
            self.before.setdefault("", []).append(node)
        for node in self.graph.node:
            if node.name == reader:
                for slot, read in enumerate(node.input):
                    if slot and read == original:
                        node.input[slot] = f"{name}_rounded"

    def _constant(self, name: str, value: NDArray[np.generic]) -> None:
        assert name not in self.values, name
        self.values[name] = numpy_helper.from_array(np.asarray(value), name)

    def finish(self) -> None:
        """Write the nodes in topological order, and the constants that are still read."""
        nodes: list[onnx.NodeProto] = [*self.before.pop("", [])]
        for value in self.graph.input:
            nodes += self.before.pop(value.name, [])
        for node in self.graph.node:
            for slot, name in enumerate(node.input):
                node.input[slot] = self.reads.get(name, name)
            nodes.append(node)
            for name in node.output:
                nodes += self.before.pop(name, [])
        assert not self.before, sorted(self.before)
        used = {name for node in nodes for name in node.input}
        kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend(kept)
        constants = [value for name, value in self.values.items() if name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(constants)
