"""A student that was trained under fake quantization -> ONNX with true quantization.

Every rounding becomes QuantizeLinear -> DequantizeLinear, and every rounded weight the int8 integers that it consists
of -> DequantizeLinear: what onnxruntime, TensorRT and OpenVINO read as an int8 network. Biases stay in float32.
"""

import copy
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from compressor.errors import KdcError, os_error
from compressor.export.base import QatModel
from compressor.export.bundle.identity import metadata_of
from compressor.export.onnx.graph import to_onnx
from compressor.models import load_run
from compressor.quantization.fake_quant import Rounding, WeightRounding, fake_quant_layers, remove_fake_quant
from compressor.schema.profile import Profile
from compressor.schema.tensors import TensorSpec

__all__ = ["qat_model", "to_qdq_onnx"]


def qat_model(run: Path, profile: Profile, batch: int | None, folder: Path) -> QatModel:
    """The student in `run`, trained under fake quantization, with its Q/DQ ONNX file in the new `folder`; `batch` None:
    it may vary."""
    model, record = load_run(run)
    if record.quantization is None:
        raise KdcError(f"{run} was not trained under fake quantization", "kdc distill --qat …")
    folder.mkdir(parents=True)
    path = folder / "model.onnx"
    metadata = metadata_of(model, record, True)
    modules = to_qdq_onnx(model.network, model.preprocess.inputs, batch, profile.opset, metadata, path)
    in_float = remove_fake_quant(model.network)
    return QatModel(model.network, in_float, path, record.quantization, model.weights, modules)


def to_qdq_onnx(
    network: nn.Module,
    inputs: Sequence[TensorSpec],
    batch: int | None,
    opset: int,
    metadata: Mapping[str, str],
    path: Path,
) -> dict[str, str]:
    """Write the fake-quantized `network` as Q/DQ ONNX; the other arguments, and what is returned, are those of
    `to_onnx`. Raises KdcError."""
    true = copy.deepcopy(network).cpu()
    for layer in fake_quant_layers(true).values():
        weight_rounding = layer.weight_rounding
        assert isinstance(weight_rounding, WeightRounding)
        assert isinstance(layer.weight, Tensor)
        layer.weight_rounding = _StoredWeight(weight_rounding, layer.weight)
        layer.register_parameter("weight", None)  # only its integers are stored
        for name in ("input_rounding", "output_rounding"):
            rounding = getattr(layer, name)
            if isinstance(rounding, Rounding):
                setattr(layer, name, _Quantize(rounding))
    modules = to_onnx(true, inputs, batch, opset, metadata, path)
    model = onnx.load(path)
    _merge_equal(model.graph)
    _drop_clips(model.graph)
    _separate_zero_points(model.graph)
    onnx.checker.check_model(model, full_check=True)
    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise os_error(error, f"writing {path}") from error
    return modules


class _Quantize(nn.Module):
    """QuantizeLinear -> DequantizeLinear."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, rounding: Rounding) -> None:
        super().__init__()
        self.kind = torch.uint8 if rounding.least == 0 else torch.int8
        self.register_buffer("scale", torch.tensor(rounding.scale, dtype=torch.float32))
        self.register_buffer("zero_point", torch.tensor(rounding.zero_point, dtype=self.kind))

    def forward(self, values: Tensor) -> Tensor:
        parameters = (self.scale, self.zero_point)
        integers = torch.onnx.ops.symbolic("QuantizeLinear", (values, *parameters), dtype=self.kind, shape=values.shape)
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (integers, *parameters), dtype=torch.float32, shape=values.shape
        )


class _StoredWeight(nn.Module):
    """int8 integers -> DequantizeLinear, a scale an output channel (axis 0) or one for all."""

    integers: Tensor
    scales: Tensor
    zero_points: Tensor

    def __init__(self, rounding: WeightRounding, weight: Tensor) -> None:
        super().__init__()
        scales = rounding.scales(weight)
        self.register_buffer("integers", rounding.integers(weight))
        self.register_buffer("scales", scales)
        self.register_buffer("zero_points", torch.zeros_like(scales, dtype=torch.int8))

    def forward(self, weight: None) -> Tensor:
        given = (self.integers, self.scales, self.zero_points)
        axis: dict[str, Any] = {"axis": 0} if self.scales.ndim else {}
        return torch.onnx.ops.symbolic("DequantizeLinear", given, axis, dtype=torch.float32, shape=self.integers.shape)


def _merge_equal(graph: onnx.GraphProto) -> None:
    """Where two layers take the same value in the same range, quantize it once."""
    constants = {row.name: numpy_helper.to_array(row).tobytes() for row in graph.initializer if not row.dims}
    first: dict[tuple[object, ...], str] = {}
    instead: dict[str, str] = {}
    kept = []
    for node in graph.node:
        _rename_inputs(node, instead)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            key = (node.op_type, *(constants.get(name, name) for name in node.input))
            if first.setdefault(key, node.output[0]) != node.output[0]:
                instead[node.output[0]] = first[key]
                continue
        kept.append(node)
    _keep(graph, kept)


def _drop_clips(graph: onnx.GraphProto) -> None:
    """Take out a Relu or Clip of values that were rounded to a range which it does not cut: a runtime would compute it
    in float."""
    constants = {row.name: numpy_helper.to_array(row) for row in graph.initializer if not row.dims}
    ranges: dict[str, tuple[float, float]] = {}
    instead: dict[str, str] = {}
    kept = []
    for node in graph.node:
        _rename_inputs(node, instead)
        if node.op_type == "DequantizeLinear" and node.input[1] in constants and node.input[2] in constants:
            scale, zero_point = float(constants[node.input[1]]), constants[node.input[2]]
            limits = np.iinfo(zero_point.dtype)
            ranges[node.output[0]] = (
                scale * (limits.min - int(zero_point)),
                scale * (limits.max - int(zero_point)),
            )
        bounds = _clip_bounds(node, constants)
        if bounds is not None and node.input[0] in ranges and node.output[0] != graph.output[0].name:
            low, high = ranges[node.input[0]]
            if bounds[0] <= low and high <= bounds[1] * (1 + 1e-6):
                instead[node.output[0]] = node.input[0]
                ranges[node.output[0]] = (low, high)
                continue
        kept.append(node)
    _keep(graph, kept)


def _separate_zero_points(graph: onnx.GraphProto) -> None:
    """Give each weight zeros of its own, which the exporter merged: onnxruntime's session.x64quantprecision turns int8
    weights into uint8 under names made of the old ones, and fails where two of them share a name."""
    constants = {row.name: row for row in graph.initializer}
    nodes = list(graph.node)
    for node in nodes:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            zeros = copy.deepcopy(constants[node.input[2]])
            zeros.name = node.input[2] = f"{node.input[0]}.zero_points"
            graph.initializer.append(zeros)
    _keep(graph, nodes)


def _clip_bounds(node: onnx.NodeProto, constants: Mapping[str, NDArray[Any]]) -> tuple[float, float] | None:
    if node.op_type == "Relu":
        return 0.0, inf
    if node.op_type == "Clip" and all(not name or name in constants for name in node.input[1:]):
        low, high = (*node.input[1:], "", "")[:2]
        return float(constants[low]) if low else -inf, float(constants[high]) if high else inf
    return None


def _rename_inputs(node: onnx.NodeProto, instead: Mapping[str, str]) -> None:
    for slot, name in enumerate(node.input):
        node.input[slot] = instead.get(name, name)


def _keep(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Leave only `nodes`, and the constants and shapes that they use."""
    nodes = [copy.deepcopy(node) for node in nodes]
    used = {name for node in nodes for name in node.input}
    made = {name for node in nodes for name in node.output}
    for rows, names in ((graph.initializer, used), (graph.value_info, made | used)):
        left = [copy.deepcopy(row) for row in rows if row.name in names]
        del rows[:]
        rows.extend(left)
    del graph.node[:]
    graph.node.extend(nodes)
