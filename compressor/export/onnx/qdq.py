"""Static quantization of an ONNX graph: Q/DQ pairs around what `qdq_plan` chooses, weights as int8, biases as int32.

The graph says what is rounded and how (ONNX QuantizeLinear, DequantizeLinear, opset 13 and later); the runtime fuses
`DQ -> Conv -> Q` into its integer kernel. The pairs are written by onnxruntime's QDQQuantizer. It is told which nodes,
since gates and logits stay in float, and the scales of the weights, since training may have fixed them.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compressor.errors import KdcError, first_line, os_error
from compressor.export.onnx.qdq_plan import CARRIERS, CLIPS, GATING, Plan, plan
from compressor.export.quiet import quiet
from compressor.quantization.fake_quant import LARGEST_WEIGHT
from compressor.schema.quantization import Scheme

__all__ = ["Ranges", "described_as", "insert_pairs", "plan_for", "quantize", "write_model"]

Ranges = Mapping[str, tuple[float, float]]
"""Tensor -> the (low, high) that it is rounded within; what lies outside is clipped."""

INT32_ROOM = 2.0**30
"""A bias keeps away from the ends of int32, so that the sum of products still fits beside it. QDQQuantizer itself lets
it reach them."""

SMALLEST = 1e-30
"""Scale below which float32 has no digits left: a tensor that is always 0."""

LAYERS = ("Conv", "Gemm", "MatMul")


def plan_for(
    model: onnx.ModelProto,
    scheme: Scheme,
    float_nodes: Collection[str] = (),
    *,
    bias_int32: bool,
    gating: bool = False,
) -> Plan:
    """What `quantize` will round: its activations are the tensors that need ranges."""
    return plan(model.graph, scheme, float_nodes, results=bias_int32, gating=gating)


def quantize(
    model: onnx.ModelProto,
    ranges: Ranges,
    scheme: Scheme,
    *,
    float_nodes: Collection[str] = (),
    bias_int32: bool = True,
    gating: bool = False,
    weight_scales: Mapping[str, NDArray[np.float32]] | None = None,
) -> onnx.ModelProto:
    """A quantized copy of an fp32 model (BatchNorm folded, as torch's exporter leaves it).

    `ranges` of at least plan_for(...).activations. `float_nodes`: layers that stay in float, by their nodes' names.
    `bias_int32`: onnxruntime's rules; without it TensorRT's: biases in float, and only layers' inputs are rounded.
    `gating`: squeeze-excite and swish are rounded too. `weight_scales`: weight -> its scales, where training has fixed
    them; otherwise the largest value's. Raises KdcError where a range is missing or is not finite.
    """
    chosen = plan_for(model, scheme, float_nodes, bias_int32=bias_int32, gating=gating)
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
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    made = onnx.ModelProto()
    made.CopyFrom(model)
    limits = {name: _range(ranges, name) for name in chosen.activations}
    limits |= {name: limits[last] for name, last in chosen.absorbed.items()}
    if not chosen.nodes:  # QDQQuantizer takes no names for all of them
        return made
    ops = [*LAYERS, *CARRIERS, *GATING, *CLIPS]
    with quiet("onnxruntime cannot quantize the network"):
        quantizer = QDQQuantizer(
            made,
            per_channel=scheme.per_channel,
            reduce_range=scheme.weight_bits == 7,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8 if scheme.activations == "uint8" else QuantType.QInt8,
            tensors_range={
                name: TensorData(lowest=np.float32(low), highest=np.float32(high))
                for name, (low, high) in limits.items()
            },
            nodes_to_quantize=list(chosen.nodes),
            nodes_to_exclude=[],
            op_types_to_quantize=ops,
            extra_options={
                "ActivationSymmetric": scheme.activations == "int8",
                "QuantizeBias": bias_int32,
                "OpTypesToExcludeOutputQuantization": ["Gemm"] if chosen.results else ops,
                "TensorQuantOverrides": _weight_overrides(made, chosen, limits, scheme, bias_int32, weight_scales),
            },
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    return described_as(quantizer.model.model, model)


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


def described_as(made: onnx.ModelProto, model: onnx.ModelProto) -> onnx.ModelProto:
    """With the metadata of the model that it was made of. Shapes that were inferred on the way would only add bytes."""
    made.producer_name, made.producer_version = model.producer_name, model.producer_version
    del made.metadata_props[:], made.graph.value_info[:]
    made.metadata_props.extend(model.metadata_props)
    return made


def _range(ranges: Ranges, name: str) -> tuple[float, float]:
    if name not in ranges:
        raise KdcError(f"tensor {name} has no range to be quantized within", "calibrate again")
    low, high = min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)
    if not np.isfinite([low, high]).all():
        raise KdcError(f"tensor {name} takes values that are not finite ({low}, {high})", "look for NaN in the weights")
    return low, high


def _weight_overrides(
    model: onnx.ModelProto,
    chosen: Plan,
    limits: Ranges,
    scheme: Scheme,
    bias_int32: bool,
    fixed: Mapping[str, NDArray[np.float32]],
) -> dict[str, list[dict[str, Any]]]:
    """QDQQuantizer's TensorQuantOverrides for the weights: their scales, symmetric."""
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    scales: dict[str, NDArray[np.float32]] = {}
    for layer in chosen.layers:
        axis = layer.axis if scheme.per_channel else None
        scale = scales.get(layer.weight, fixed.get(layer.weight))
        if scale is None:
            scale = _weight_scale(numpy_helper.to_array(values[layer.weight]), axis, scheme.weight_bits)
        if bias_int32 and layer.bias is not None:
            bias = np.abs(numpy_helper.to_array(values[layer.bias]).astype(np.float64))
            # For a channel of tiny weights, or none, and a bias.
            least = bias / INT32_ROOM / _activation_scale(*limits[layer.data], scheme)
            scale = np.maximum(scale, least if scale.ndim else least.max()).astype(np.float32)
        scales[layer.weight] = scale
    axes = {layer.weight: layer.axis for layer in chosen.layers}
    return {
        name: [
            {"scale": number, "zero_point": 0} | ({"axis": axes[name]} if scale.ndim else {})
            for number in scale.ravel()
        ]
        for name, scale in scales.items()
    }


def _activation_scale(low: float, high: float, scheme: Scheme) -> float:
    """As QDQQuantizer has it; 1 for a tensor that is always 0."""
    scale = max(-low, high) / 127 if scheme.activations == "int8" else (high - low) / 255
    return scale if scale > SMALLEST else 1.0


def _weight_scale(weight: NDArray[np.float32], axis: int | None, bits: int) -> NDArray[np.float32]:
    """Symmetric: the largest value of each channel (or of all, axis None) becomes LARGEST_WEIGHT."""
    over = tuple(number for number in range(weight.ndim) if number != axis)
    largest = np.abs(weight).max(axis=over if axis is not None else None).astype(np.float64)
    return np.asarray(np.where(largest > SMALLEST, largest, 1.0) / LARGEST_WEIGHT[bits], np.float32)
