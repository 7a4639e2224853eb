"""From a Q/DQ graph back to float: weights on their grid, and the ranges that activations were rounded within."""

from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compressor.errors import KdcError

__all__ = ["Stripped", "strip"]


@dataclass(frozen=True)
class Stripped:
    """`model` computes in float what the Q/DQ graph rounded. `ranges`: tensor -> (low, high) of its rounding; where
    several Q read one tensor, the widest. `weight_scales`: int8 weight -> its scales, [channels] or a scalar."""

    model: onnx.ModelProto
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    weight_scales: dict[str, NDArray[np.float32]] = field(default_factory=dict)


def strip(quantized: onnx.ModelProto) -> Stripped:
    """Take the Q/DQ pairs out of a graph. Raises KdcError for a Q without its DQ, or weights with a zero point."""
    made = onnx.ModelProto()
    made.CopyFrom(quantized)
    graph, result = made.graph, Stripped(made)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    rounds = {node.output[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    instead: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        if node.input[0] in constants:
            constants[node.output[0]] = _dequantized(node, constants, result)
        elif node.input[0] in rounds:
            source = rounds[node.input[0]].input[0]
            low, high = _limits(rounds[node.input[0]], constants)
            before = result.ranges.get(source, (low, high))
            result.ranges[source] = (min(low, before[0]), max(high, before[1]))
            instead[node.output[0]] = source
        else:
            raise KdcError(f"node {node.name} dequantizes {node.input[0]}, which no QuantizeLinear makes")
    _rewire(graph, instead, constants)
    return result


def _dequantized(
    node: onnx.NodeProto, constants: dict[str, NDArray[np.generic]], result: Stripped
) -> NDArray[np.float32]:
    codes, scale = constants[node.input[0]], np.asarray(constants[node.input[1]], np.float32)
    if len(node.input) > 2 and np.any(constants[node.input[2]]):
        raise KdcError(f"node {node.name}: its weights have a zero point that is not 0; kdc takes symmetric ones")
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    shape = [-1 if number == axis % codes.ndim else 1 for number in range(codes.ndim)]
    if codes.dtype == np.int8:
        result.weight_scales[node.output[0]] = scale.reshape(()) if scale.size == 1 else scale
    spread = scale.reshape(shape) if scale.size > 1 else scale.reshape(())
    return np.asarray(codes.astype(np.float32) * spread, np.float32)


def _limits(node: onnx.NodeProto, constants: dict[str, NDArray[np.generic]]) -> tuple[float, float]:
    """What the smallest and the largest code stand for. int8 is taken to be symmetric: its -128 is not counted, so that
    the range gives the same scale again."""
    scale = float(np.asarray(constants[node.input[1]], np.float32).reshape(()))
    zero = np.asarray(constants[node.input[2]]) if len(node.input) > 2 else np.zeros((), np.uint8)
    least, most = (0, 255) if zero.dtype == np.uint8 else (-127, 127)
    return scale * (least - int(zero)), scale * (most - int(zero))


def _rewire(graph: onnx.GraphProto, instead: dict[str, str], constants: dict[str, NDArray[np.generic]]) -> None:
    nodes = [node for node in graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    for node in nodes:
        for slot, name in enumerate(node.input):
            while name in instead:
                name = instead[name]
            node.input[slot] = name
    lost = [value.name for value in graph.output if value.name in instead]
    if lost:
        raise KdcError(f"the model's output {lost[0]} is rounded: logits must stay in float")
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    used = {name for node in kept for name in node.input}
    del graph.node[:]
    graph.node.extend(kept)
    del graph.initializer[:]
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items() if name in used)
    del graph.value_info[:]
